"""cosFormer (Qin et al. 2022, arXiv:2202.08791): relu features, re-weighted by cosines.

    s(q_i, k_j) = relu(q_i).relu(k_j) cos(pi (i - j) / (2 M))
                = q^cos_i.k^cos_j + q^sin_i.k^sin_j,   q^cos_i = relu(q_i) cos(pi i / (2 M)), ...
    y_i = W_o [sum_{j <= i} s(q_i, k_j) v_j / max(sum_{j <= i} s(q_i, k_j), eps)]

which is linear attention with twice the features. `length` is M: at least as long as what is read
between two resets, for cos turns negative beyond. The release sets M to the length of each input,
so that the first outputs depend on how much follows; a causal layer needs it as an option.
feature_map: "elu+1" may take the place of relu. Of the release's options not here: kdim and vdim,
sizes of another sequence's features, dropout, and an output without W_o. Not `causal` and `cross`
are those of `seqjax.layers.linear_attention.linear_transformer`, of positions from 0 on.

The state holds S and z [heads, 2 key, value + 1], and the position i.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.layers.linear_attention.linear_transformer import LinearTransformer
from seqjax.nn.base import option
from seqjax.nn.feature_maps import cosine_weights
from seqjax.nn.linear import merge_heads
from seqjax.ops.positions import places

FEATURE_MAPS = ("relu", "elu+1")  # not negative, as the scores must be


class CosFormerState(NamedTuple):
    S: Array  # [heads, 2 K, V + 1], z its last column
    place: Array  # int32 [], of the next step


class CosFormer(LinearTransformer):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        length: int = 4096,
        feature_map: str = "relu",
        eps: float = 1e-6,
        bias: bool = True,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            heads=heads,
            feature_map=option("feature map", feature_map, FEATURE_MAPS),
            denominator="max",
            eps=eps,
            bias=bias,
            causal=causal,
            rngs=rngs,
        )
        self.length, self.size = length, 2 * self.phi.size

    def initial(self):
        if not self.causal:
            return ()
        return CosFormerState(super().initial(), jnp.zeros((), jnp.int32))

    def weighted(self, x, place) -> tuple[Array, Array, Array]:
        """`project` with the features of q and k weighted by their positions."""
        q, k, v = self.project(x)
        return cosine_weights(q, place, self.length), cosine_weights(k, place, self.length), v

    def placed(self, x, mask):
        return self.weighted(x, places(jnp.zeros((), jnp.int32), len(x), mask=mask)[0])

    def run(self, x, h, flow):
        first = h.now.place if self.causal else jnp.zeros((), jnp.int32)
        place, last = places(first, len(x), resets=flow.resets, mask=flow.mask, axis=flow.axis)
        q, k, v = self.weighted(x, place)
        y, S = self.attend(q, k, v, h.S if self.causal else h, flow)
        y = self.W_o(merge_heads(y).astype(x.dtype))
        return y, CosFormerState(S, last) if self.causal else ()
