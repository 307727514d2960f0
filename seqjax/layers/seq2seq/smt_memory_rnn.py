"""The memory network of supervised memory training (arXiv:2606.06479): a Transformer as the step.

    m_t = norm(Transformer([m_{t-1}^1 .. m_{t-1}^K, W x_t])^1..K)       m [K, width]; fig. 15
    y_t = V [m_t^1 .. m_t^K]

Every memory token sees every other and the input; norm is RMS without a weight. There is no gate
and no residual path from m_{t-1} to m_t past the Transformer's own. The paper trains it without
unrolling it: seqjax.learn.smt. Its readout is a causal Transformer over the memory tokens, which
seqjax.learn.smt_students has; the layer reads out linearly, as the model around it goes on.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.nn.recurrent import Recurrent
from seqjax.nn.transformer import Transformer, normalise_memory


class MemoryUpdate(nnx.Module):
    """m [K, width] and an input token z [width] to the next memory."""

    def __init__(self, width: int, *, depth: int, heads: int, expansion: float, rngs: nnx.Rngs):
        self.transformer = Transformer(
            width, depth=depth, heads=heads, expansion=expansion, rngs=rngs
        )

    def __call__(self, m: Array, z: Array) -> Array:
        tokens = jnp.concatenate([m, z.astype(m.dtype)[None]])
        return normalise_memory(self.transformer(tokens)[: len(m)])


class SMTMemoryRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        memory: int = 4,
        width: int | None = None,
        depth: int = 2,
        heads: int = 4,
        expansion: float = 2.0,
        rngs: nnx.Rngs,
    ):
        """memory: number of memory tokens K; width: of each; depth: Transformer blocks a step."""
        if memory < 1:
            raise ValueError(f"memory must be at least 1 token, got {memory}")
        self.features = self.out_features = features
        self.memory, self.width = memory, width or features
        self.W = nnx.Linear(features, self.width, rngs=rngs)
        self.update = MemoryUpdate(
            self.width, depth=depth, heads=heads, expansion=expansion, rngs=rngs
        )
        self.V = nnx.Linear(memory * self.width, features, rngs=rngs)

    def initial(self):
        return jnp.zeros((self.memory, self.width))

    def drive(self, x):
        return self.W(x)

    def step(self, h, z):
        return self.update(h, z)

    def readout(self, h, x):
        return self.V(h.ravel())
