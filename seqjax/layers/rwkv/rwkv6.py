"""RWKV-6 "Finch" time mixing (Peng et al. 2024, arXiv:2404.05892).

    x^x_t = x_t + (x_{t-1} - x_t) * mu_x
    x^j_t = x_t + (x_{t-1} - x_t) * (mu_j + tanh(x^x_t A_j) B_j),   j in r, k, v, g, w
                                                        token shift "ddlerp"
    w_t = exp(-exp(w_raw + tanh(x^w_t A) B))            decay per key and step

and the rest as RWKV-5 (`seqjax.layers.rwkv.rwkv5`): the bonus u, the read before the
decay, the norm and the gate. ranks: of A_j and of A; 32 and 64 in the release of up to 3 billion
parameters. A starts at zero, B uniform in +-0.01.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.rwkv.parts import LowRank, lerp
from seqjax.layers.rwkv.rwkv5 import RWKV5


class RWKV6(RWKV5):
    version = 6

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        ranks: Sequence[int] = (32, 64),
        block: bool = False,
        inner: int | None = None,
        depth: float = 0.0,
        key_size: int | None = None,
        value_size: int | None = None,
        norm_eps: float = 1e-5,
        head_eps: float = 64e-5,
        rngs: nnx.Rngs,
    ):
        self.ranks = tuple(ranks)
        super().__init__(
            features,
            heads=heads,
            block=block,
            inner=inner,
            depth=depth,
            key_size=key_size,
            value_size=value_size,
            norm_eps=norm_eps,
            head_eps=head_eps,
            rngs=rngs,
        )

    def add_shift(self, mu, whole, rngs):
        C, (rank, decay_rank) = self.features, self.ranks

        def small(key, shape):
            return jax.random.uniform(key, shape, minval=-0.01, maxval=0.01)

        self.mu_x = nnx.Param(1 - whole)
        self.mu = nnx.Param(jnp.concatenate([mu, 1 - whole[None]]))  # r, k, v, g, w
        self.A = nnx.Param(jnp.zeros((C, 5 * rank)))  # 5 blocks, as mu
        self.B = nnx.Param(small(rngs.params(), (5, rank, C)))
        self.w_shift = LowRank(C, decay_rank, None, small, out=self.heads * self.K, rngs=rngs)

    def shifted(self, x, before):
        (x_x,) = lerp(x, before, self.mu_x[...][None])
        inner = jnp.tanh(x_x @ self.A[...]).reshape(len(x), *self.B.shape[:2])
        mu = self.mu[...][:, None] + jnp.einsum("tjr,jrc->jtc", inner, self.B[...])
        x_r, x_k, x_v, x_g, x_w = x[None] + (before - x)[None] * mu
        log_w = -jnp.exp(self.w[...][None] + self.w_shift(x_w, jnp.tanh))
        return x_r, x_k, x_v, x_g, log_w
