"""What networks with an external memory share: a controller, which sees the input and what was
read in the step before, and an output made of what it knows and of what is read now.

    o_t = controller([x_t; r_{t-1}])       o [hidden]; r [reads, width], a row for each read head
    y_t = V [o_t; r_t] + c                 y [features]

controller: "lstm", or "feed_forward", o_t = tanh(W x_t + R r_{t-1} + b), which remembers nothing
itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.lstm import LSTM
from seqjax.nn.base import option
from seqjax.nn.recurrent import Recurrent

CONTROLLERS = ("lstm", "feed_forward")


class ExternalMemory(Recurrent):
    """A subclass defines initial() and

        use(state, o) -> state      what o, the output of the controller, makes of the memory

    Its state is a NamedTuple, of whose parts two are `reads` and `controller`.
    """

    learned = "reads"

    def __init__(
        self,
        features: int,
        *,
        reads: int,
        width: int,
        controller: str,
        hidden: int | None,
        squashed: bool,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.read_heads, self.width, self.squashed = reads, width, squashed
        self.controller = option("controller", controller, CONTROLLERS)
        H = self.hidden = hidden or features
        if controller == "lstm":
            self.cell = LSTM(features, hidden=H, rngs=rngs)
        else:
            self.W = nnx.Linear(features, H, rngs=rngs)  # carries b
        rows = 4 * H if controller == "lstm" else H
        self.R = nnx.Linear(reads * width, rows, use_bias=False, rngs=rngs)
        self.V = nnx.Linear(H + reads * width, features, rngs=rngs)  # carries c

    def begin(self) -> tuple[jax.Array, Any]:
        """The first `reads` and `controller`."""
        reads = jnp.zeros((self.read_heads, self.width))
        return reads, self.cell.initial() if self.controller == "lstm" else jnp.zeros(self.hidden)

    def use(self, state: Any, o: jax.Array) -> Any:
        raise TypeError(f"{type(self).__name__} must define use(state, o) -> state")

    def squash(self, v: jax.Array) -> jax.Array:
        return jnp.tanh(v) if self.squashed else v

    def drive(self, x):
        return self.cell.drive(x) if self.controller == "lstm" else self.W(x)

    def step(self, state, z):
        z = z + self.R(state.reads.reshape(-1))
        known = self.cell.step(state.controller, z) if self.controller == "lstm" else jnp.tanh(z)
        state = state._replace(controller=known)
        return self.use(state, self.output(state))

    def output(self, state: Any) -> jax.Array:
        return state.controller.h if self.controller == "lstm" else state.controller

    def readout(self, state, x):
        return self.V(jnp.concatenate([self.output(state), state.reads.reshape(-1)]))
