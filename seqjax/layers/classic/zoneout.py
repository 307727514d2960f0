"""Zoneout (Krueger et al. 2016, arXiv:1606.01305) over any recurrence that is a step.

    h_t = d_t * h'_t + (1 - d_t) * h_{t-1},     h'_t = what the layer's step makes of h_{t-1}, x_t

While training, d_t is 0 for each unit with probability `rate`, and the unit stays as it was; in
evaluation d_t is the mean, 1 - rate. (d keeps the old value in the paper, and takes the new one in
released kernels and here.)

h is that part of the state which the layer reads out. Whatever else the state has, the cell c of an
LSTM, moves as it does in the layer, or is zoned out by `cell_rate`; h'_t is of the c that was not.

With a key d_t is drawn, without one a call is the evaluation form. With `masks` that many of the
features of x, the last, are d_t: of h and then, if there is a `cell_rate`, of the rest of the
state, and `draw` makes them. The state is the layer's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.layers.classic.lstm import LSTM
from seqjax.nn.base import Layer
from seqjax.nn.recurrent import Recurrent
from seqjax.nn.states import gauged


class Zoneout(Recurrent):
    """layer: (features, *, rngs) -> Recurrent; `make` also takes a name, or a pair (name, options).

    Raises ValueError for a layer without a step, or without a part of its state for an output.
    """

    noisy = True
    evaluators = Recurrent.loops  # of its step; those of the layer run the layer's own

    def __init__(
        self,
        features: int,
        *,
        layer: Callable[..., Layer] = LSTM,
        rate: float = 0.05,
        cell_rate: float = 0.0,
        masks: int = 0,
        rngs: nnx.Rngs,
    ):
        for share in (rate, cell_rate):
            if not 0 <= share < 1:
                raise ValueError(f"zoneout is a share in [0, 1), got {share}")
        if not 0 <= masks < features:
            raise ValueError(f"of {features} features, {masks} cannot be masks")
        self.features, self.masks = features, masks
        made = layer(features - masks, rngs=rngs)
        if not isinstance(made, Recurrent):
            raise ValueError(f"{type(made).__name__} is not a step, which zoneout could mix")
        made.ops = ()  # of it only the step is run
        self.layer, self.out_features, self.block = made, made.out_features, made.block
        leaves, h = jax.tree.leaves(made.initial()), part_read_out(made)
        floats = [n for n, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        rest = [n for n in floats if n != h] if cell_rate else []
        scaled = any(map(gauged, jax.tree.leaves(made.initial(), is_leaf=gauged)))
        if cell_rate and (not rest or scaled):
            raise ValueError(f"the state of {type(made).__name__} has no cell to be mixed alone")
        # (leaf of the state, its rate, where its masks lie), h first
        ends = np.cumsum([leaves[n].size for n in (h, *rest)]).tolist()
        rates = [rate] + [cell_rate] * len(rest)
        self.zoned = tuple(zip((h, *rest), rates, (0, *ends), ends))
        if masks and masks != ends[-1]:
            raise ValueError(f"there are {ends[-1]} units to zone out, got {masks} masks")
        self.timed = made.timed

    @property
    def shares(self) -> Array:
        """How often each unit takes the new value."""
        return jnp.concatenate([jnp.full(end - at, 1 - rate) for _, rate, at, end in self.zoned])

    def draw(self, key: Array, batch: int, steps: int, dtype=jnp.float32) -> Array:
        """Masks [batch, steps, units]: 1 where the new value is taken."""
        shape = (batch, steps, len(self.shares))
        return jax.random.bernoulli(key, self.shares[None, None], shape).astype(dtype)

    @property
    def jacobian(self):
        return self.layer.jacobian

    def parts(self):
        return self.layer

    def drive(self, x, flow):
        x, masks = jnp.split(x, (self.features - self.masks,), axis=1)
        taken = masks > 0.5 if self.masks else flow.drawn(self.shares, self.shares.shape)
        return self.layer.driven(x, flow.part(0)), taken

    def step(self, h, z):
        z, taken = z
        old, tree = jax.tree.flatten(h)
        new = jax.tree.leaves(self.layer.step(h, z))
        for n, rate, at, end in self.zoned:
            if taken is None:
                new[n] = rate * old[n] + (1 - rate) * new[n]
            else:
                new[n] = jnp.where(taken[at:end].reshape(old[n].shape), new[n], old[n])
        return jax.tree.unflatten(tree, new)

    def readout(self, h, x):
        return self.layer.readout(h, x[: self.features - self.masks])


def part_read_out(layer: Recurrent) -> int:
    """Which leaf of the state is the output of the layer; the state, if it is one array."""
    initial, found = layer.initial(), [0]

    def look(h, x):
        y = layer.readout(h, x)
        found[:] = [n for n, leaf in enumerate(jax.tree.leaves(h)) if leaf is y]

    if len(jax.tree.leaves(initial)) > 1:
        with jax.numpy_dtype_promotion("standard"):  # the weights are float32 yet
            jax.eval_shape(look, initial, jnp.zeros(layer.features))
    if not found:
        raise ValueError(f"no part of the state of {type(layer).__name__} is its output")
    return found[0]
