"""Linear state-space layer LSSL (Gu et al. 2021, arXiv:2110.13985).

Each feature u drives a state x [N] of its own through matrices that all features share:

    x'(t) = A x(t) + B u(t),   y(t) = C x(t) + D u(t)                      eq. 1, 2
    x_k = Abar x_{k-1} + Bbar u_k
    Abar = (I - dt/2 A)^-1 (I + dt/2 A),  Bbar = (I - dt/2 A)^-1 dt B      bilinear, dt per feature
    y = K * u + D u,  K_l = C Abar^l Bbar
    out = W gelu(y)                                       C [features, M, N], M channels per feature

A and B start as a HiPPO operator and are trained, as full matrices. The paper's
A = P (D + T^-1 Q), with P, D, Q diagonal and T tridiagonal (appendix E.2), is such a matrix in
O(N) numbers and multiplies in O(N); ours starts as one and is free to leave them. `fixed` freezes
A, B and dt (LSSL-fixed). C and D are standard normal, dt log-uniform in [dt_min, dt_max].

Evaluators: the recurrence step by step, and "fft", the convolution with K. The powers that K and
the last state need are made by doubling, in about N^2 T operations per feature. More than 64 steps
run by "fft" by default; with resets or masked steps the recurrence runs. Every call
discretises, N^3 operations per feature, and so does each step of a stream: what S4 does in O(N). Of
the release's options not here: an A for each feature (learn=2), an output without W or gelu, and
noise on the inputs and weight norm, which are the training's.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.layers.ssm import hippo
from seqjax.layers.ssm.s4d import StateSpace, log_time_steps
from seqjax.nn.base import Frozen, Precise, State
from seqjax.ops.chunks import stepwise
from seqjax.ops.convolution import fft_convolution
from seqjax.ops.diagonal_ssm import FEW_STEPS


class TimeInvariant(StateSpace):
    """x_k = advance(system, x_{k-1}, u_k), y_k = read(system, x_k), or the same by `convolve`.

    `system()` is what does not change over time. It is made once per call.
    """

    evaluators = ("sequential", "fft")

    def system(self) -> Any:
        raise TypeError(f"{type(self).__name__} must define system()")

    def advance(self, system: Any, h: State, u: Array) -> State:
        raise TypeError(f"{type(self).__name__} must define advance()")

    def read(self, system: Any, h: State) -> Array:
        raise TypeError(f"{type(self).__name__} must define read()")

    def convolve(self, system: Any, u: Array, h: State) -> tuple[Array, State]:
        raise TypeError(f"{type(self).__name__} must define convolve()")

    def run(self, x, h, flow):
        y, h = self.recurrence(x, h, flow)
        return self.output(y, x), h

    def recurrence(self, x, h, flow):
        """The outputs of the linear system alone, and the last state."""
        system, u = self.system(), x.astype(h.now.real.dtype)
        if flow.resets is None and flow.mask is None:
            if flow.evaluator == "fft" or (flow.evaluator is None and len(x) > FEW_STEPS):
                return self.convolve(system, u, h.now)

        def step(h, now):
            u, keep = now
            new = self.advance(system, h, u)
            h = new if keep is None else jnp.where(keep, new, h)
            return h, self.read(system, h)

        return stepwise(step, h.now, (u, flow.mask), flow.begins, h.start)


class LSSL(TimeInvariant):
    structure = "dense"

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        measure: str = "legs",
        channels: int = 1,
        fixed: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.N, self.channels = state, channels
        A, B = hippo.transition(measure, state)
        kind = Frozen if fixed else Precise
        self.A, self.B = kind(jnp.asarray(A)), kind(jnp.asarray(B))
        self.log_dt = kind(log_time_steps(rngs, (features,), dt_min, dt_max))
        self.C = Precise(jax.random.normal(rngs.params(), (features, channels, state)))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (features, channels)))
        self.W = nnx.Linear(features * channels, features, rngs=rngs)

    def initial(self):
        return jnp.zeros((self.features, self.N))

    def system(self):
        """Abar [features, N, N] and Bbar [features, N]."""
        dt = jnp.exp(self.log_dt[...])
        return jax.vmap(lambda dt: hippo.bilinear(self.A[...], self.B[...], dt))(dt)

    def advance(self, system, h, u):
        A, B = system
        return jnp.einsum("hij,hj->hi", A, h) + B * u[:, None]

    def read(self, system, h):
        return jnp.einsum("hmn,hn->hm", self.C[...], h)

    def convolve(self, system, u, h):
        (A, B), T = system, len(u)
        rows = jax.vmap(lambda A, C: krylov(A.T, C, T))(A, self.C[...])  # C A^l [H, T, M, N]
        K = jnp.einsum("htmn,hn->thm", rows, B).reshape(T, -1)
        y, _ = fft_convolution(jnp.repeat(u, self.channels, axis=1), K)
        carried = jnp.einsum("htmn,hn->thm", rows, jnp.einsum("hij,hj->hi", A, h))
        return y.reshape(carried.shape) + carried, last_state(A, B, u, h)

    def output(self, y, x):
        y = jax.nn.gelu(y + self.D[...][None] * x[:, :, None], approximate=False)
        return self.W(y.reshape(len(y), y.shape[1] * y.shape[2]))


def krylov(A: Array, b: Array, length: int) -> Array:
    """A^l b for l = 0 ... length - 1: [length, ..., N], for b [..., N]."""
    rows = b[None]
    while len(rows) < length:
        rows = jnp.concatenate([rows, jnp.einsum("ij,l...j->l...i", A, rows)])
        A = A @ A
    return rows[:length]


def last_state(A: Array, B: Array, u: Array, h: Array) -> Array:
    """A^T h + sum_t A^(T-1-t) B u_t [H, N], for A [H, N, N], B and h [H, N] and u [T, H]."""
    columns = jax.vmap(lambda A, B: krylov(A, B, len(u)))(A, B)
    written = jnp.einsum("htn,th->hn", columns[:, ::-1], u)
    return jnp.einsum("hij,hj->hi", jnp.linalg.matrix_power(A, len(u)), h) + written
