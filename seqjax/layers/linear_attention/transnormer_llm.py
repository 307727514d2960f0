"""TransNormerLLM (Qin et al. 2023, arXiv:2307.14995): NormAttention with decay, positions and gate.

    z = x + GLA(SRMSNorm(x)),   y = z + SGLU(SRMSNorm(z))                              sec. 3.1

    S_t = lambda_h S_{t-1} + k_t v_t^T,   o_t = q_t^T S_t          S [heads, key, value]
    GLA(x) = W_o (u_t * SRMSNorm(o_t)),   u = W_u x                 over all heads at once
    q = silu(W_q x),  k = silu(W_k x),  v = W_v x                   no scale, nothing on v and u
    q_t -> [q_t cos(theta t), q_t sin(theta t)], k alike: LRPE, theta learned, per head and channel
    lambda_h = exp(-8 h / H (1 - l / L))                            h = 0 .. H - 1, l of L layers
    SGLU(x) = W_3 (W_1 x * W_2 x),   SRMSNorm(x) = x / rms(x)       no weights, no activation

`depth` in [0, 1] is l / L. lrpe is for the first layer only in the paper; the decay reads S after
the write. slopes "alibi": as released, the
exponents 2^(-8 (h + 1) / H) (1 - l / (L - 1) + 1e-5). Of the release's options not here: other
norms and activations than the paper's, and biases (off in it).
"""

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.layers.linear_attention.transnormer import NormAttention
from seqjax.nn.activations import silu
from seqjax.nn.base import option
from seqjax.nn.blocks import Blocks
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm


def alibi(heads: int) -> list[float]:
    """2^(-8 (h + 1) / H); for H that is no power of two, filled up from those of the next one."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
    return slopes if power == heads else slopes + alibi(2 * power)[::2][: heads - power]


SLOPES = {
    "linear": lambda heads, depth: [8 * h / heads * (1 - depth) for h in range(heads)],
    "alibi": lambda heads, depth: [s * (1 - depth + 1e-5) for s in alibi(heads)],
}


def head_slopes(kind: str, heads: int, depth: float) -> Array:
    """-log lambda [heads]."""
    return jnp.asarray(SLOPES[option("slopes", kind, SLOPES)](heads, depth))


def no_activation(z: Array) -> Array:
    return z


def simple_norm(features: int) -> Norm:
    return Norm(features, weight=False, eps=1e-6)


class GatedNormAttention(NormAttention):
    """The GLA of the paper (another one than arXiv:2312.06635's)."""

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        depth: float = 0.0,
        lrpe: bool = True,
        slopes: str = "linear",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            heads=heads,
            phi=silu,
            norm=simple_norm(features),
            slope=head_slopes(slopes, heads, depth),
            lrpe=lrpe,
            rngs=rngs,
        )
        self.W_u = nnx.Linear(features, features, use_bias=False, rngs=rngs)

    def gate(self, x, o):
        return self.W_u(x) * o


class TransNormerLLM(Blocks):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        depth: float = 0.0,
        lrpe: bool = True,
        slopes: str = "linear",
        expansion: float = 2.0,
        rngs: nnx.Rngs,
    ):
        attention = GatedNormAttention(
            features, heads=heads, depth=depth, lrpe=lrpe, slopes=slopes, rngs=rngs
        )
        self.K = attention.K
        super().__init__(
            features,
            [attention],
            norm=lambda: simple_norm(features),
            feed=lambda: GLU(features, int(expansion * features), no_activation, rngs=rngs),
        )
