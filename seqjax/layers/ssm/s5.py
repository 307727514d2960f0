"""Simplified state space layer S5 (Smith, Warrington & Linderman 2023, arXiv:2208.04933).

One system for all channels (MIMO), diagonal, run by a scan:

    x_k = Lambdabar * x_{k-1} + Bbar u_k,   y_k = 2 Re(C x_k) + D u_k     x complex [P/2]  sec. 3
    Lambdabar = exp(Lambda dt),  Bbar = (Lambdabar - 1) / Lambda * B      "zoh"
    Lambdabar = (1 + dt Lambda/2) E,  Bbar = dt E * B,  E = 1 / (1 - dt Lambda/2)      "bilinear"
    Lambdabar = 1 + dt Lambda,        Bbar = dt B                                      "forward"
    Lambdabar = exp(Lambda dt),       Bbar = B                                         "dirac"
    out = g * sigmoid(W g),  g = gelu(y)                                  with `mix`

Lambda, B and C start as `blocks` HiPPO-LegS normal parts of P / blocks states on the diagonal, in
their eigenbasis V (sec. 3): B = V^* B', C = C' V with B', C' real and complex
LeCun normal. With `conj_sym` one of each conjugate pair is kept, with negative imaginary part;
without, all P, and y has no factor 2. Each state has a dt of its own, log-uniform in
[dt_min, dt_max], and is `step_rescale` times as long: 1/2 for twice the sampling rate (sec. 6.2).
`clip` keeps Re Lambda at most -1e-4, for long streams. Left out of the release's constructor is
C_init: C starts as its "trunc_standard_normal".

Irregular steps (sec. 6.3): with flow.dt, the time since the previous step (at least 0), dt_k is dt
times it. For events (Schoene et al. 2024, arXiv:2404.18508) what comes in must not grow with the
time before it: "dirac" takes them as pulses, and "async" decays over dt_k, but drives with the Bbar
of "zoh" over dt.
bidirectional: a second scan from the end, of the same Lambda and B, read by a C of its own. The
    state is the forward scan's; the other one starts anew with each call.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.layers.ssm import hippo
from seqjax.layers.ssm.s4d import DISCRETISATIONS, StateSpace, discretise, log_time_steps
from seqjax.nn.base import Group, Precise, option
from seqjax.nn.linear import per_head
from seqjax.ops.linear_scan import linear_scan

ASYNC = "async"  # decays over the time that passed, drives over dt


class S5(StateSpace):
    timed = True
    ops = ("linear_scan",)
    sequence_parallel = True
    # The release has ssm_lr_base=0.001 and lr_factor=4 for text, 2 to 5 for other tasks; no decay.
    trained = dict.fromkeys(("Lambda", "B", "log_dt"), Group(rate=0.25, decay=0.0))

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        blocks: int = 1,
        conj_sym: bool = True,
        discretisation: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        step_rescale: float = 1.0,
        clip: bool = False,
        bidirectional: bool = False,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        if step_rescale <= 0:
            raise ValueError(f"step_rescale is a ratio of time steps, > 0; got {step_rescale}")
        self.discretisation = option("discretisation", discretisation, (*DISCRETISATIONS, ASYNC))
        self.clip, self.bidirectional = clip, bidirectional
        self.step_rescale = step_rescale
        self.causal = not bidirectional
        self.both = 2 if conj_sym else 1  # conjugates that a kept state stands for
        form = hippo.dplr("legs", per_head("state", state, blocks))
        kept = per_head("state / blocks", len(form.Lambda), self.both)
        Lambda, V = np.tile(form.Lambda[:kept], blocks), np.kron(np.eye(blocks), form.V[:, :kept])
        self.N = blocks * kept
        self.Lambda = Precise(jnp.asarray(np.stack([np.real(Lambda), np.imag(Lambda)])))
        lecun = nnx.initializers.lecun_normal()
        B = lecun(rngs.params(), (state, features))
        self.B = nnx.Param(times(V.conj().T, B, jnp.zeros_like(B)))
        C = [lecun(rngs.params(), (state, 2 * features)) for _ in range(1 + bidirectional)]
        C = jnp.concatenate([times(V.T, *jnp.split(c, 2, axis=1)) for c in C], axis=1)
        self.C = nnx.Param(C.swapaxes(1, 2))
        self.log_dt = Precise(log_time_steps(rngs, (self.N,), dt_min, dt_max))
        self.surround(features, mix, rngs, wide=1)

    def initial(self):
        return jnp.zeros(self.N, jnp.complex64)

    def system(self, interval: jax.Array | float = 1.0):
        """Lambdabar [P/2] and what B is multiplied with [P/2], over `interval` times dt."""
        real, imag = self.Lambda[...]
        Lambda = lax.complex(jnp.minimum(real, -1e-4) if self.clip else real, imag)[:, None]
        dt, one = self.step_rescale * jnp.exp(self.log_dt[...]), jnp.ones_like(Lambda)
        if self.discretisation == ASYNC:
            _, scale = discretise(Lambda, one, dt, "zoh")
            return jnp.exp(Lambda[:, 0] * (dt * interval).astype(Lambda.dtype)), scale[:, 0]
        log_A, scale = discretise(Lambda, one, dt * interval, self.discretisation)
        return jnp.exp(log_A[:, 0]), scale[:, 0]

    def run(self, x, h, flow):
        A, scale = self.over(flow)
        real, imag = ((x @ B.T).astype(h.now.real.dtype) for B in self.B[...])
        drive = scale * lax.complex(real, imag)
        hs, last = linear_scan(A, drive, h, flow=flow)
        if self.bidirectional:
            nothing = jax.tree.map(jnp.zeros_like, h)
            turned = flow.backwards()
            A, scale = self.over(turned)
            drive = scale * lax.complex(real[::-1], imag[::-1])
            back, _ = linear_scan(A, drive, nothing, flow=turned)
            hs = jnp.concatenate([hs, back[::-1]], axis=1)
        real, imag = self.C[...]
        return self.output(self.both * (hs.real @ real.T - hs.imag @ imag.T), x), last

    def over(self, flow):
        """`system` of all steps [P/2] and [1, P/2], or of each, [T, P/2], where flow.dt differs."""
        if flow.dt is None:
            A, scale = self.system()
            return A, scale[None]
        return jax.vmap(self.system)(jnp.maximum(flow.dt, 0).astype(self.log_dt[...].dtype))

    def output(self, y, x):
        y = y + self.D[...][None] * x
        if self.W_out is None:
            return y
        g = jax.nn.gelu(y)
        return g * jax.nn.sigmoid(self.W_out(g))


def times(V, real, imag):
    """V (real + i imag) as real and imaginary part, V complex numpy."""
    V_re, V_im = jnp.asarray(V.real, real.dtype), jnp.asarray(V.imag, real.dtype)
    return jnp.stack([V_re @ real - V_im @ imag, V_re @ imag + V_im @ real])
