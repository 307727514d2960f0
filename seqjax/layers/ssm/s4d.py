"""Diagonal state space model S4D (Gu et al. 2022, arXiv:2206.11893).

Each channel u of the input drives N states of its own, of which N/2 are kept, for A and C come in
conjugate pairs:

    h'(t) = A h(t) + B u(t),   y(t) = 2 Re(C h(t)) + D u(t)          h complex [features, N/2]

    h_k = Abar h_{k-1} + Bbar u_k                                    sec. 3.1, with the step dt by
    Abar = exp(dt A),  Bbar = (Abar - 1) / A * B                     "zoh"
    Abar = (1 + dt A/2) / (1 - dt A/2),  Bbar = dt / (1 - dt A/2) * B        "bilinear"
    Abar = 1 + dt A,                     Bbar = dt B                         "forward", of Euler
    Abar = exp(dt A),                    Bbar = B                            "dirac", u are pulses

    K_l = 2 Re sum_n C_n Bbar_n Abar_n^l,  y = K * u + D u           a Vandermonde product, sec. 3.2

    A_n = -1/2 + i pi n                                "lin"         eq. 9
    A_n = -1/2 + i (N/pi) (N/(2n+1) - 1)               "inv"         eq. 8
    A = the spectrum of HiPPO-LegS's normal part       "legs"        sec. 4.1
    A_n = -(n + 1)                                     "real"        sec. 4.3, S4D-Real
    A_n = -1/2 + i (N/pi) (N/(n+1) - 1)                "inv2"        of its ablations
    A_n = -1/2 + i (2n + 1)^2 / pi                     "quad"
    A_n = -1/2 + i exp(normal)                         "random", of each channel

The paper proposes the first two; the imaginary part of "real" starts at zero and is trained, as in
the release. Forward Euler is stable only where |1 + dt A| < 1, which "lin" and "inv" leave at large
N and dt. A is kept as log(-Re A) and Im A, so that it stays in the left half plane; B starts at 1,
C is a standard complex normal, dt log-uniform in [dt_min, dt_max], one per channel. With `mix` the
output is GLU(W_out gelu(y)), as in S4's block; without it the channels stay apart.

Left out of the release's constructor: n_ssm (channels that share A and B), channels (several
outputs of one), real_transform and imag_transform (other maps than log for Re A and Im A) and
bandlimit. Learning rates by parameter belong to the optimiser: `trained`.

Evaluators: the scans of the recurrence, and "fft", the convolution with K, which is the default for
more than 64 steps (at 1024 its gradient takes a third of the time and a quarter of the memory). A
reset or a masked step breaks the time invariance it lives on: where either is given, the scan runs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.layers.ssm.hippo import nplr
from seqjax.nn.activations import gelu
from seqjax.nn.base import Group, Layer, Precise, option
from seqjax.nn.linear import per_head
from seqjax.ops.diagonal_ssm import diagonal_ssm, impulse_response

INITS = {
    "lin": lambda N: -0.5 + 1j * np.pi * np.arange(N // 2),
    "inv": lambda N: -0.5 + 1j * N / np.pi * (N / (2 * np.arange(N // 2) + 1) - 1),
    "inv2": lambda N: -0.5 + 1j * N / np.pi * (N / (np.arange(N // 2) + 1) - 1),
    "quad": lambda N: -0.5 + 1j / np.pi * (2 * np.arange(N // 2) + 1) ** 2,
    "legs": lambda N: legs_spectrum(N),
    "real": lambda N: -1.0 - np.arange(N // 2) + 0j,
    "random": lambda N: np.full(N // 2, -0.5 + 1j),  # times exp(normal)
}
# A, B and dt at a rate of 0.001 where all else has 0.01, and without decay: the release's
# configs of S4 and S4D for most of the Long Range Arena.
SLOW = Group(rate=0.1, decay=0.0)
DISCRETISATIONS = ("zoh", "bilinear", "forward", "dirac")


def legs_spectrum(N: int) -> np.ndarray:
    """Eigenvalues with positive imaginary part of the normal part of HiPPO-LegS, ascending."""
    return nplr("legs", N).Lambda[::-1].conj()


def discretise(A: Array, B: Array, dt: Array, how: str) -> tuple[Array, Array]:
    """log Abar and Bbar for A, B [..., N] and a time step dt [...]."""
    dt = dt[..., None].astype(A.dtype)
    dA = dt * A
    match how:
        case "bilinear":
            return jnp.log1p(dA / 2) - jnp.log1p(-dA / 2), dt / (1 - dA / 2) * B
        case "forward":
            return jnp.log1p(dA), dt * B
        case "dirac":
            return dA, B
    return dA, jnp.expm1(dA) / A * B


def log_time_steps(rngs: nnx.Rngs, shape: tuple[int, ...], low: float, high: float) -> Array:
    """log dt, uniform between the logarithms of the bounds."""
    return jax.random.uniform(rngs.params(), shape, minval=math.log(low), maxval=math.log(high))


class StateSpace(Layer):
    """What stands around the recurrences of S4 and its kin: y + D u, then GLU(W_out gelu(.))."""

    def surround(self, features: int, mix: bool, rngs: nnx.Rngs, wide: int = 2) -> None:
        """D, and W_out to `wide` times the features if `mix`."""
        self.features = self.out_features = features
        self.D = nnx.Param(jax.random.normal(rngs.params(), (features,)))
        self.W_out = nnx.Linear(features, wide * features, rngs=rngs) if mix else None

    def output(self, y: Array, x: Array) -> Array:
        """What the block makes of the outputs y [T, features] of the recurrence."""
        y = y + self.D[...][None] * x
        if self.W_out is None:
            return y
        value, gate = jnp.split(self.W_out(gelu(y)), 2, axis=-1)
        return value * jax.nn.sigmoid(gate)


class DiagonalStateSpace(StateSpace):
    """A subclass sets `N` and defines `system()`: log Abar [features, N] (or [N]), Bbar and C."""

    ops = ("diagonal_ssm",)
    N: int  # complex states per channel

    def system(self) -> tuple[Array, Array, Array]:
        raise TypeError(f"{type(self).__name__} must define system()")

    def initial(self):
        return jnp.zeros((self.features, self.N), jnp.complex64)

    def kernel(self, length: int) -> Array:
        """K [features, length], the response to a unit impulse."""
        return impulse_response(*self.system(), length)

    def run(self, x, h, flow):
        y, h = diagonal_ssm(
            x,
            *self.system(),
            h,
            flow=flow,
        )
        return self.output(y, x), h


class S4D(DiagonalStateSpace):
    sequence_parallel = True
    trained = dict.fromkeys(("log_A_re", "A_im", "B", "log_dt"), SLOW)

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        init: str = "lin",
        discretisation: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        self.N = per_head("state", state, 2)
        self.discretisation = option("discretisation", discretisation, DISCRETISATIONS)
        A = np.broadcast_to(INITS[option("init", init, INITS)](state), (features, self.N))
        self.log_A_re = Precise(jnp.log(jnp.asarray(-np.real(A))))
        A_im = jnp.asarray(np.imag(A))
        if init == "random":
            A_im = A_im * jnp.exp(jax.random.normal(rngs.params(), A_im.shape))
        self.A_im = Precise(A_im)
        self.log_dt = Precise(log_time_steps(rngs, (features,), dt_min, dt_max))
        shape = (2, features, self.N)  # real and imaginary part
        self.B = Precise(jnp.zeros(shape).at[0].set(1))
        self.C = Precise(jax.random.normal(rngs.params(), shape) * 0.5**0.5)
        self.surround(features, mix, rngs)

    def system(self):
        A = lax.complex(-jnp.exp(self.log_A_re[...]), self.A_im[...])
        log_A, B = discretise(
            A, lax.complex(*self.B[...]), jnp.exp(self.log_dt[...]), self.discretisation
        )
        return log_A, B, 2 * lax.complex(*self.C[...])  # both of each conjugate pair
