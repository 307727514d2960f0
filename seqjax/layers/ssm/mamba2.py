"""Mamba-2 (Dao & Gu 2024, arXiv:2405.21060): the mixer around the state-space dual SSD.

    [z, xBC, delta] = W_in x                          one projection for all             fig. 6
    [x, B, C] = SiLU(conv(xBC))                       x [heads, P], B and C [groups, N]
    dt = softplus(delta + dt_bias)                    per head
    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T        S [heads, N, P], A per head        sec. 6
    y_t = W_out RMSNorm((C_t^T S_t + D x_t) * SiLU(z_t))        the norm over each group  sec. 7.1

expand * features = heads * P; by default P is 64 (a single head if there are fewer channels). That
is linear attention with a decay per head: C is the query, B the key, dt x the value. Heads share B
and C in groups. -A = exp(A_log) starts uniform in [1, 16], D at 1, softplus(dt_bias) log-uniform in
[dt_min, dt_max]. `inner` gives the channels themselves, `dt_limit` bounds dt after the softplus, D
is one per channel with `D_per_channel`, `norm_groups` is how many groups the norm has (the groups
of B and C by default; 0: no norm, the gate alone), norm_first norms before the gate. `bias` is of
W_in and W_out. scales: five constants that multiply what W_in makes of z, x, B, C and delta
(Falcon-H1). eigenvalues "[-1,1]": exp(dt A) becomes 2 exp(dt A) - 1 (arXiv:2411.12537).

With `ssm_size` m only m of the channels are x, as heads * P; of the others W_in makes [z0, x0],
before all else, and W_out is of [SiLU(z0) * x0, y]: a gated unit beside the state space. What the
release has for several devices is not here.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.convolution import ShortConv
from seqjax.nn.gates import EIGENVALUES, signed_linear_attention
from seqjax.nn.initialisation import time_step_bias
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.ssd import within_limits


class Mamba2State(NamedTuple):
    window: jax.Array  # [conv - 1, channels of x, B and C]
    S: jax.Array  # [heads, N, P]


class Mamba2(Layer):
    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        state: int = 128,
        heads: int | None = None,
        groups: int = 1,
        conv: int = 4,
        expand: int = 2,
        inner: int | None = None,
        ssm_size: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        D_per_channel: bool = False,
        norm_groups: int | None = None,
        norm_first: bool = False,
        norm_eps: float = 1e-5,
        bias: bool = False,
        conv_bias: bool = True,
        scales: Sequence[float] | None = None,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        whole, self.N, self.groups = inner or expand * features, state, groups
        d = whole if ssm_size is None else ssm_size
        if not 0 < d <= whole:
            raise ValueError(f"ssm_size = {ssm_size} of {whole} channels, expected 1 to {whole}")
        self.beside = whole - d  # channels of the gated unit
        self.heads = heads or max(1, d // 64)
        self.P = per_head("channels of the state space", d, self.heads)
        per_head("heads", self.heads, groups)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.sizes = (d, groups * state, groups * state)  # of x, B and C
        self.widths = (self.beside, self.beside, d, *self.sizes, self.heads)
        self.W_in = nnx.Linear(features, sum(self.widths), use_bias=bias, rngs=rngs)
        self.conv = ShortConv(sum(self.sizes), conv, bias=conv_bias, rngs=rngs)
        self.dt_bias = Precise(time_step_bias(rngs.params(), self.heads, dt_min, dt_max))
        rates = jax.random.uniform(rngs.params(), (self.heads,), minval=1.0, maxval=16.0)
        self.A_log = Precise(jnp.log(rates))
        self.D = Precise(jnp.ones((self.heads, self.P) if D_per_channel else self.heads))
        self.norm_groups = groups if norm_groups is None else norm_groups
        width = per_head("channels of the state space", d, self.norm_groups or 1)
        self.norm = Norm(self.norm_groups, width, eps=norm_eps) if self.norm_groups else None
        self.norm_first = norm_first
        self.W_out = nnx.Linear(whole, features, use_bias=bias, rngs=rngs)
        self.dt_limit = within_limits("mamba2", dt_limit)
        self.scales = None if scales is None else (1.0, 1.0, *scales)

    def initial(self):
        return Mamba2State(self.conv.initial(), jnp.zeros((self.heads, self.N, self.P)))

    def run(self, x, h, flow):
        d = self.sizes[0]
        ends = np.cumsum((self.beside, self.beside, d, sum(self.sizes)))
        z0, x0, z, xBC, delta = jnp.split(self.project(x), ends, axis=1)
        xBC, window = self.conv(xBC, h.window, flow)
        u, B, C = jnp.split(jax.nn.silu(xBC), (d, d + self.sizes[1]), axis=1)
        dt = jnp.clip(jax.nn.softplus(delta + self.dt_bias[...][None]), *self.dt_limit)
        u = wide(split_heads(u, self.heads))
        y, S = signed_linear_attention(
            split_heads(C, self.groups),
            split_heads(B, self.groups),
            dt[:, :, None] * u,
            -jnp.exp(self.A_log[...])[None] * dt,
            h.S,
            eigenvalues=self.eigenvalues,
            flow=flow,
        )
        D = jnp.reshape(self.D[...], (1, self.heads, -1))
        y = self.gated_norm(merge_heads(y + D * u), jax.nn.silu(z)).astype(x.dtype)
        if self.beside:
            y = jnp.concatenate([jax.nn.silu(z0) * x0, y], axis=1)
        return self.W_out(y), Mamba2State(window, S)

    def project(self, x):
        """[z0, x0,] z, x, B, C and delta of all steps, side by side."""
        z = self.W_in(x)
        if self.scales is None:
            return z
        return z * jnp.asarray(np.repeat(self.scales, self.widths), z.dtype)[None]

    def gated_norm(self, y, gate):
        if self.norm is None:
            return y * gate
        y = y if self.norm_first else y * gate
        y = merge_heads(self.norm(split_heads(y, self.norm_groups)))
        return y * gate if self.norm_first else y
