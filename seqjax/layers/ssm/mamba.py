"""Mamba (Gu & Dao 2023, arXiv:2312.00752): the whole mixer around the selective scan S6.

    [u, z] = W_in x                                   d = expand * features channels     fig. 3
    u = SiLU(conv(u))                                 causal, `conv` steps
    [delta, B, C] = W_x u                             delta of rank R, B and C [N]       alg. 2
    dt = softplus(W_dt delta + dt_bias)               [d]
    h_t = exp(dt A) * h_{t-1} + dt u_t B_t^T          h [d, N]                           eq. 2, 4
    y_t = W_out ((h_t C_t + D u_t) * SiLU(z_t))

A = -exp(A_log) starts at -1, ..., -N in every channel (S4D-Real), D at 1, softplus(dt_bias)
log-uniform in [dt_min, dt_max]. A is discretised exactly and B by Euler's rule, as released.
`inner` gives d itself. With `heads`, W_x and W_dt are of each head of the channels alone, and so
delta, B and C are its own (Zamba). `norms` puts an RMSNorm on delta, B and C each, with weights
(Jamba, arXiv:2403.19887) or "plain", without (Falcon Mamba, 2410.05355). `bias` is of W_in and
W_out. The release's constant start of W_dt is not here. eigenvalues "[-1,1]": exp(dt A) becomes
2 exp(dt A) - 1 (arXiv:2411.12537), and the recurrence is evaluated as a plain linear scan over d N
channels.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.convolution import ShortConv
from seqjax.nn.gates import EIGENVALUES, decay
from seqjax.nn.initialisation import time_step_bias
from seqjax.nn.linear import HeadLinear, per_head
from seqjax.nn.norms import Norm
from seqjax.ops.linear_scan import linear_scan
from seqjax.ops.ssd import selective_scan

NORMS = ("none", "weighted", "plain")


class MambaState(NamedTuple):
    window: jax.Array  # [conv - 1, d]
    h: jax.Array  # [d, N]


class Mamba(Layer):
    ops = ("selective_scan",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
        inner: int | None = None,
        heads: int | None = None,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        norms: str = "none",
        norm_eps: float = 1e-6,
        bias: bool = False,
        conv_bias: bool = True,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        d, self.N, self.R = inner or expand * features, state, dt_rank or math.ceil(features / 16)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        if eigenvalues == "[-1,1]":
            if heads is not None:
                raise ValueError("Mamba with heads has eigenvalues [0,1] only")
            self.ops = ("linear_scan",)

        def linear(n, m, use_bias=False, **options):
            return nnx.Linear(n, m, use_bias=use_bias, rngs=rngs, **options)

        def init(key, shape, dtype):
            return jax.random.uniform(key, shape, dtype, -1, 1) * self.R**-0.5

        self.W_in = linear(features, 2 * d, bias)
        self.conv = ShortConv(d, conv, bias=conv_bias, rngs=rngs)
        width = per_head("inner", d, heads or 1)
        if heads is None:
            self.W_x = linear(d, self.R + 2 * state)
            self.W_dt = linear(self.R, d, kernel_init=init)
        else:
            self.W_x = HeadLinear(heads, width, self.R + 2 * state, rngs=rngs)
            self.W_dt = HeadLinear(heads, self.R, width, init=init, rngs=rngs)
        self.dt_bias = Precise(time_step_bias(rngs.params(), d, dt_min, dt_max))
        rates = jnp.arange(1, state + 1, dtype=jnp.float32)
        self.A_log = Precise(jnp.broadcast_to(jnp.log(rates), (d, state)))
        self.D = Precise(jnp.ones(d))
        self.W_out = linear(d, features, bias)
        weighted = option("norms of Mamba", norms, NORMS) == "weighted"
        sizes = () if norms == "none" else (self.R, state, state)  # of delta, B and C
        self.norms = nnx.List([Norm(n, weight=weighted, eps=norm_eps) for n in sizes])

    def initial(self):
        return MambaState(self.conv.initial(), jnp.zeros_like(self.A_log[...]))

    def run(self, x, h, flow):
        u, z = jnp.split(self.W_in(x), 2, axis=1)
        u, window = self.conv(u, h.window, flow)
        u = jax.nn.silu(u)
        delta, B, C = jnp.split(self.W_x(u), (self.R, self.R + self.N), axis=-1)
        if self.norms:
            delta, B, C = (norm(v) for norm, v in zip(self.norms, (delta, B, C)))
        scan = selective_scan if self.eigenvalues == "[0,1]" else signed_selective_scan
        y, state = scan(
            u,
            self.W_dt(delta).reshape(u.shape),
            -jnp.exp(self.A_log[...]),
            B,
            C,
            self.D[...],
            z,
            self.dt_bias[...],
            h.h,
            delta_softplus=True,
            flow=flow,
        )
        return self.W_out(y), MambaState(window, state)


@takes_flow
def signed_selective_scan(u, delta, A, B, C, D, z, delta_bias, h, *, delta_softplus, **flags):
    """`selective_scan` of one example with the multiplier 2 exp(dt A) - 1."""
    del delta_softplus
    precise = accumulation_dtype(u.dtype)
    dtype, u, B, C = u.dtype, *(v.astype(precise) for v in (u, B, C))
    dt = jax.nn.softplus(delta.astype(precise) + delta_bias[None])[:, :, None]
    flat = lambda v: v.reshape(*v.shape[:-2], A.size)  # noqa: E731
    states, last = linear_scan(
        flat(decay(dt * A[None], "[-1,1]")),
        flat(dt * u[:, :, None] * B[:, None]),
        flat(h),
        **flags | dict(start=flat(flags["start"])),
    )
    y = jnp.einsum("tdn,tn->td", states.reshape(len(u), *A.shape), C) + D[None] * u
    return (y * jax.nn.silu(z.astype(precise))).astype(dtype), last.reshape(A.shape)
