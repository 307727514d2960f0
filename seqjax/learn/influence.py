"""The influence matrix M_t = dh_t / dtheta of a cell, and only the part of it that is kept.

    M_t = J_t M_{t-1} + I_t        J_t = dh_t/dh_{t-1},  I_t = dstep/dtheta

M has a row per unit of the state (real numbers; a complex one is two) and a column per parameter:
n P numbers. But most recurrences leave most of it zero: a parameter of an element-wise recurrence
moves one unit, ever. So a `Pattern` lists for each parameter the units that are kept: those that it
reaches within `steps` steps, or ever. What is found ever is exact; what is kept of fewer steps is
SnAp-n. The pattern is found by looking at the derivatives of the cell at random points, and
products with a vector give the whole of J and I, with one product for all units (columns) that
share no parameter (row): one for an element-wise recurrence, n for a dense one.

Per step, with s units kept per parameter and c products: time O(c cost(step) + P s^2), memory P s.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from seqjax.core.monoid import block_diagonal, dense, diagonal
from seqjax.core.scan import scan
from seqjax.learn.cell import Cell, Params, State

PROBES = 64  # random points at which a derivative must be zero to be taken for zero


class Pattern(NamedTuple):
    """Which entries of M are kept, and how J and I are read off a few products."""

    units: np.ndarray  # int [P, s]: units kept per parameter; n where there is no further one
    kept: np.ndarray | None  # bool [P, n], where most are: M is then stored whole, [P, n]
    direct: np.ndarray  # bool [P, s]: those that the parameter moves in one step
    jacobian: np.ndarray  # bool [n + 1, n + 1]: where J is not zero; unit n is none
    rows: np.ndarray  # int [n]: which product with I holds a unit's row
    columns: np.ndarray  # int [n]: which product with J holds a unit's column

    @property
    def products(self) -> int:
        """Derivative products per step."""
        return int(self.rows.max(initial=-1) + self.columns.max(initial=-1) + 2)


class Influence(NamedTuple):
    """M of one cell, [P, s]: its start, its step and its product with a credit."""

    cell: Cell
    pattern: Pattern
    diagonal: bool  # J is taken for its diagonal

    def init(self, params: Params) -> Array:
        """M_0 = dh_0/dtheta: what a learned initial state owes to the parameters."""
        theta, unravel = ravel_pytree(params)
        start, pull = jax.vjp(lambda theta: to_vector(self.cell.start(unravel(theta))), theta)
        return self._read(jax.vmap(pull)(_seeds(self.pattern.rows, start))[0])

    def push(self, params: Params, h: State, x: Any, M: Array) -> Array:
        """M_t, from M_{t-1} and the state h_{t-1} before the step."""
        if not M.size:  # a cell without a state
            return M
        J, I = self._linear(params, h, x)
        return self._carried(J, M) + I

    def along(self, params: Params, hs: State, xs: Any, M: Array) -> tuple[Array, Array]:
        """M before every step and after the last, as one scan over the steps of hs, xs [T, ...].

        Parallel in time; holds T matrices J as far as they are kept.
        """
        if not M.size:
            return jnp.zeros((len(jax.tree.leaves(xs)[0]), *M.shape), M.dtype), M
        J, I = jax.vmap(lambda h, x: self._linear(params, h, x))(hs, xs)
        kept, elements = self.pattern.kept, jax.vmap(self._matrix)(J)
        if kept is not None:
            Ms, last = scan(dense, (elements, jnp.swapaxes(I, 1, 2)), M.T)
            Ms, last = jnp.swapaxes(Ms, 1, 2), last.T
        elif M.shape[1] == 1:
            Ms, last = scan(diagonal, (elements[:, :, :, 0], I), M)
        else:
            Ms, last = scan(block_diagonal, (elements, I), M)
        return jnp.concatenate([M[None], Ms[:-1]]), last

    def _linear(self, params: Params, h: State, x: Any) -> tuple[Array, Array]:
        """J as sums [c, n] of columns that share no row, and what is kept of I, [P, s]."""
        theta, unravel = ravel_pytree(params)
        v = to_vector(h)

        def step(theta, v):
            return to_vector(self.cell.step(unravel(theta), from_vector(h, v), x))

        _, pull = jax.vjp(lambda theta: step(theta, v), theta)
        immediate = self._read(jax.vmap(pull)(_seeds(self.pattern.rows, v))[0])
        _, forward = jax.linearize(lambda v: step(theta, v), v)
        return jax.vmap(forward)(_seeds(self.pattern.columns, v)), immediate

    def pull(self, credit: Array, M: Array) -> Array:
        """credit [n] times M: a gradient [P]."""
        if self.pattern.kept is not None:
            return M @ credit
        return jnp.sum(jnp.append(credit.astype(M.dtype), 0)[self.pattern.units] * M, axis=1)

    def _carried(self, J: Array, M: Array) -> Array:
        """What is kept of J M."""
        kept = self.pattern.kept
        if kept is not None:
            matrix = self._matrix(J)
            return jnp.where(
                kept, M * jnp.diagonal(matrix)[None] if self.diagonal else M @ matrix.T, 0
            )
        units = jnp.asarray(self.pattern.units)
        if self.diagonal:
            return self._entries(J, units, units) * M

        def add(j, total):
            return total + self._entries(J, units[:, j][:, None], units) * M[:, j][:, None]

        return lax.fori_loop(0, units.shape[1], add, jnp.zeros_like(M))

    def _matrix(self, J: Array) -> Array:
        """J [n, n], or where little of M is kept J among those units, [P, s, s]."""
        if self.pattern.kept is not None:
            every = jnp.arange(J.shape[1], dtype=jnp.int32)
            return self._entries(J, every[None], every[:, None])
        units = jnp.asarray(self.pattern.units)
        return self._entries(J, units[:, None], units[:, :, None])

    def _entries(self, J: Array, columns: Array, rows: Array) -> Array:
        """J[rows, columns] from its sums of columns; zero where there is no such unit."""
        which = jnp.append(jnp.asarray(self.pattern.columns), 0)
        found = jnp.pad(J, ((0, 0), (0, 1)))[which[columns], rows]
        return jnp.where(jnp.asarray(self.pattern.jacobian)[rows, columns], found, 0)

    def _read(self, products: Array) -> Array:
        """The kept entries of I, from its sums [c, P] of rows that share no column."""
        units, rows = self.pattern.units, np.append(self.pattern.rows, 0)
        found = products[rows[units], np.arange(len(units))[:, None]]
        return jnp.where(self.pattern.direct, found, 0)


def influence(
    cell: Cell,
    params: Params,
    xs: Any,
    *,
    steps: int | None = None,
    diagonal: bool = False,
    absent: Any = None,
) -> Influence:
    """The influence of `params` in `cell`.

    params: their shapes.
    xs: inputs [N, ...] like those to come; where they are integers, one of each that matters.
    steps: what a parameter reaches within so many steps is kept (SnAp-n); None: all that it ever
        reaches, which is exact.
    diagonal: take J for its diagonal.
    absent: like params, bool: entries that are not there (the zeros of a sparse network).
    Raises ValueError if steps < 1.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"SnAp-n needs n >= 1, got {steps}")
    immediate, jacobian = _structure(cell, params, xs, absent)
    n = len(jacobian)
    kept, reach = immediate, (jacobian | np.eye(n, dtype=bool)).astype(np.float32)
    for _ in range(0 if diagonal else n if steps is None else steps - 1):
        further = reach @ kept > 0
        if (further == kept).all():
            break
        kept = further
    size = int(kept.sum(axis=0).max(initial=0))
    whole = size > n // 2
    if whole:
        units = np.broadcast_to(np.arange(n), kept.T.shape)
    else:
        order = np.argsort(~kept, axis=0, kind="stable")[:size].T
        units = np.where(np.take_along_axis(kept.T, order, axis=1), order, n)
    direct = np.take_along_axis(np.pad(kept & immediate, ((0, 1), (0, 0))).T, units, axis=1)
    pattern = Pattern(
        units,
        kept.T if whole else None,
        direct,
        np.pad(jacobian, ((0, 1), (0, 1))),
        _colours(immediate),
        _colours(jacobian.T),
    )
    return Influence(cell, pattern, diagonal)


def to_vector(tree: Any) -> Array:
    """The floating leaves of a tree as one real vector; integer ones are left out."""
    return ravel_pytree([_real(leaf) for leaf in jax.tree.leaves(tree) if _moves(leaf)])[0]


def from_vector(like: Any, v: Array) -> Any:
    """`like` with its floating leaves taken from v."""
    leaves, tree = jax.tree.flatten(like)
    back = ravel_pytree([_real(leaf) for leaf in leaves if _moves(leaf)])[1]
    new = iter(back(v))

    def leaf(old):
        if not _moves(old):
            return old
        part = next(new)
        return lax.complex(part[0], part[1]) if jnp.iscomplexobj(old) else part

    return jax.tree.unflatten(tree, [leaf(old) for old in leaves])


def _structure(cell: Cell, params: Params, xs: Any, absent: Any) -> tuple[Any, Any]:
    """Where the derivatives of a step are ever not zero: I [n, P] and J [n, n], bool.

    Of params and floating inputs only the shapes matter, so that they may be tracers.
    """
    with jax.ensure_compile_time_eval():
        params = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.result_type(p)), params)
        theta, unravel = ravel_pytree(params)
        gone = np.zeros(theta.shape, bool)
        if absent is not None:
            gone = np.asarray(ravel_pytree(absent)[0])
        shapes = jax.eval_shape(cell.start, params)
        like = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        v = to_vector(like)

        def start(theta):
            return to_vector(cell.start(unravel(theta)))

        def probe(found, now):
            key, x = now
            keys = jax.random.split(key, 3)
            point = jnp.where(gone, 0, 0.5 * jax.random.normal(keys[0], theta.shape, theta.dtype))
            state = 0.5 * jax.random.normal(keys[1], v.shape, v.dtype)
            seen = to_vector(x)
            x = from_vector(x, jax.random.normal(keys[2], seen.shape, seen.dtype))
            # the integers of a state are those after an input: at the start they may close a gate
            h = cell.step(unravel(point), from_vector(like, state), x)

            def step(theta, v):
                return to_vector(cell.step(unravel(theta), from_vector(h, v), x))

            I, J = jax.jacrev(step, argnums=(0, 1))(point, state)
            I = (I != 0) | (jax.jacrev(start)(point) != 0)
            return (found[0] | I, found[1] | (J != 0)), None

        count = max(PROBES, len(jax.tree.leaves(xs)[0]))
        keys = jax.random.split(jax.random.key(0), count)
        none = jnp.zeros((len(v), len(theta)), bool), jnp.zeros((len(v), len(v)), bool)
        samples = jax.tree.map(lambda x: _samples(x, count), xs)
        (I, J), _ = jax.jit(lambda *now: lax.scan(probe, none, now))(keys, samples)
        return np.asarray(I) & ~gone[None], np.asarray(J)


def _colours(rows: np.ndarray) -> np.ndarray:
    """A number per row so that rows with the same number share no column: first fit."""
    colours, taken = np.zeros(len(rows), int), []
    for i, row in enumerate(rows):
        free = (c for c, used in enumerate(taken) if not (used & row).any())
        colours[i] = next(free, len(taken))
        if colours[i] == len(taken):
            taken.append(row.copy())
        else:
            taken[colours[i]] |= row
    return colours


def _seeds(colours: np.ndarray, like: Array) -> Array:
    """The indicator of each colour [c, n]."""
    return jnp.asarray(np.arange(colours.max(initial=-1) + 1)[:, None] == colours, like.dtype)


def _samples(x: Any, count: int) -> Array:
    """`count` inputs: of floating ones the shape, integer ones one after the other."""
    if _moves(x):
        return jnp.zeros((count, *x.shape[1:]), x.dtype)
    return jnp.asarray(x)[np.arange(count) % len(x)]


def _moves(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _real(leaf: Any) -> Array:
    return jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else jnp.asarray(leaf)
