"""TransNormer (Qin et al. 2022, arXiv:2210.10340): NormAttention, and diagonal attention below it.

    z = x + mixing(RMSNorm(x)),   y = z + W_3 (silu(W_1 n) * W_2 n),  n = RMSNorm(z)

with one kind of mixing per name in `pattern` (diagonal for the first half of the layers):

    norm      o_t = phi(q_t)^T S_t,  S_t = S_{t-1} + phi(k_t) v_t^T       S [heads, key, value]
              y_t = W_o RMSNorm(o_t)                   over all heads at once, in place of phi(q).z
              phi = elu + 1, or another of `feature_map`
    diagonal  softmax attention inside blocks of `window` steps that do not overlap

A stream cuts the blocks where a whole sequence does: they count the steps since the last reset.
`NormAttention` is shared with TransNormerLLM and Lightning Attention, which add fixed decays,
positions and gates to it. Of the release's options not here: norms other than RMS, attention that
is not causal, and positions (LRPE with reflections; the rotations of arXiv:2307.09270 are here).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.layers.attention.attention import Attention
from seqjax.nn.activations import relu, sigmoid, silu
from seqjax.nn.base import Frozen, Layer, Precise, option
from seqjax.nn.blocks import Blocks
from seqjax.nn.feature_maps import elu_plus_one
from seqjax.nn.linear import GLU, merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.positions import angles, places

FEATURE_MAPS = {"elu+1": elu_plus_one, "relu": relu, "silu": silu, "sigmoid": sigmoid}


class NormState(NamedTuple):
    S: Array  # [heads, K, V], or [heads, 2 K, V] with positions
    place: Array  # int32 [], of the next step


class NormAttention(Layer):
    """W_o gate(x, norm(phi(q)^T S)), S_t = exp(-slope) S_{t-1} + phi(k_t) v_t^T.

    slope [heads]: fixed decays, None for none. lrpe: positions by theta, learned,
    q_t to [q_t cos(theta t), q_t sin(theta t)] and k alike (arXiv:2307.09270).
    """

    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        phi: Callable[[Array], Array],
        norm: Norm,
        slope: Array | None = None,
        lrpe: bool = False,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.K = heads, per_head("features", features, heads)
        self.phi, self.norm = phi, norm
        linear = partial(nnx.Linear, features, features, use_bias=bias, rngs=rngs)
        self.W_q, self.W_k, self.W_v, self.W_o = (linear() for _ in range(4))
        self.slope = None if slope is None else Frozen(slope)
        rates = 10_000.0 ** (-2 * jnp.arange(features) / features)
        self.theta = Precise(rates.reshape(heads, self.K)) if lrpe else None

    def initial(self):
        size = self.K if self.theta is None else 2 * self.K
        S = jnp.zeros((self.heads, size, self.K))
        return NormState(S, jnp.zeros((), jnp.int32))

    def values(self, x):
        return self.W_v(x)

    def gate(self, x, o):
        del x
        return o

    def run(self, x, h, flow):
        place, last = places(h.place, len(x), flow=flow)
        q, k = (self.phi(split_heads(W(x), self.heads)) for W in (self.W_q, self.W_k))
        if self.theta is not None:
            theta = self.theta[...]
            angle = angles(place, theta, theta.dtype)
            cos, sin = jnp.cos(angle).astype(q.dtype), jnp.sin(angle).astype(q.dtype)
            q, k = (jnp.concatenate([z * cos, z * sin], axis=-1) for z in (q, k))
        o, S = linear_attention(
            q,
            k,
            wide(split_heads(self.values(x), self.heads)),
            None if self.slope is None else -self.slope[...],
            h.S,
            flow=flow,
        )
        return self.W_o(self.gate(x, self.norm(merge_heads(o)).astype(x.dtype))), NormState(S, last)


class DiagonalState(NamedTuple):
    cache: tuple  # of the steps of the present block
    place: Array  # int32 [], of the next step


class DiagonalAttention(Attention):
    """Attention that forgets all at the start of every block of `window` steps."""

    def initial(self):
        return DiagonalState(super().initial(), jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        place, last = places(h.place, len(x), flow=flow)
        starts = replace(flow, resets=place % self.window == 0)
        y, cache = super().run(x, h.cache, starts)
        return y, DiagonalState(cache, last)


class TransNormer(Blocks):
    def __init__(
        self,
        features: int,
        *,
        pattern: Sequence[str] = ("diagonal", "norm"),
        heads: int = 4,
        window: int = 64,
        feature_map: str = "elu+1",
        bias: bool = False,
        expansion: float = 2.0,
        rngs: nnx.Rngs,
    ):
        phi = FEATURE_MAPS[option("feature map of TransNormer", feature_map, FEATURE_MAPS)]

        def norm():
            return Norm(features)

        kinds = {
            "norm": lambda: NormAttention(
                features, heads=heads, phi=phi, norm=norm(), bias=bias, rngs=rngs
            ),
            "diagonal": lambda: DiagonalAttention(
                features, heads=heads, window=window, rotary_fraction=0.0, bias=bias, rngs=rngs
            ),
        }
        super().__init__(
            features,
            [kinds[option("kind of block", name, kinds)]() for name in pattern],
            norm=norm,
            feed=lambda: GLU(features, int(expansion * features), rngs=rngs),
        )
