"""Linear readouts of states that are not trained: in closed form, and step by step.

    ridge   W = (X'X + ridge I)^-1 X'Y from sums over all steps (Jaeger 2001)   O(D^2) memory
    rls     recursive least squares with forgetting: the same W after every step  O(D^2) a step
    lms     least mean squares: gradient descent on every step's error            O(D O) a step

X [N, D] states, Y [N, O] targets, y = x W + b. The sums are a monoid (`seqjax.core.monoid.total`):
statistics of pieces of a stream, of batches and of devices are added, by `merge` or `lax.psum`,
and give the readout of the whole; `jax.vmap` over series gives each its own. RLS without forgetting
or bias is the ridge readout of all steps so far: of several devices it is that of their statistics.
Sums are as exact as their dtype: a ridge that float32 does not resolve needs float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.monoid import total
from seqjax.nn.base import Layer


class Readout(NamedTuple):
    """y = x W + b."""

    W: Array  # [D, O]
    b: Array  # [O]

    def __call__(self, x: Array) -> Array:
        y = x @ self.W
        return y + jnp.broadcast_to(self.b, y.shape)


class Statistics(NamedTuple):
    """All that a ridge readout needs of its data; sums, so they add up."""

    xx: Array  # [D, D] X'X
    xy: Array  # [D, O] X'Y
    x: Array  # [D]
    y: Array  # [O]
    steps: Array  # []


def statistics(X: Array, Y: Array, mask: Array | None = None) -> Statistics:
    """Sums over all axes but the last of X [..., D] and Y [..., O], in at least float32.

    mask: bool [...]; steps where it is not set (a washout, padding) are not looked at.
    """
    if X.shape[:-1] != Y.shape[:-1]:
        raise ValueError(f"X [..., D] and Y [..., O] go together, got {X.shape} and {Y.shape}")
    dtype = accumulation_dtype(X.dtype, Y.dtype)
    keep = jnp.ones(X.shape[:-1], bool) if mask is None else mask

    def rows(v):
        return jnp.where(keep[..., None], v, 0).reshape(-1, v.shape[-1]).astype(dtype)

    X, Y = rows(X), rows(Y)
    return Statistics(X.T @ X, X.T @ Y, X.sum(0), Y.sum(0), jnp.sum(keep, dtype=dtype))


def merge(first: Statistics, second: Statistics) -> Statistics:
    """The statistics of both."""
    return total.combine(first, second)


def solve(sums: Statistics, ridge: float = 0.0, *, fit_bias: bool = True) -> Readout:
    """argmin_W,b |X W + b - Y|^2 + ridge |W|^2. The bias is not penalised: X, Y are centred.

    Where rounding leaves X'X + ridge I indefinite, or X'X is singular, the ridge is raised to what
    the dtype resolves (`resolved`).
    """
    xx, xy, b = sums.xx, sums.xy, jnp.zeros_like(sums.y)
    if fit_bias:
        xx = xx - jnp.outer(sums.x, sums.x) / sums.steps
        xy = xy - jnp.outer(sums.x, sums.y) / sums.steps
    given = jnp.asarray(ridge, xx.dtype)
    least = resolved(*map(lax.stop_gradient, (xx, given, jnp.trace(sums.xx))))
    given = jnp.where(least > given, least, given)
    W = jax.scipy.linalg.solve(penalised(xx, given), xy, assume_a="pos")
    if fit_bias:
        b = (sums.y - sums.x @ W) / sums.steps
    return Readout(W, b)


def penalised(xx: Array, ridge: Array) -> Array:
    return xx + ridge * jnp.eye(len(xx), dtype=xx.dtype)


def resolved(xx: Array, ridge: Array, scale: Array) -> Array:
    """The ridge if xx + ridge I has a Cholesky factor; else the first of eps scale, 4 eps scale ..
    with which it has one. scale: the trace of X'X, of which rounding loses about eps."""
    least = jnp.finfo(xx.dtype).eps * scale

    def fails(ridge):
        return ~jnp.all(jnp.isfinite(jnp.linalg.cholesky(penalised(xx, ridge))))

    def more(carry):
        ridge, failed = carry
        return failed & (ridge < scale)

    def raised(carry):
        ridge = jnp.maximum(4 * carry[0], least)
        return ridge, fails(ridge)

    return lax.while_loop(more, raised, (ridge, fails(ridge)))[0]


def ridge_readout(
    X: Array, Y: Array, ridge: float = 0.0, *, mask: Array | None = None, fit_bias: bool = True
) -> Readout:
    """The ridge readout of X [..., D] to Y [..., O] at once."""
    return solve(statistics(X, Y, mask), ridge, fit_bias=fit_bias)


# ---- step by step -------------------------------------------------------------------------------


class Online(NamedTuple):
    """A readout that learns at every step: a loop or `lax.scan` over `step`."""

    init: Callable[[], Any]  # -> state, with its Readout in `readout`
    step: Callable[[Any, Array, Array], tuple[Any, Array]]  # (state, x, y) -> state, prediction


class RLSState(NamedTuple):
    readout: Readout
    P: Array  # [D, D] inverse of the weighted X'X + alpha I
    steps: Array  # [], weighted


def rls(
    features: int,
    outputs: int,
    *,
    alpha: float = 1e-6,
    forgetting: float = 1.0,
    fit_bias: bool = True,
) -> Online:
    """Recursive least squares: with forgetting 1 and no bias, ridge(alpha) of all steps so far.

        g = P x / (forgetting + x'P x)     P <- (P - g x'P) / forgetting     P_0 = I / alpha
        e = x W + b - y                    W <- W - (P x) e'                 b <- b - e / steps

    The prediction is the one before y was seen. As in reservoirpy the bias is a running mean
    beside W and not part of P; for the exact one append a 1 to x instead.
    """
    if not 0 < forgetting <= 1 or alpha <= 0:
        raise ValueError(f"rls needs 0 < forgetting <= 1 and alpha > 0: {forgetting}, {alpha}")

    def init() -> RLSState:
        readout = Readout(jnp.zeros((features, outputs)), jnp.zeros(outputs))
        return RLSState(readout, jnp.eye(features) / alpha, jnp.zeros(()))

    def step(state: RLSState, x: Array, y: Array) -> tuple[RLSState, Array]:
        (W, b), P, steps = state
        x, y = x.astype(W.dtype), y.astype(W.dtype)
        prediction = x @ W + b
        Px = P @ x
        P = (P - jnp.outer(Px, Px) / (forgetting + x @ Px)) / forgetting
        steps = forgetting * steps + 1
        e = prediction - y
        W = W - jnp.outer(P @ x, e)
        return RLSState(Readout(W, b - e / steps if fit_bias else b), P, steps), prediction

    return Online(init, step)


class LMSState(NamedTuple):
    readout: Readout


def lms(features: int, outputs: int, *, rate: float = 1e-2, fit_bias: bool = True) -> Online:
    """Least mean squares (Widrow & Hoff 1960): W <- W - rate x e', b <- b - rate e."""

    def init() -> LMSState:
        return LMSState(Readout(jnp.zeros((features, outputs)), jnp.zeros(outputs)))

    def step(state: LMSState, x: Array, y: Array) -> tuple[LMSState, Array]:
        ((W, b),) = state
        x, y = x.astype(W.dtype), y.astype(W.dtype)
        prediction = x @ W + b
        e = prediction - y
        b = b - rate * e if fit_bias else b
        return LMSState(Readout(W - rate * jnp.outer(x, e), b)), prediction

    return Online(init, step)


def memory_capacity(
    layer: Layer, u: Array, *, longest: int, ridge: float = 0.0, test: float = 0.25
) -> Array:
    """MC_k [longest], the squared correlation of u_{t-k} and its readout at t, for k = 1 .. longest
    (Jaeger 2002, Short term memory in echo state networks); their sum is the capacity.

    u [T]: a series without memory of its own. The readouts are fitted to the first states, less
    `longest` for a washout, and correlated on a share `test` of the steps, the last.
    """
    T, tested = len(u), round(test * len(u))
    fitted = T - longest - tested
    if longest < 1 or fitted <= longest or tested < 2:
        raise ValueError(f"{T} steps are too few for {longest} delays and a test of {tested}")
    states = layer(u[None, longest:, None])[0][0]
    past = jnp.stack([u[longest - k : T - k] for k in range(1, longest + 1)], axis=1)
    readout = ridge_readout(states[longest:fitted], past[longest:fitted], ridge)

    def centred(z):
        return z - jnp.mean(z, axis=0, keepdims=True)

    y, past = centred(readout(states[fitted:])), centred(past[fitted:])
    return jnp.sum(y * past, axis=0) ** 2 / (jnp.sum(y * y, axis=0) * jnp.sum(past * past, axis=0))


def closed_loop(layer: Layer, readout: Readout, h: Any, x: Array, steps: int) -> tuple[Array, Any]:
    """`steps` predictions [B, steps, O] and the last state, the layer reading its own.

    h, x [B, O]: the layer's state and the prediction made from it, which is read first.
    """

    def body(carry, _):
        x, h = carry
        states, h = layer(x[:, None], h)
        x = readout(states[:, 0]).astype(x.dtype)
        return (x, h), x

    (_, h), ys = lax.scan(body, (x, h), length=steps)
    return jnp.swapaxes(ys, 0, 1), h
