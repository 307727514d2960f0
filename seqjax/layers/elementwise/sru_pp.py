"""SRU++: fast recurrence with attention (Lei 2021, arXiv:2102.12459).

    Q = W_q x,  K = W_k Q,  V = W_v Q                      each [attention], a fraction of features
    A_t = softmax_s(Q_t . K_s / sqrt(attention)) V_s       over the last `window` steps
    U = W_o LayerNorm(Q + alpha A)                         alpha a scalar, zero at first

and SRU with U in place of the products W x, W_f x, W_r x (`seqjax.layers.elementwise.sru`). At
first U is linear in x but for the norm: the model learns to recur before it attends. By default
attention = features / 4, as in the paper's experiments.

The state is the cache of K and V of the last window - 1 steps, and c.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.elementwise.sru import SRU
from seqjax.nn.norms import Norm
from seqjax.ops.look_back import Cache, empty
from seqjax.ops.softmax_attention import softmax_attention


class SRUppState(NamedTuple):
    cache: Cache
    c: Any  # [hidden], or the cells themselves in `parts`


class SRUpp(SRU):
    side_ops = ("softmax_attention",)

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        attention: int | None = None,
        window: int = 1024,
        highway_bias: float = -2.0,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.attention, self.window = attention or max(1, features // 4), window
        size = self.attention
        super().__init__(features, hidden=hidden, highway_bias=highway_bias, rank=size, rngs=rngs)
        self.W_k, self.W_v = (nnx.Linear(size, size, use_bias=False, rngs=rngs) for _ in range(2))
        self.a = nnx.Param(jnp.zeros(1))
        self.attention_norm = Norm(size, centre=True, bias=True, eps=1e-5)

    def parts(self):
        keys = jnp.zeros((self.window - 1, self.attention))
        return SRUppState(empty((keys, keys)), self.cells)

    def run(self, x, h, flow):
        Q = self.W_in(x)
        k, v = self.W_k(Q), self.W_v(Q)
        A, cache = softmax_attention(Q[:, None], k, v, h.cache, expand=one_head, flow=flow.of())
        u = self.attention_norm(Q + self.a[...][None] * A[:, 0])
        y, c = self.recur(u, x, h.c, flow)
        return y, SRUppState(cache, c)


def one_head(k, v):
    return k[:, None], v[:, None]
