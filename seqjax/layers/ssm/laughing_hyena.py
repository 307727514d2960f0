"""LaughingHyena (Massaroli et al. 2023, arXiv:2310.18780): long filters as small states.

Modal interpolation: a filter h_0, h_1, ... is approximated by `modes` complex exponentials,

    h_t ~ Re sum_n C_n lambda_n^t    for t >= 1,    |lambda| < 1,      h_0 is kept as it is

(the paper writes R_n = C_n lambda_n and lambda^(t-1)), so that what was a convolution over the
whole past is a recurrence with a state of that many numbers per channel,

    x_t = lambda * x_{t-1} + u_t,    y_t = Re(C x_t) + (h_0 - Re sum_n C_n) u_t

`distil` minimises |h - h~|^2 over C and lambda. The paper descends from a random start; here the
poles start from the shift invariance of the leading subspace of the filter's Hankel matrix (whose
singular values say how small a state can be), C solves its least squares, and Levenberg-Marquardt
steps over both follow. It is offline, in numpy and float64.

`LaughingHyena` is a Hyena operator whose long convolutions are such recurrences: by `of`, one that
answers like a given Hyena, or trained from the start, with rates log-uniform in [1e-3, 1e-1] and
phases uniform. A filter ends after `length` steps, its modes fade: beyond, the two differ by what
is left of them. Evaluators: those of `diagonal_ssm`; "fft" fills the state from a prompt.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.layers.ssm.hyena import Hyena, HyenaState
from seqjax.nn.base import Precise
from seqjax.ops.diagonal_ssm import diagonal_ssm

ROWS_AT_MOST = 256  # of a Hankel matrix
SLOWEST, FASTEST = 1e-7, 5.0  # -log |lambda|


class Modes(NamedTuple):
    """h_t = Re sum_n C_n exp(log_lambda_n t), plus `direct` at t = 0; [..., modes] and [...]."""

    log_lambda: np.ndarray
    C: np.ndarray
    direct: np.ndarray

    def filter(self, length: int) -> np.ndarray:
        """[..., length]."""
        power = np.exp(self.log_lambda[..., None] * np.arange(length))
        h = np.einsum("...n,...nt->...t", self.C, power).real
        h[..., 0] += self.direct
        return h


def distil(filters: np.ndarray, modes: int, *, steps: int = 100) -> Modes:
    """`modes` exponentials for each filter [..., length], the present first.

    steps: of Levenberg-Marquardt, at most, per filter.
    """
    filters = np.asarray(filters, np.float64)
    if modes < 1 or filters.shape[-1] < 3:
        raise ValueError(f"distil takes >= 1 modes and >= 3 taps, got {modes}, {filters.shape}")
    shape, length = filters.shape[:-1], filters.shape[-1]
    fitted = [fit(h, modes, steps) for h in filters.reshape(-1, length)]
    log_lambda, C = (np.stack(part).reshape(*shape, modes) for part in zip(*fitted))
    return Modes(log_lambda, C, filters[..., 0] - C.sum(-1).real)


def fit(h: np.ndarray, modes: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """log lambda and C [modes] for one filter [length]."""
    times, h = np.arange(1, len(h)), h[1:]
    log_lambda = first_poles(h, modes)
    C = residues(log_lambda, times, h)

    def unpack(p):
        rate, phase, re, im = p.reshape(4, modes)
        rate = np.exp(np.clip(rate, *np.log([SLOWEST, FASTEST])))
        return -rate + 1j * phase, re + 1j * im

    def error(p):
        log_lambda, C = unpack(p)
        return (C @ np.exp(np.outer(log_lambda, times))).real - h

    p = np.concatenate([np.log(-np.real(log_lambda)), np.imag(log_lambda), np.real(C), np.imag(C)])
    e, damping = error(p), 1e-3
    for _ in range(steps):
        log_lambda, C = unpack(p)
        power = np.exp(np.outer(log_lambda, times))
        slope = C[:, None] * power * times[None]
        J = np.concatenate(
            [
                np.real(slope * np.real(log_lambda)[:, None]),
                -np.imag(slope),
                np.real(power),
                -np.imag(power),
            ]
        ).T
        scale = np.linalg.norm(J, axis=0) + 1e-12
        Q, R = np.linalg.qr(np.concatenate([J / scale, damping**0.5 * np.eye(4 * modes)]))
        tried = p - np.linalg.solve(R, Q[: len(e)].T @ e) / scale
        new = error(tried)
        if new @ new < e @ e:
            settled = e @ e - new @ new < 1e-14 * (h @ h)
            p, e, damping = tried, new, max(damping / 5, 1e-12)
            if settled:
                break
        else:
            damping *= 4
    return unpack(p)


def first_poles(h: np.ndarray, modes: int) -> np.ndarray:
    """log lambda of the largest real model whose conjugate pairs and real poles are `modes`."""
    rows = min(len(h) // 2, ROWS_AT_MOST)
    poles = np.zeros(0, complex)
    if rows > 1:
        hankel = np.lib.stride_tricks.sliding_window_view(h, len(h) - rows + 1)
        U = np.linalg.svd(hankel, full_matrices=False)[0]
        for rank in range(min(2 * modes, rows - 1), 0, -1):
            found = np.linalg.lstsq(U[:-1, :rank], U[1:, :rank], rcond=None)[0]
            poles = np.linalg.eigvals(found)
            poles = poles[poles.imag >= 0]
            if len(poles) <= modes:
                break
    spread = 0.9 * np.exp(1j * np.pi * (np.arange(modes) + 0.5) / modes)
    poles = np.concatenate([poles, spread[: max(0, modes - len(poles))]])
    rate = np.clip(-np.log(np.maximum(np.abs(poles), 1e-12)), SLOWEST, FASTEST)
    return -rate + 1j * np.angle(poles)


def residues(log_lambda: np.ndarray, times: np.ndarray, h: np.ndarray) -> np.ndarray:
    """C of least squares, given the poles."""
    power = np.exp(np.outer(times, log_lambda))
    found = np.linalg.lstsq(np.concatenate([np.real(power), -np.imag(power)], 1), h, rcond=None)[0]
    return found[: len(log_lambda)] + 1j * found[len(log_lambda) :]


class LaughingHyena(Hyena):
    ops = ("diagonal_ssm",)
    sequence_parallel = True

    def __init__(self, features: int, *, order: int = 2, modes: int = 16, rngs: nnx.Rngs):
        if order < 2 or modes < 1:
            raise ValueError(f"order must be >= 2 and modes >= 1, got {order} and {modes}")
        self._around(features, order, rngs)
        shape = (order - 1, features, modes)
        uniform, normal = jax.random.uniform, jax.random.normal
        low, high = math.log(1e-3), math.log(1e-1)
        self.rate = Precise(uniform(rngs.params(), shape, minval=low, maxval=high))
        self.phase = Precise(uniform(rngs.params(), shape, maxval=math.pi))
        self.C = Precise(normal(rngs.params(), (2, *shape)) * modes**-0.5)

    @classmethod
    def of(cls, hyena: Hyena, *, modes: int = 16, steps: int = 100) -> "LaughingHyena":
        """The layer that answers like `hyena`, with `modes` numbers per channel for its past."""
        layer = cls(hyena.features, order=hyena.order, modes=modes, rngs=nnx.Rngs(0))
        found = distil(np.swapaxes(np.asarray(hyena.filters()), 1, 2), modes, steps=steps)
        dtype = hyena.bias.dtype
        for name in ("W_in", "conv", "W_out"):
            setattr(layer, name, nnx.clone(getattr(hyena, name)))
        layer.bias = nnx.Param(hyena.bias[...] + jnp.asarray(found.direct, dtype))
        layer.rate = Precise(jnp.asarray(np.log(-np.real(found.log_lambda)), dtype))
        layer.phase = Precise(jnp.asarray(np.imag(found.log_lambda), dtype))
        layer.C = Precise(jnp.asarray(np.stack([np.real(found.C), np.imag(found.C)]), dtype))
        return layer

    def initial(self):
        states = tuple(jnp.zeros(self.C.shape[2:], jnp.complex64) for _ in range(self.order - 1))
        return HyenaState(self.conv.initial(), states)

    def filters(self):
        """log lambda and C [features, modes] of each long convolution."""
        log_lambda = lax.complex(-jnp.exp(self.rate[...]), self.phase[...])
        return tuple(zip(log_lambda, lax.complex(*self.C[...])))

    def convolve(self, u, kernel, bias, h, flow):
        log_lambda, C = kernel
        y, h = diagonal_ssm(u, log_lambda, jnp.ones_like(C), C, h, flow=flow)
        return y.astype(u.dtype) + bias[None] * u, h
