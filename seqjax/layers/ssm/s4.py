"""Structured state space S4 (Gu, Goel & Re 2022, arXiv:2111.00396).

Each channel u drives a state of N numbers, N/2 conjugate pairs of which one half x is kept:

    x'(t) = A x(t) + B u(t),   y(t) = C x(t) + D u(t)
    A = Lambda - sum_r P_r P_r^*                     diagonal plus low rank, from HiPPO    thm. 1
    x_k = Abar x_{k-1} + Bbar u_k                                                          eq. 3
    Abar = (I - dt/2 A)^-1 (I + dt/2 A),  Bbar = (I - dt/2 A)^-1 dt B                      bilinear

With E = (1 - dt/2 Lambda)^-1 and G = P^* E P (R x R) one step takes O(N) operations (thm. 2):

    Abar x = (2 E - 1) x - S (P^* E x),  S = dt E P (I + dt/2 G)^-1,  P^* x = 2 Re sum conj(P_n) x_n

The convolution y = K * u, K_l = C Abar^l Bbar = 2 Re(...), goes through the generating function of
K at the roots of unity w (thm. 3, algorithm 1), a Cauchy matrix times four vectors and Woodbury:

    Khat(w) = k_CB - c k_CP (I + c k_PP)^-1 k_PB,     c = (1 + w) / 2
    k_XY(w) = sum over n and conjugates of X_n Y_n 2 dt / (2 (1 - w) - dt Lambda_n (1 + w))

for X = C~ or P^* and Y = B or P, written so that it is finite at w = -1, where the paper's
2 (1 - w) / (1 + w) is not; C~ = C (I - Abar^L) for a kernel of L steps. The paper trains C~, of an
L that is fixed: the option `length`, with which the recurrence solves for C. By default we train C,
for which any L does, and pay the power Abar^L.

Lambda, P and B start as the HiPPO operator `measure` in its eigenbasis (rank 1 for "legs", 2 for
"legt"; Re Lambda at most -1e-4), C standard complex normal, dt log-uniform in [dt_min, dt_max].
P P^* and Lambda = -exp(.) + i Im keep A stable (SaShiMi's choice, arXiv:2202.09729 sec. 4.1);
`hurwitz` False is the first release: Re Lambda is free, and so is Q in A = Lambda - P Q^*, which
starts as P and takes the place of P in every P^* above. With `mix` the output is GLU(W gelu(y)).

Evaluators: as in `seqjax.layers.ssm.lssl`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.layers.ssm import hippo
from seqjax.layers.ssm.lssl import TimeInvariant, last_state
from seqjax.layers.ssm.s4d import SLOW, log_time_steps
from seqjax.nn.base import Precise
from seqjax.ops.convolution import fft_convolution


class Continuous(NamedTuple):
    dt: Array  # [H]
    A: Array  # [H, n] the diagonal part
    P: Array  # [R, H, n]
    Q: Array  # [R, H, n]
    B: Array  # [H, n]


class Discrete(NamedTuple):
    """Abar x = a x - sum_r S_r 2 Re(R_r x), and Bbar."""

    a: Array  # [H, n]
    S: Array  # [R, H, n]
    R: Array  # [R, H, n]
    B: Array  # [H, n]
    C: Array  # [H, n]


class S4(TimeInvariant):
    structure = "diagonal plus low rank"
    trained = dict.fromkeys(("log_A_re", "A_re", "A_im", "P", "Q", "B", "log_dt"), SLOW)

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        measure: str = "legs",
        length: int | None = None,
        hurwitz: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        form = hippo.nplr(measure, state)
        self.N, self.length = state // 2, length

        def per_channel(z):  # [..., n] -> [2, ..., features, n]
            z = np.stack([z.real, z.imag])[..., None, :]
            return jnp.asarray(np.broadcast_to(z, (*z.shape[:-2], features, self.N)))

        Lambda = per_channel(np.minimum(np.real(form.Lambda), -1e-4) + 1j * np.imag(form.Lambda))
        self.hurwitz = hurwitz
        if hurwitz:
            self.log_A_re, self.A_im = Precise(jnp.log(-Lambda[0])), Precise(Lambda[1])
        else:
            self.A_re, self.A_im = Precise(Lambda[0]), Precise(Lambda[1])
            self.Q = Precise(per_channel(form.P))
        self.P, self.B = Precise(per_channel(form.P)), Precise(per_channel(form.B))
        self.log_dt = Precise(log_time_steps(rngs, (features,), dt_min, dt_max))
        self.C = Precise(jax.random.normal(rngs.params(), (2, features, self.N)) * 0.5**0.5)
        self.surround(features, mix, rngs)
        if length is not None:
            C = truncate(self.plain(), length)
            self.C.set_value(jnp.stack([C.real, C.imag]).astype(self.C[...].dtype))

    def initial(self):
        return jnp.zeros((self.features, self.N), jnp.complex64)

    def continuous(self) -> Continuous:
        A_re = -jnp.exp(self.log_A_re[...]) if self.hurwitz else self.A_re[...]
        P, B = lax.complex(*self.P[...]), lax.complex(*self.B[...])
        Q = P if self.hurwitz else lax.complex(*self.Q[...])
        return Continuous(jnp.exp(self.log_dt[...]), lax.complex(A_re, self.A_im[...]), P, Q, B)

    def plain(self) -> Discrete:
        """The discrete system with the parameter C as it is, C or C~."""
        return discretise(self.continuous(), lax.complex(*self.C[...]))

    def system(self):
        discrete = self.plain()
        if self.length is None:
            return discrete
        return discrete._replace(C=untruncate(discrete, self.length))

    def advance(self, system, h, u):
        return times(system, h) + system.B * u[:, None].astype(h.dtype)

    def read(self, system, h):
        return 2 * jnp.sum((system.C * h).real, axis=-1)

    def generator(self, T: int) -> tuple[Array, int]:
        """C~ and the length it belongs to, for kernels of T steps."""
        if self.length is not None and T <= self.length:
            return lax.complex(*self.C[...]), self.length
        return truncate(self.system(), T), T

    def kernel(self, length: int) -> Array:
        """K [features, length], the response to a unit impulse."""
        continuous = self.continuous()
        C, L = self.generator(length)
        return response(continuous, C, continuous.B[None], L)[0, :, :length]

    def convolve(self, system, u, h):
        T, c = len(u), self.continuous()
        C, L = self.generator(T)
        # Abar x enters as what B would have to be for Bbar to be that
        twice = 2 * jnp.sum((c.Q.conj() * h[None]).real, axis=-1, keepdims=True).astype(h.dtype)
        entering = h / c.dt[:, None].astype(h.dtype) + (c.A * h - jnp.sum(c.P * twice, axis=0)) / 2
        K, carried = response(c, C, jnp.stack([c.B, entering]), L)[:, :, :T]
        y, _ = fft_convolution(u, K.T)
        last = last_state(dense(system), coordinates(system.B), u, coordinates(h))
        return y + carried.T, lax.complex(last[:, : self.N], last[:, self.N :])


def discretise(c: Continuous, C: Array) -> Discrete:
    """The bilinear system, and its C with it."""
    dt = c.dt[:, None].astype(c.A.dtype)
    E = 1 / (1 - dt / 2 * c.A)
    R = c.Q.conj() * E[None]
    G = 2 * jnp.einsum("rhn,shn->hrs", R, c.P).real
    inner = jnp.linalg.inv(jnp.eye(len(c.P), dtype=G.dtype)[None] + c.dt[:, None, None] / 2 * G)
    S = jnp.einsum("rhn,hrs->shn", (dt * E)[None] * c.P, inner.astype(E.dtype))
    read = 2 * jnp.sum((R * c.B[None]).real, axis=-1, keepdims=True).astype(E.dtype)
    B = dt * E * c.B - dt / 2 * jnp.sum(S * read, axis=0)
    return Discrete(2 * E - 1, S, R, B, C)


def times(d: Discrete, h: Array) -> Array:
    """Abar h, in O(N)."""
    read = 2 * jnp.sum((d.R * h[None]).real, axis=-1, keepdims=True).astype(h.dtype)
    return d.a * h - jnp.sum(d.S * read, axis=0)


def response(c: Continuous, C: Array, columns: Array, length: int) -> Array:
    """C~ -> C Abar^l b for l < length [k, H, length], b the discrete forms of columns [k, H, n]."""
    k, dtype = len(columns), c.A.dtype
    angle = jnp.arange(length // 2 + 1).astype(c.dt.dtype) * (-2 * np.pi / length)
    w = lax.complex(jnp.cos(angle), jnp.sin(angle))
    dt = c.dt[:, None].astype(dtype)

    def cauchy(v, A):
        nodes = 2 * (1 - w)[None, None] - (dt * A)[:, :, None] * (1 + w)[None, None]
        return jnp.einsum("xyhn,hnl->hlxy", v, 2 * dt[:, :, None] / nodes)

    X, Y = jnp.concatenate([C[None], c.Q.conj()]), jnp.concatenate([columns, c.P])
    v = X[:, None] * Y[None]
    both = cauchy(v, c.A) + cauchy(v.conj(), c.A.conj())
    half = ((1 + w) / 2)[None, :, None, None]
    inner = jnp.eye(len(c.P), dtype=dtype)[None, None] + half * both[:, :, 1:, k:]
    right = both[:, :, 1:, :k]
    solved = right / inner if len(c.P) == 1 else jnp.linalg.solve(inner, right)
    spectrum = both[:, :, :1, :k] - half * both[:, :, :1, k:] @ solved
    return jnp.moveaxis(jnp.fft.irfft(spectrum[:, :, 0], length, axis=1), 2, 0)


def dense(d: Discrete) -> Array:
    """Abar [H, N, N] as it acts on (Re x, Im x)."""
    n = d.a.shape[1]
    unit = jnp.eye(2 * n, dtype=d.a.real.dtype)
    basis = lax.complex(unit[:, :n], unit[:, n:])
    images = jax.vmap(lambda h: coordinates(times(d, jnp.broadcast_to(h[None], d.a.shape))))(basis)
    return jnp.moveaxis(images, 0, 2)


def coordinates(h: Array) -> Array:
    return jnp.concatenate([h.real, h.imag], axis=-1)


def row(C: Array) -> Array:
    """x -> 2 Re(C x) as a row over (Re x, Im x)."""
    return 2 * jnp.concatenate([C.real, -C.imag], axis=-1)


def from_row(c: Array) -> Array:
    real, imag = jnp.split(c, 2, axis=-1)
    return lax.complex(real, -imag) / 2


def truncate(d: Discrete, length: int) -> Array:
    """C~ = C (I - Abar^length)."""
    C = row(d.C)
    A = jnp.linalg.matrix_power(dense(d), length)
    return from_row(C - jnp.einsum("hi,hij->hj", C, A))


def untruncate(d: Discrete, length: int) -> Array:
    """C from C~ = C (I - Abar^length)."""
    A = jnp.linalg.matrix_power(dense(d), length)
    left = jnp.eye(A.shape[-1], dtype=A.dtype)[None] - jnp.swapaxes(A, 1, 2)
    return from_row(jnp.linalg.solve(left, row(d.C)[:, :, None])[:, :, 0])
