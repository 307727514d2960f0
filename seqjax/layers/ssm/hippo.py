"""HiPPO: memory as online function approximation (Gu et al. 2020, arXiv:2008.07669).

A scalar history f is kept as the coefficients c(t) of its best approximation by N orthogonal
functions, under a measure over the past; they follow a linear ODE:

    c'(t) = A c(t) + B f(t)              "legt", "lagt", "fout": a sliding window, or a decay
    c'(t) = (A c(t) + B f(t)) / t        "legs": all of the history, evenly         sec. 2.3, thm. 2

    forward     Abar = I + dt A,                                   Bbar = dt B
    backward    Abar = (I - dt A)^-1,                              Bbar = (I - dt A)^-1 dt B
    bilinear    Abar = (I - dt/2 A)^-1 (I + dt/2 A),               Bbar = (I - dt/2 A)^-1 dt B
    zoh         Abar = exp(dt A),                                  Bbar = A^-1 (Abar - I) B
    c_k = Abar c_{k-1} + Bbar f_k

The scaled measure has no time scale: after n steps dt is 1/n (eq. 4), or log((n+1)/n) for zoh,
which is exact in log t. Its first step holds f as a constant, c = (f, 0, ...), which is what the
projection of one sample is.

Signs are those of c' = A c + B f (the paper writes -A); "legt" and "fout" are scaled so that their
window has length 2, 2 / dt steps, as in the state-spaces release; "lmu" is LegT as the Legendre
memory unit normalises it, with a window of length 1. `time_varying=False` runs "legs" with a fixed
dt, the form S4 is built on (then c decays exponentially).

The layer approximates each feature by itself: y [T, features * N] are the coefficients, one feature
after the other. Nothing in it is trained. By default it goes step by step, discretising as it goes:
the other evaluators hold a matrix [N, N] for every step.

    A + sum_r P_r P_r^T = V diag(Lambda) V^*      normal, V unitary: NPLR, S4's theorem 1

`nplr` gives one of each conjugate pair, with negative imaginary part, ascending. V, and with it P
and B in its basis, have an arbitrary phase per eigenvector; |P|, |B| and P conj(B) have none.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.core.monoid import dense
from seqjax.core.scan import scan
from seqjax.nn.base import Frozen, Layer, option
from seqjax.ops.chunks import stepwise
from seqjax.ops.positions import places


def legs(N):
    """Scaled Legendre: uniform over all of the history. thm. 2"""
    r = np.sqrt(2 * np.arange(N) + 1)
    return -np.tril(np.outer(r, r), -1) - np.diag(np.arange(N) + 1.0), r


def legsd(N):
    """The normal part of LegS, as diagonal models take it (S4D-LegS)."""
    A, B = legs(N)
    return A + np.outer(B, B) / 2, B / 2


def legt(N):
    """Translated Legendre: uniform over a window. thm. 1, appendix D"""
    n = np.arange(N)
    r = np.sqrt(2 * n + 1)
    sign = np.where(n[:, None] < n[None], (-1.0) ** (n[:, None] - n[None]), 1.0)
    return -np.outer(r, r) * sign / 2, r / 2


def lmu(N):
    """LegT in the Legendre memory unit's normalisation, window of length one."""
    n = np.arange(N)
    r = 2.0 * n + 1
    sign = np.where(n[:, None] < n[None], -1.0, (-1.0) ** (n[:, None] - n[None] + 1))
    return sign * r[:, None], (-1.0) ** n * r


def lagt(N):
    """Translated Laguerre: an exponential decay. thm. 1, appendix D"""
    return np.eye(N) / 2 - np.tril(np.ones((N, N))), np.ones(N)


def glagt(N, alpha=0.0, beta=0.01):
    """Generalised Laguerre with tilt beta. appendix D"""
    n = np.arange(N)
    scale = np.array([math.exp((math.lgamma(k + alpha + 1) - math.lgamma(k + 1)) / 2) for k in n])
    A = -(1 + beta) / 2 * np.eye(N) - np.tril(np.ones((N, N)), -1)
    binomial = scale**2 / math.gamma(alpha + 1)
    B = binomial / scale * math.gamma(1 - alpha) ** -0.5 * beta ** ((1 - alpha) / 2)
    return A * scale[None] / scale[:, None], B


def waves(N, rate):
    """Sines and cosines of the frequencies 0, rate, 2 rate ...: rotations, and what feeds them."""
    links = np.where(np.arange(N - 1) % 2, 0.0, np.arange(N - 1) / 2)
    B = np.where(np.arange(N) % 2, 0.0, 2**0.5)
    B[0] = 1
    return rate * (np.diag(links, -1) - np.diag(links, 1)), B


def fout(N):
    """Truncated Fourier: a window, out of which the oldest value is taken. appendix D"""
    A, B = waves(N, math.pi)
    return A - np.outer(B, B), B


def foud(N):
    """Fourier with an exponential decay; its A is normal."""
    A, B = waves(N, 2 * math.pi)
    return A - np.eye(N) / 2, B


def fourier_decay(N):
    """`fout` with half of the correction and half of the input."""
    A, B = waves(N, math.pi)
    return A - np.outer(B, B) / 2, B / 2


MEASURES = {
    "legs": legs,
    "legt": legt,
    "lagt": lagt,
    "fout": fout,
    "legsd": legsd,
    "lmu": lmu,
    "glagt": glagt,
    "foud": foud,
    "fourier_decay": fourier_decay,
}


def transition(measure: str, N: int) -> tuple[np.ndarray, np.ndarray]:
    """A [N, N] and B [N] of c' = A c + B f, float64."""
    return MEASURES[option("measure", measure, MEASURES)](N)


def rank_correction(measure: str, N: int) -> np.ndarray:
    """P [R, N] such that A + P^T P is a multiple of the identity plus a skew matrix."""
    n, B = np.arange(N), transition(measure, N)[1]
    half = 0.5**0.5
    rows = {
        "legs": lambda: [np.sqrt(n + 0.5)],
        "legt": lambda: [np.where(n % 2, 2 * half * B, 0), np.where(n % 2, 0, 2 * half * B)],
        "lagt": lambda: [np.full(N, half)],
        "fout": lambda: [B],
        "fourier_decay": lambda: [2 * half * B],
        "legsd": lambda: [np.zeros(N)],
        "foud": lambda: [np.zeros(N)],
    }
    return np.stack(rows[option("measure with a normal part", measure, rows)]())


class NPLR(NamedTuple):
    """A = V (diag(Lambda) - sum_r P_r P_r^*) V^* and B in the basis V."""

    Lambda: np.ndarray  # [n] complex
    P: np.ndarray  # [R, n]
    B: np.ndarray  # [n]
    V: np.ndarray  # [N, n]


def dplr(measure: str, N: int) -> NPLR:
    """The normal plus low-rank form, all N eigenvalues, by ascending imaginary part."""
    (A, B), P = transition(measure, N), rank_correction(measure, N)
    normal = A + P.T @ P
    real = np.mean(np.diag(normal))
    imaginary, V = np.linalg.eigh(-0.5j * (normal - normal.T))  # ascending, unitary
    return NPLR(real + 1j * imaginary, P @ V.conj(), V.conj().T @ B, V)


def nplr(measure: str, N: int) -> NPLR:
    """The half of `dplr` with negative imaginary part: A = 2 Re V (...) V^* of it. N is even."""
    if N % 2:
        raise ValueError(f"conjugate pairs need an even number of states, got {N}")
    Lambda, P, B, V = dplr(measure, N)
    half = NPLR(Lambda[: N // 2], P[:, : N // 2], B[: N // 2], V[:, : N // 2].copy())
    if N > 1 and abs(half.Lambda[-1].imag) < 1e-6:  # Fourier's constant and its partner turn at
        # rate zero: any basis of their plane diagonalises; take a conjugate pair
        half.V[:, -1] = np.array([1, 1j] + [0] * (N - 2)) * 0.5**0.5
        (_, B), P = transition(measure, N), rank_correction(measure, N)
        half = NPLR(half.Lambda, P @ half.V.conj(), half.V.conj().T @ B, half.V)
    return half


def basis(measure: str, N: int, age: np.ndarray) -> np.ndarray:
    """g [len(age), N] with f(that age) ~ g c. Ages are fractions of the window, of the whole
    history for "legs", and times for "lagt", whose past has no end."""
    n, age = np.arange(N), np.asarray(age)
    turns = 2 * np.pi * (n // 2) * age[:, None]
    tables = {
        "legs": lambda: np.polynomial.legendre.legvander(1 - 2 * age, N - 1) * np.sqrt(2 * n + 1),
        "legt": lambda: tables["legs"](),
        "fout": lambda: np.where(n, 2**0.5, 1) * np.where(n % 2, np.sin(turns), np.cos(turns)),
        "lagt": lambda: np.polynomial.laguerre.lagvander(age, N - 1) * np.exp(-age / 2)[:, None],
    }
    return tables[option("measure with a basis", measure, tables)]()


def forward(A, B, dt):
    return jnp.eye(len(A), dtype=A.dtype) + dt * A, dt * B


def backward(A, B, dt):
    left = jnp.eye(len(A), dtype=A.dtype) - dt * A
    return jnp.linalg.inv(left), jnp.linalg.solve(left, dt * B)


def bilinear(A, B, dt):
    eye = jnp.eye(len(A), dtype=A.dtype)
    both = jnp.linalg.solve(
        eye - dt / 2 * A, jnp.concatenate([eye + dt / 2 * A, dt * B[:, None]], axis=1)
    )
    return both[:, :-1], both[:, -1]


def zoh(A, B, dt):
    N = len(A)  # exp of [[A, B], [0, 0]], for A may be singular
    whole = jnp.zeros((N + 1, N + 1), A.dtype).at[:N].set(jnp.column_stack([A, B]))
    both = jax.scipy.linalg.expm(dt * whole)[:N]
    return both[:, :-1], both[:, -1]


DISCRETISATIONS = {"forward": forward, "backward": backward, "bilinear": bilinear, "zoh": zoh}


def discretise(A: Array, B: Array, dt: Array, how: str) -> tuple[Array, Array]:
    """Abar [N, N] and Bbar [N] for a time step dt [], A [N, N] and B [N]."""
    return DISCRETISATIONS[how](A, B, dt)


class HippoState(NamedTuple):
    c: Array  # [N, features]
    count: Array  # int32 [], steps taken


class HiPPO(Layer):
    ops = ("dense",)

    def __init__(
        self,
        features: int,
        *,
        measure: str = "legs",
        state: int = 64,
        discretisation: str = "bilinear",
        time_varying: bool | None = None,
        dt: float = 0.01,
        rngs: nnx.Rngs | None = None,
    ):
        """time_varying: None for what the measure is, which is True for "legs" alone."""
        del rngs  # nothing is drawn
        scaled = measure == "legs"
        self.time_varying = scaled if time_varying is None else time_varying
        if self.time_varying and not scaled:
            raise ValueError(f"only 'legs' has no time scale of its own, got {measure!r}")
        A, B = transition(measure, state)
        self.features, self.out_features = features, features * state
        self.N, self.dt = state, dt
        self.discretisation = option("discretisation", discretisation, DISCRETISATIONS)
        self.A, self.B = Frozen(jnp.asarray(A)), Frozen(jnp.asarray(B))

    def initial(self):
        return HippoState(jnp.zeros((self.N, self.features)), jnp.zeros((), jnp.int32))

    def system(self, dt: Array | float | None = None) -> tuple[Array, Array]:
        """Abar [N, N] and Bbar [N] for a step dt, by default the layer's own."""
        A = self.A[...]
        dt = jnp.asarray(self.dt if dt is None else dt, A.dtype)
        return discretise(A, self.B[...], dt, self.discretisation)

    def scaled(self, before: Array) -> tuple[Array, Array]:
        """Abar and Bbar of a step that has `before` steps before it."""
        n = jnp.maximum(before, 1).astype(self.A[...].dtype)
        A, B = self.system(jnp.log1p(1 / n) if self.discretisation == "zoh" else 1 / n)
        first = jnp.eye(1, self.N, dtype=B.dtype)[0]
        return jnp.where(before == 0, 0, A), jnp.where(before == 0, first, B)

    def run(self, x, h, flow):
        u = x.astype(h.now.c.dtype)
        before, count = places(h.count, len(x), flow=flow)
        if self.time_varying:
            at = self.scaled
        else:
            fixed = self.system()
            at = lambda before: fixed  # noqa: E731
        if flow.evaluator in (None, "sequential"):  # one step's matrices at a time

            def step(c, now):
                before, u, keep = now
                A, B = at(before)
                new = A @ c + B[:, None] * u[None]
                c = new if keep is None else jnp.where(keep, new, c)
                return c, c

            states, c = stepwise(step, h.now.c, (before, u, flow.mask), flow.begins, h.start.c)
        else:
            A, B = jax.vmap(at)(before)
            states, c = scan(dense, (A, B[:, :, None] * u[:, None, :]), h.c, flow=flow)
        y = jnp.swapaxes(states, 1, 2).reshape(len(x), self.out_features)
        return y, HippoState(c, count)
