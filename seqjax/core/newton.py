"""Nonlinear recurrences h_t = f(h_{t-1}, x_t) in parallel: Newton's method on the whole trajectory.

Guess all states at once; linearise f about the guess; the linearised recurrence

    h_t = f(g_{t-1}, x_t) + J_t (h_{t-1} - g_{t-1}),      J_t = df/dh (g_{t-1}, x_t)

is affine, so a scan over (J_t, f - J_t g) solves it in O(log T) depth and gives the next guess
(DEER, arXiv:2309.12252 eq. 5; the quasi form keeps diag(J) only, arXiv:2407.19115 sec. 4). Where
the J_t expand, that scan overflows: what leaves all that f gives is replaced by the step from the
guess, f(g), so that at least one state more is right after each iteration; or a trust region keeps
each guess near the last one (ELK, `seqjax.core.smoother`). The derivative at the solution,
dh_t = J_t dh_{t-1} + (df)_t, is the implicit function theorem and an affine scan once more: it has
jvp and vjp, and does not run through the iterations.

Shapes: xs [T, ...], state a pytree h; the structure of J is declared, not discovered:

    "dense"           any cell; J [n, n] over the ravelled state        memory T n^2, work T n^3
    "diagonal"        each state entry depends on itself only           memory T n
    "block_diagonal"  state arrays [G, ...] whose rows do not mix       memory T G n^2

with n what a row has of all the arrays of a state: heads of units, or units (h, c) that see
themselves only (ParaRNN, arXiv:2510.21450).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from seqjax.core.axis import Axis, Line, relay, step_before
from seqjax.core.common import accumulation_dtype, largest, unknown
from seqjax.core.mesh import alike, loop, settled
from seqjax.core.monoid import block_diagonal, dense, diagonal
from seqjax.core.scan import scan
from seqjax.core.smoother import smoothed

Step = Callable[[Any, Any], Any]
FAR = 1e6  # times what f gives: a guess beyond it is none


class NewtonResult(NamedTuple):
    states: Any  # [T, ...], h_1 ... h_T
    last: Any  # h_T
    iterations: jax.Array  # Newton steps taken, int32
    residual: jax.Array  # max_t |h_t - f(h_{t-1}, x_t)| relative to 1 + max |h|
    fell_back: jax.Array  # bool: Newton did not converge and the states come from the plain loop


class _Structure(NamedTuple):
    monoid: Any
    jacobian: Callable  # (f, h) -> J of f at the flat state h
    times: Callable  # (J, v) -> J v


def _jacobian_diagonal(f, h):
    return jax.jvp(f, (h,), (jnp.ones_like(h),))[1]


def _jacobian_blocks(f, h):
    """J [G, n, n] from n tangents: the rows of the state do not mix, so one serves all blocks."""
    basis = jnp.eye(h.shape[-1], dtype=h.dtype)
    columns = jax.vmap(lambda e: jax.jvp(f, (h,), (jnp.broadcast_to(e[None], h.shape),))[1])(basis)
    return jnp.moveaxis(columns, 0, -1)


STRUCTURES: dict[str, _Structure] = {
    "dense": _Structure(dense, lambda f, h: jax.jacfwd(f)(h), lambda J, v: J @ v),
    "diagonal": _Structure(diagonal, _jacobian_diagonal, lambda J, v: J * v),
    "block_diagonal": _Structure(
        block_diagonal, _jacobian_blocks, lambda J, v: (J @ v[..., None])[..., 0]
    ),
}
_QUASI = _Structure(diagonal, lambda f, h: jnp.diagonal(jax.jacfwd(f)(h)), lambda J, v: J * v)


def newton(
    step: Step,
    xs: Any,
    state: Any,
    *,
    jacobian: str = "dense",
    quasi: bool = False,
    tolerance: float | None = None,
    max_iterations: int = 50,
    damping: float = 0.0,
    trust: float | None = None,
    guess: Any = None,
    evaluator: str | None = None,
    axis: Axis | None = None,
) -> NewtonResult:
    """All states of h_t = step(h_{t-1}, x_t), by Newton's method on the trajectory.

    jacobian: structure of dh_t/dh_{t-1}, a promise about `step` ("dense" always holds). It is not
        tried here: under a false one the states take more iterations, and all derivatives are
        wrong. `seqjax.testing.check_jacobian` tries it.
    quasi: iterate with the diagonal of a dense J: O(T n) memory, more iterations.
    tolerance: on the relative residual; by default 1e-6 (float32), 1e-12 (float64), or one
        rounding of a state of 16 bits, whose affine scans run in float32.
    damping: in [0, 1); J is shrunk by 1 - damping. 0 is Newton; towards 1 it is the fixed-point
        iteration, which always ends after T steps. The solution does not move.
    trust: the first weight of the distance to the last guess (ELK; quasi: quasi-ELK). A guess that
        lowers the sum of squared residuals is taken, and the weight a fourth of what it was; any
        other is not, and the weight eight times as large (Levenberg-Marquardt; the paper keeps
        it). 0.01 is a good first one. None: no trust region. Chaotic recurrences are beyond it,
        too: their residuals hardly depend on how far the guess is.
    guess: states [T, ...] to begin with, of an earlier call with nearby parameters; None: all are
        the first.
    evaluator: of the affine scans inside (a name of seqjax.core.scan.EVALUATORS).
    axis: of the mesh, which time is split over: xs, guess and the states returned are those of this
        device, the first state and the last one are the same on all. Without a trust region.

    An example that has not converged after max_iterations, or has left the finite numbers, is
    computed by the plain loop instead: the result is right either way, and Info tells them apart.
    Under `jax.vmap` each example stops, and falls back, on its own. Derivatives of any order,
    forward and reverse, are exact and do not run through the iterations.

    >>> found = newton(lambda h, x: jnp.tanh(0.5 * h + x), jnp.ones((100, 2)), jnp.zeros(2))
    >>> found.states.shape, bool(found.iterations < 20), bool(found.fell_back)
    ((100, 2), True, False)
    """
    kind = _structure(jacobian)
    if quasi and jacobian != "dense":
        raise ValueError(f"quasi is the diagonal of a dense Jacobian, not of {jacobian!r}")
    if not 0 <= damping < 1:
        raise ValueError(f"damping must be in [0, 1), got {damping}")
    if trust is not None and not trust > 0:
        raise ValueError(f"trust must be above 0, or None, got {trust}")
    if trust is not None and axis is not None:
        raise ValueError(f"a trust region cannot split time over a mesh axis ({axis!r})")
    inner = _QUASI if quasi else kind

    def solve(f, xs, h0, guess):
        length = _length(xs)
        stop = _tolerance(h0.dtype) if tolerance is None else tolerance

        def shift(h):
            return _shifted(h, h0, axis)

        def furthest(x):
            return _largest_of_all(largest(jnp.abs(x), initial=0), axis)

        def residual(h):
            return furthest(jax.vmap(f)(shift(h), xs) - h) / (1 + furthest(h))

        def squares(h):
            return jnp.sum(jnp.square(_wide(jax.vmap(f)(shift(h), xs) - h)))

        def improve(carry):
            h, iterations, _, weight = carry
            last, g = h, shift(h)
            J = jax.vmap(lambda g, x: inner.jacobian(lambda h: f(h, x), g))(g, xs) * (1 - damping)
            J, step, g = _wide((J, jax.vmap(f)(g, xs), g))
            b = step - jax.vmap(inner.times)(J, g)
            if trust is None:
                h, _ = scan(inner.monoid, (J, b), _wide(h0), evaluator=evaluator, axis=axis)
                far = FAR * (1 + furthest(step))
                h = jnp.where(jnp.abs(h) <= far, h, step).astype(h0.dtype)
                return h, iterations + 1, residual(h), weight
            affine = dict(affine=inner.monoid, times=inner.times, evaluator=evaluator)
            h = smoothed(J, b, _wide(h), _wide(h0), weight, **affine).astype(h0.dtype)
            better = squares(h) < squares(last)  # False of a NaN
            h = jnp.where(better, h, last)
            return h, iterations + 1, residual(h), weight * jnp.where(better, 0.25, 8)

        def unfinished(carry):
            _, iterations, gap, _ = carry
            return (iterations < max_iterations) & (gap > stop) & jnp.isfinite(gap)

        guess = jnp.broadcast_to(h0[None], (length, *h0.shape)) if guess is None else guess
        weight = jnp.asarray(trust or 0, accumulation_dtype(h0.dtype))
        start = (guess, jnp.zeros((), jnp.int32), residual(guess), weight)
        start = settled(improve, start)
        h, iterations, gap, _ = lax.while_loop(unfinished, improve, start)
        fell_back = ~(gap <= stop)
        # A loop of zero or T steps, not a cond: under vmap a cond would always run both branches.
        one_step = partial(_one_step, f, xs)

        def plain(h0, begin):
            start = settled(one_step, (h, h0, begin))
            return lax.while_loop(lambda carry: carry[2] < length, one_step, start)[:2]

        begin = jnp.where(fell_back, 0, length)
        h, _ = relay(lambda h0: plain(h0, begin), h0, axis)
        return h, (iterations, jnp.where(fell_back, residual(h), gap), fell_back)

    if _length(xs) == 0:
        zero = jnp.zeros((), jnp.float32)
        return NewtonResult(*_nothing(state), zero.astype(jnp.int32), zero, zero.astype(bool))
    states, last, report = _implicit(solve, step, xs, state, jacobian, evaluator, guess, axis)
    return NewtonResult(states, last, *report)


def parallel_backward(
    step: Step,
    xs: Any,
    state: Any,
    *,
    jacobian: str = "dense",
    evaluator: str | None = None,
    axis: Axis | None = None,
) -> tuple[Any, Any]:
    """The plain loop forward, its derivatives (reverse and forward mode) by parallel scans.

    For any cell: the forward pass of a nonlinear recurrence is sequential, but its adjoint
    lambda_{t-1} = J_t' lambda_t + e_{t-1} is affine and needs no sequential pass.
    jacobian, axis: as for `newton`; under a false Jacobian the derivatives are wrong.
    Returns (states [T, ...], last state).

    >>> step = lambda h, x: jnp.tanh(0.5 * h + x)
    >>> states, last = parallel_backward(step, jnp.ones((100, 2)), jnp.zeros(2))
    >>> states.shape, last.shape
    ((100, 2), (2,))
    """

    def solve(f, xs, h0, _):
        def body(h, x):
            h = f(h, x)
            return h, h

        def piece(h0):
            last, states = loop(body, h0, xs)
            return states, last

        return relay(piece, h0, axis)[0], ()

    if _length(xs) == 0:
        return _nothing(state)
    states, last, _ = _implicit(solve, step, xs, state, jacobian, evaluator, None, axis)
    return states, last


def _one_step(f, xs, carry):
    """The plain loop, one step of it, writing h_t in place."""
    h, previous, t = carry
    x = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, t, keepdims=False), xs)
    new = f(previous, x)
    return lax.dynamic_update_index_in_dim(h, new, t, 0), new, t + 1


def _implicit(solve, step, xs, state, jacobian, evaluator, guess, axis):
    """states = solve(f, xs, h0, guess) with the derivatives of the recurrence, not those of solve.

    The tangent rule calls the solution again, so it can itself be differentiated, to any order.
    """
    kind = _structure(jacobian)
    ravel, unravel = layout(state, jacobian)
    h0, xs = alike(ravel(state), xs)  # a step that is converted has one type

    def flat(h, x):
        return ravel(step(unravel(h), x))

    # What the step closes over (parameters being differentiated) must become an argument.
    f, constants = jax.closure_convert(flat, h0, jax.tree.map(lambda x: x[0], xs))

    if guess is not None:
        like = jax.tree.map(lambda s: (_length(xs), *s.shape), state)
        if jax.tree.map(jnp.shape, guess) != like:
            got = jax.tree.map(jnp.shape, guess)
            raise ValueError(f"guess must be states like the first, {like}, got {got}")
        guess = jax.vmap(ravel)(guess)

    @jax.custom_jvp
    def run(constants, xs, h0, guess):
        return solve(lambda h, x: f(h, x, *constants), xs, h0, guess)

    @run.defjvp
    def run_jvp(primals, tangents):
        constants, xs, h0, guess = primals
        d_constants, d_xs, d_h0, _ = tangents
        h, report = run(constants, xs, h0, guess)
        g = _shifted(h, h0, axis)

        def linearised(g, x, dx):
            J = kind.jacobian(lambda g: f(g, x, *constants), g)
            drive = jax.jvp(lambda x, c: f(g, x, *c), (x, constants), (dx, d_constants))[1]
            return J, drive

        elements = jax.vmap(linearised)(g, xs, d_xs)
        dh, _ = scan(kind.monoid, _wide(elements), _wide(d_h0), evaluator=evaluator, axis=axis)
        dh = dh.astype(h.dtype)
        nothing = jax.tree.map(_no_tangent, report)
        return (h, report), (dh, nothing)

    h, report = run(constants, xs, h0, guess)
    last = h[-1] if axis is None else Line.on(axis).last(h[-1])
    return jax.vmap(unravel)(h), unravel(last), report


def _shifted(h, h0, axis):
    """The state [T, ...] before each step."""
    first = h0 if axis is None else step_before(h, h0, axis)
    return jnp.concatenate([first[None], h])[:-1]


def _largest_of_all(x, axis):
    """The largest x of all devices, infinite where one of them is NaN."""
    return x if axis is None else Line.on(axis).largest(jnp.where(jnp.isnan(x), jnp.inf, x))


def layout(state: Any, jacobian: str) -> tuple[Callable[[Any], jax.Array], Callable]:
    """From a state to the one array that a Jacobian of this structure is of, and back.

    Raises ValueError for a state that cannot have it.
    """
    if jacobian == "dense":
        return lambda h: ravel_pytree(h)[0], ravel_pytree(state)[1]
    leaves, treedef = jax.tree.flatten(state)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if jacobian == "diagonal":
        if len(leaves) != 1:
            raise ValueError(f"a diagonal Jacobian is of a state of one array, got {shapes}")
        return lambda h: jax.tree.leaves(h)[0], lambda h: treedef.unflatten([h])
    G = shapes[0][:1]
    if not G or any(shape[:1] != G for shape in shapes):
        raise ValueError(f"a block_diagonal Jacobian is of arrays [G, ...], got {shapes}")
    ends = np.cumsum([math.prod(shape[1:]) for shape in shapes])[:-1]

    def ravel(h):
        return jnp.concatenate([v.reshape(*G, -1) for v in jax.tree.leaves(h)], axis=1)

    def unravel(rows):
        parts = jnp.split(rows, ends, axis=1)
        return treedef.unflatten([v.reshape(shape) for v, shape in zip(parts, shapes)])

    return ravel, unravel


def _wide(tree):
    """16-bit leaves in float32, in which the affine scans run; the step keeps its own dtypes."""
    return jax.tree.map(lambda x: x.astype(accumulation_dtype(x.dtype)), tree)


def _tolerance(dtype) -> float:
    """Below 32 bits one rounding: no iterate can come closer, and at it no step moves."""
    return {64: 1e-12, 32: 1e-6}.get(jnp.finfo(dtype).bits) or float(jnp.finfo(dtype).eps)


def _no_tangent(x):
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)


def _structure(name: str) -> _Structure:
    if name not in STRUCTURES:
        raise ValueError(unknown("Jacobian structure", name, STRUCTURES))
    return STRUCTURES[name]


def _nothing(state):
    return jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), state), state


def _length(xs) -> int:
    return len(jax.tree.leaves(xs)[0])
