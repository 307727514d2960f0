"""Monoids that act on a state: the algebra every recurrence of this library is written in.

A linear recurrence h_t = e_t . h_{t-1} is fixed by three functions over its elements e:

    combine(p, q)   the element that does p first and q second            (associative)
    identity(e)     the element that does nothing, shaped and typed like e
    act(e, h)       the state after e; act(combine(p, q), h) == act(q, act(p, h))

`combine` and `act` take time-ordered arguments and elements of one time step; the evaluators of
`seqjax.core.scan` map them over time. Elements and states are pytrees and need not have the same
structure: keeping the state apart from the element keeps it small, makes streaming the same
function as training, and lets a reset go to any (learned) state.

Letters: T time, D channels, K keys, V values, N states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.common import largest

Element = Any
State = Any


@dataclass(frozen=True)
class Monoid:
    """An associative `combine` with unit `identity`, acting on states by `act`.

    structure: the name by which an evaluator recognises an algebra it has a faster form for
        ("diagonal" runs on the linear-scan primitive); "" for an algebra of your own, which every
        generic evaluator takes.
    element: the parts of an element by name, ("a", "b"); empty where it may be any pytree.

    The laws (associativity, the identity, that combine agrees with act) are a promise: on CPU most
    recurrences run as a loop over `act`, so that a false `combine` shows on accelerators only.
    `seqjax.testing.check_monoid` tries them.

    >>> pair = Monoid(
    ...     lambda p, q: (p[0] + q[0], p[1] + q[1]),
    ...     lambda e: (0 * e[0], 0 * e[1]),
    ...     lambda e, h: (e[0] + h[0], e[1] + h[1]),
    ... )
    >>> elements = jnp.ones(4), jnp.arange(4.0)  # a mean over what was seen: its count and its sum
    >>> (n, x), _ = seqjax.scan(pair, elements, (jnp.zeros(()), jnp.zeros(())))
    >>> (x / n).tolist()
    [0.0, 0.5, 1.0, 1.5]
    """

    combine: Callable[[Element, Element], Element]
    identity: Callable[[Element], Element]
    act: Callable[[Element, State], State]
    structure: str = ""
    element: tuple[str, ...] = ()


def check_element(what: str, monoid: Monoid, elements: Element, state: State) -> None:
    """One error that names `what` if elements [T, ...] are none that act on such a state."""
    name, parts = f"the {monoid.structure or 'given'} monoid", monoid.element
    if parts and not (isinstance(elements, tuple | list) and len(elements) == len(parts)):
        shapes = jax.tree.map(lambda x: np.shape(x)[1:], elements)
        raise TypeError(
            f"{what} is {shapes}, but an element of {name} is ({', '.join(parts)}), of one step"
        )

    def shapes_of(tree):
        return jax.tree.map(np.shape, tree)

    one = jax.eval_shape(lambda e: jax.tree.map(lambda x: x[0], e), elements)
    have = f"{what} has shapes {shapes_of(one)}, the state {shapes_of(state)}: act of {name}"
    try:
        with jax.numpy_dtype_promotion("standard"):  # dtypes are the evaluators' business
            after = jax.eval_shape(monoid.act, one, state)
    except (TypeError, ValueError, IndexError) as error:
        raise TypeError(f"{have} cannot take them ({error})") from error
    if shapes_of(after) != shapes_of(state):
        raise ValueError(f"{have} makes a state {shapes_of(after)} of them, it must keep its shape")


def select(flag: jax.Array, yes: Any, no: Any) -> Any:
    """Leafwise `where(flag, yes, no)` over two pytrees; flag is broadcast from the left.

    A select, unlike a product with the flag, cuts a NaN or an infinity in the branch not taken.
    """

    def leaf(a, b):
        a, b = jnp.asarray(a), jnp.asarray(b)
        return jnp.where(flag.reshape(flag.shape + (1,) * (a.ndim - flag.ndim)), a, b)

    return jax.tree.map(leaf, yes, no)


def resettable(monoid: Monoid, start: State) -> Monoid:
    """Elements (flag, e): where flag is set the state becomes `start` before e acts.

    Lawful for every monoid and every initial state, learned ones included:
        (f, p) then (True, q)  = (True, q)         the past is forgotten, whatever it held
        (f, p) then (False, q) = (f, p then q)

    >>> e = jnp.full(4, 0.5), jnp.ones(4)
    >>> flags = jnp.array([False, False, True, False])
    >>> zero = jnp.zeros(())
    >>> seqjax.scan(resettable(diagonal, zero), (flags, e), zero)[0].tolist()
    [1.0, 1.5, 1.0, 1.5]
    """

    def combine(p, q):
        # The past is cut before it is combined, not after: its cotangent is then selected away too,
        # where 0 * NaN would come back through the rule of a product.
        (p_flag, p_element), (q_flag, q_element) = p, q
        past = select(q_flag, monoid.identity(p_element), p_element)
        return p_flag | q_flag, monoid.combine(past, q_element)

    def identity(element):
        flag, inner = element
        return jnp.zeros_like(flag), monoid.identity(inner)

    def act(element, state):
        flag, inner = element
        like = jax.tree.map(lambda i, s: jnp.asarray(i, s.dtype), start, state)
        return monoid.act(inner, select(flag, like, state))

    return Monoid(combine, identity, act)


def keep_or_identity(monoid: Monoid, keep: jax.Array, element: Element) -> Element:
    """`element` where keep is set, else the identity; keep[()] for one element, keep[T] for T."""
    unit = monoid.identity
    for _ in range(keep.ndim):
        unit = jax.vmap(unit)
    return select(keep, element, unit(element))


def masked(monoid: Monoid) -> Monoid:
    """Elements (keep, e): a step whose keep is not set is the identity, whatever e holds.

    >>> e = jnp.full(4, 0.5), jnp.ones(4)
    >>> keep = jnp.array([True, False, True, True])
    >>> seqjax.scan(masked(diagonal), (keep, e), jnp.zeros(()))[0].tolist()
    [1.0, 1.0, 1.5, 1.75]
    """

    def inner(element):
        return keep_or_identity(monoid, *element)

    return Monoid(
        lambda p, q: (p[0] | q[0], monoid.combine(inner(p), inner(q))),
        lambda e: (jnp.zeros_like(e[0]), monoid.identity(e[1])),
        lambda e, h: monoid.act(inner(e), h),
    )


def product(first: Monoid, second: Monoid) -> Monoid:
    """Two recurrences side by side: elements (p, q) act on states (h, g) independently.

    >>> decays, sums = (jnp.full(3, 0.5), jnp.ones(3)), jnp.ones(3)
    >>> zero = jnp.zeros(())
    >>> (h, g), _ = seqjax.scan(product(diagonal, total), (decays, sums), (zero, zero))
    >>> h.tolist(), g.tolist()
    ([1.0, 1.5, 1.75], [1.0, 2.0, 3.0])
    """
    return Monoid(
        lambda p, q: (first.combine(p[0], q[0]), second.combine(p[1], q[1])),
        lambda e: (first.identity(e[0]), second.identity(e[1])),
        lambda e, h: (first.act(e[0], h[0]), second.act(e[1], h[1])),
    )


def _affine(times: Callable, one: Callable, structure: str) -> Monoid:
    """h -> A h + b for a multiplication `times(A, b)`; every affine algebra below is this one."""
    return Monoid(
        lambda p, q: (times(q[0], p[0]), times(q[0], p[1]) + q[1]),
        lambda e: (one(e[0]), jnp.zeros_like(e[1])),
        lambda e, h: times(e[0], h) + e[1],
        structure,
        ("a", "b"),
    )


def _identity_matrix(A: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape)


def _scale(a: jax.Array, x: jax.Array) -> jax.Array:
    """a times x, a broadcast from the left: a[()] scales all of x, a[K] the rows of x[K, V]."""
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim)) * x


diagonal = _affine(lambda a, b: a * b, jnp.ones_like, "diagonal")
"""h_t = a_t * h_{t-1} + b_t, real or complex; element (a[D], b[D]), state h[D]."""

dense = _affine(
    lambda A, b: A @ b,
    _identity_matrix,
    "dense",
)
"""h_t = A_t h_{t-1} + b_t; element (A[N, N], b[N] or b[N, V]), state like b."""

block_diagonal = _affine(
    lambda A, b: (A @ (b if b.ndim == A.ndim else b[..., None])).reshape(b.shape),
    _identity_matrix,
    "block_diagonal",
)
"""`dense` in G independent blocks; element (A[G, n, n], b[G, n]), state h[G, n]."""

scalar_decay = _affine(_scale, jnp.ones_like, "scalar_decay")
"""S_t = a_t S_{t-1} + X_t with one decay for the whole matrix; element (a[], X[K, V])."""

key_decay = _affine(_scale, jnp.ones_like, "key_decay")
"""S_t = diag(a_t) S_{t-1} + X_t with a decay per key channel; element (a[K], X[K, V])."""


def _rescale(m: jax.Array, m_max: jax.Array) -> jax.Array:
    """exp(m - m_max) for m <= m_max, and 0 (not NaN) where both are -inf: nothing seen yet."""
    finite = m_max > -jnp.inf
    return jnp.where(finite, jnp.exp(m - jnp.where(finite, m_max, 0)), 0)


def _stabilised_combine(p, q):
    (p_decay, p_m, p_x), (q_decay, q_m, q_x) = p, q
    carried = p_m + q_decay
    m = jnp.maximum(carried, q_m)
    x = _scale(_rescale(carried, m), p_x) + _scale(_rescale(q_m, m), q_x)
    return p_decay + q_decay, m, x


stabilised = Monoid(
    _stabilised_combine,
    lambda e: (jnp.zeros_like(e[0]), jnp.full_like(e[1], -jnp.inf), jnp.zeros_like(e[2])),
    lambda e, h: _stabilised_combine((jnp.zeros_like(e[0]), *h), e)[1:],
    "stabilised",
    ("log f", "i", "x"),
)
"""v_t = f_t v_{t-1} + exp(i_t) x_t with exponential gates, kept as v = exp(m) x, m the running
maximum of the exponents (xLSTM, arXiv:2405.04517 eq. 15; softmax attention as a recurrence).

element (log f, i, x), state (m, x); exponents [G], x [G, ...]. m = -inf stands for v = 0.
"""

maxplus = Monoid(
    lambda p, q: (p[0] + q[0], jnp.maximum(p[1] + q[0], q[1])),
    lambda e: (jnp.zeros_like(e[0]), jnp.full_like(e[1], -jnp.inf)),
    lambda e, m: jnp.maximum(m + e[0], e[1]),
    "maxplus",
    ("a", "b"),
)
"""m_t = max(m_{t-1} + a_t, b_t): the affine maps of the max-plus semiring; element (a, b)."""


def _matmul_maxplus(A: jax.Array, B: jax.Array) -> jax.Array:
    return largest(A[..., :, :, None] + B[..., None, :, :], axis=-2)


viterbi = Monoid(
    lambda p, q: _matmul_maxplus(q, p),
    lambda A: jnp.where(jnp.eye(A.shape[-1], dtype=bool), 0.0, -jnp.inf).astype(A.dtype),
    lambda A, h: largest(A + h[None, :], axis=-1),
    "viterbi",
)
"""h_t = A_t (x) h_{t-1} with the max-plus matrix product: the Viterbi recursion; element A[N, N]
(A[i, j] the score of j -> i), state h[N]."""


def log_sum(x: jax.Array, axis: int) -> jax.Array:
    """log sum exp(x) over an axis; -inf, with derivatives 0 and not NaN, of nothing but -inf."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    shift = jnp.where(jnp.isfinite(top), top, 0)
    total = jnp.sum(jnp.exp(x - shift), axis=axis)
    nothing = total == 0
    return jnp.where(nothing, -jnp.inf, jnp.log(jnp.where(nothing, 1, total)) + shift.squeeze(axis))


def _matmul_log(A: jax.Array, B: jax.Array) -> jax.Array:
    return log_sum(A[..., :, :, None] + B[..., None, :, :], axis=-2)


forward = Monoid(
    lambda p, q: _matmul_log(q, p),
    viterbi.identity,
    lambda A, h: log_sum(A + h[None, :], axis=-1),
    "forward",
)
"""h_t = A_t (x) h_{t-1} with the matrix product of logarithms, (log sum exp, +): the forward
recursion of hidden Markov models and of CTC; element A[N, N] (A[i, j] = log p of j -> i), state
h[N]."""

total = Monoid(
    lambda p, q: jax.tree.map(jnp.add, p, q),
    lambda e: jax.tree.map(jnp.zeros_like, e),
    lambda e, h: jax.tree.map(jnp.add, h, e),
    "sum",
)
"""h_t = h_{t-1} + e_t over any pytree: sufficient statistics such as (X'X, X'Y)."""


def shift(width: int) -> Monoid:
    """The last `width` inputs, oldest first: the action of a causal window.

    Element (n, x[width, ...]): the n <= width newest inputs seen, at the end of x (the front is
    unused). State w[width, ...]. Lift one input with `shift_element`. The causal convolution of
    kernel size K reads `shift(K)`, the token shift `shift(2)`.
    """

    def push(w, n, x):
        """w moved left by n, the freed places filled with the last n of x."""
        place = jnp.arange(width, dtype=jnp.int32)
        old = jnp.take(w, jnp.minimum(place + n, width - 1), axis=0)
        return select(place + n < width, old, x)

    def combine(p, q):
        (p_n, p_x), (q_n, q_x) = p, q
        return jnp.minimum(p_n + q_n, width), push(p_x, q_n, q_x)

    return Monoid(
        combine,
        lambda e: (jnp.zeros_like(e[0]), jnp.zeros_like(e[1])),
        lambda e, w: push(w, *e),
        "shift",
        ("n", "x"),
    )


def shift_element(x: jax.Array, width: int) -> Element:
    """The element of `shift(width)` that appends one input x[...]."""
    empty = jnp.zeros((width - 1, *x.shape), x.dtype)
    return jnp.ones((), jnp.int32), jnp.concatenate([empty, x[None]])
