"""Mamba-2 (Dao & Gu 2024, arXiv:2405.21060): the mixer around the state-space dual SSD.

    [z, xBC, delta] = W_in x                          one projection for all             fig. 6
    [x, B, C] = SiLU(conv(xBC))                       x [heads, P], B and C [groups, N]
    dt = softplus(delta + dt_bias)                    per head
    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T        S [heads, N, P], A per head        sec. 6
    y_t = W_out RMSNorm((C_t^T S_t + D x_t) * SiLU(z_t))        the norm over each group  sec. 7.1

expand * features = heads * P; by default P is 64 (a single head if there are fewer channels). That
is linear attention with a decay per head: C is the query, B the key, dt x the value. Heads share B
and C in groups. -A = exp(A_log) starts uniform in [1, 16], D at 1, softplus(dt_bias) log-uniform in
[dt_min, dt_max]. `inner` gives the channels themselves, `dt_limit` bounds dt after the softplus,
`norm_groups` is how many groups the norm has (the groups of B and C unless said; 0: no norm, the
gate alone), norm_first norms before the gate. `bias` is of W_in and W_out. scales: five constants
that multiply what W_in makes of z, x, B, C and delta (Falcon-H1). eigenvalues "[-1,1]": exp(dt A)
becomes 2 exp(dt A) - 1 (arXiv:2411.12537).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.layers.base import Layer, Precise, option
from seqjax.layers.gates import EIGENVALUES, signed_linear_attention
from seqjax.layers.parts import (
    Norm,
    ShortConv,
    merge_heads,
    per_head,
    split_heads,
    time_step_bias,
    wide,
)
from seqjax.ops.linear_attention import LINEAR_ATTENTION


class Mamba2State(NamedTuple):
    window: jax.Array  # [conv - 1, channels of x, B and C]
    S: jax.Array  # [heads, N, P]


class Mamba2(Layer):
    evaluators = tuple(LINEAR_ATTENTION.evaluators)

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
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_limit: tuple[float, float] = (0.0, math.inf),
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
        d, self.N, self.groups = inner or expand * features, state, groups
        self.heads = heads or max(1, d // 64)
        self.P = per_head("expand * features", d, self.heads)
        per_head("heads", self.heads, groups)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.sizes = (d, groups * state, groups * state)  # of x, B and C
        self.W_in = nnx.Linear(features, d + sum(self.sizes) + self.heads, use_bias=bias, rngs=rngs)
        self.conv = ShortConv(sum(self.sizes), conv, bias=conv_bias, rngs=rngs)
        self.dt_bias = Precise(time_step_bias(rngs.params(), self.heads, dt_min, dt_max))
        rates = jax.random.uniform(rngs.params(), (self.heads,), minval=1.0, maxval=16.0)
        self.A_log = Precise(jnp.log(rates))
        self.D = Precise(jnp.ones(self.heads))
        self.norm_groups = groups if norm_groups is None else norm_groups
        width = per_head("expand * features", d, self.norm_groups or 1)
        self.norm = Norm(self.norm_groups, width, eps=norm_eps) if self.norm_groups else None
        self.norm_first = norm_first
        self.W_out = nnx.Linear(d, features, use_bias=bias, rngs=rngs)
        self.dt_limit, self.scales = dt_limit, None if scales is None else tuple(scales)

    def initial(self):
        return Mamba2State(self.conv.initial(), jnp.zeros((self.heads, self.N, self.P)))

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        start, d = self.start(), self.sizes[0]
        z, xBC, delta = jnp.split(self.project(x), (d, d + sum(self.sizes)), axis=1)
        xBC, window = self.conv(xBC, h.window, resets=resets, mask=mask, reset_state=start.window)
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
            resets=resets,
            mask=mask,
            reset_state=start.S,
            evaluator=evaluator,
        )
        y = merge_heads(y + self.D[...][None, :, None] * u)
        y = self.gated_norm(y, jax.nn.silu(z)).astype(x.dtype)
        return self.W_out(y), Mamba2State(window, S)

    def project(self, x):
        """z, x, B, C and delta of all steps, side by side."""
        z = self.W_in(x)
        if self.scales is None:
            return z
        widths = (self.sizes[0], *self.sizes, self.heads)
        return z * jnp.asarray(np.repeat(self.scales, widths), z.dtype)[None]

    def gated_norm(self, y, gate):
        if self.norm is None:
            return y * gate
        y = y if self.norm_first else y * gate
        y = merge_heads(self.norm(split_heads(y, self.norm_groups)))
        return y * gate if self.norm_first else y
