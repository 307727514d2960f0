"""Self-referential weight matrix (Irie et al. 2022, arXiv:2202.05780): W programs itself.

    [y_t, q_t, k_t, beta_t] = W_{t-1} phi(x_t)                       phi = softmax, per head
    W_t = W_{t-1} + sigmoid(beta_t) (W_{t-1} phi(q_t) - W_{t-1} phi(k_t)) phi(k_t)^T
    z_t = LN(x_t + W_o y_t)

W [heads, D, 3 D + 4] (the transpose of the above) is the only weight matrix of the layer but W_o:
it makes its own keys, queries, values and rates. There are four rates, one each for the rows that
make y, q, k and beta. y_t is read before the update. The state is W; what it starts from are slow
weights, normal with variance 1 / D. `order` of residual and norm as in
`seqjax.layers.fast_weights.fwp`. Of the release's options not here: dropout, a size of heads of
their own (dim_head), and the layers of its ablations.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.mesh import loop
from seqjax.layers.fast_weights.fwp import INIT, Sublayer
from seqjax.nn.base import Precise
from seqjax.nn.linear import merge_heads, per_head, split_heads


class SRWM(Sublayer):
    structure = "delta rule on the matrix that makes its keys"
    learned = ""  # the slow weights are, already

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        order: str = "post",
        rngs: nnx.Rngs,
    ):
        super().__init__(features, order)
        self.heads, self.D = heads, per_head("features", features, heads)
        shape = heads, self.D, 3 * self.D + 4
        self.W = Precise(jax.random.normal(rngs.params(), shape) * self.D**-0.5)
        self.W_o = nnx.Linear(features, features, use_bias=False, kernel_init=INIT, rngs=rngs)

    def initial(self):
        return self.W[...]

    def mix(self, x, h, flow):
        y, W = self.refer(split_heads(x, self.heads), h, flow)
        return self.W_o(merge_heads(y).astype(x.dtype)), W

    def refer(self, x, h, flow):
        """y [T, heads, D] and the next W, for x [T, heads, D]."""
        D = self.D

        def step(old, now):
            x, reset, keep = now
            W = old if reset is None else jnp.where(reset, h.start, old)
            y, q, k, beta = jnp.split(read(x, W), (D, 2 * D, 3 * D), axis=1)
            q, k, rates = jax.nn.softmax(q), jax.nn.softmax(k), jax.nn.sigmoid(beta)
            sizes = jnp.asarray([D, D, D, 4])
            rates = jnp.repeat(rates, sizes, axis=1, total_repeat_length=3 * D + 4)
            new = W + k[:, :, None] * (rates * read(q - k, W))[:, None]
            return (new if keep is None else jnp.where(keep, new, old)), y

        phi = jax.nn.softmax(x.astype(h.now.dtype))
        W, y = loop(step, h.now, (phi, flow.resets, flow.mask))
        return y, W


def read(x, W):
    return jnp.einsum("hk,hkv->hv", x, W)
