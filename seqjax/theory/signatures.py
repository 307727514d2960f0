"""Signatures: what any linear recurrence driven by a path sees of it.

    S^{i_1 .. i_k} = int_{s_1 < .. < s_k} dx^{i_1}_{s_1} .. dx^{i_k}_{s_k}      iterated integrals
    S(X then Y) = S(X) (x) S(Y)                                              Chen's identity
    S(one straight piece) = exp(dx) = (1, dx, dx (x) dx / 2!, ..)

Chen's identity is a monoid, the tensor algebra cut off at a depth, and the signature of a path of
straight pieces is a scan over it, exact and by any evaluator. A selective recurrence is a linear
controlled differential equation (arXiv:2402.19047, sec. 3 and 4),

    dh = sum_i A_i h dx^i,   h_T = sum_w S^w A_{w_k} .. A_{w_1} h_0

so that its state is a linear function of the signature of its inputs, the same for all paths. What
words longer than M add is at most sum_{k > M} L^k / k!, with L the sum of |A(dx)| over the pieces,
times |h_0|: it vanishes as 1 / M!, and at once where products of M + 1 matrices are 0.

A layer over the `diagonal` monoid is one already, for each unit by itself,

    dh = h d omega + d xi,   h_T = sum_k S^{xi omega .. omega}

with omega the sum of log a_t and pieces of xi that solve to b_t = d xi (a_t - 1) / log a_t.
Functions of words are a ring, too: S^u S^v is the sum over all shuffles of u and v.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import expm
from jax.scipy.special import gammainc

from seqjax.core.flow import Flow
from seqjax.core.monoid import Monoid, diagonal as affine
from seqjax.core.ranges import Count, Seed
from seqjax.core.scan import scan
from seqjax.nn.base import Layer
from seqjax.nn.recurrent import Associative
from seqjax.stacks.config import LayerConfig
from seqjax.theory.finding import Finding, Layers, each

Levels = tuple[Array, ...]  # of the words of 1, 2 .. letters: [D], [D, D], ..
Word = tuple[int, ...]
SELECTIVE = (
    *map(LayerConfig, ("min_gru", "min_lstm", "rg_lru")),
    LayerConfig("lru", dict(r_min=0.9, max_phase=0.6)),
)


def _outer(one: Array, other: Array) -> Array:
    return jnp.tensordot(one, other, axes=0)


def _product(p: Levels, q: Levels, unit: float = 1.0) -> Levels:
    """(unit + p) (x) (unit + q) - unit, cut off at their depth."""
    depth = len(p)
    return tuple(
        unit * (p[k] + q[k]) + sum((_outer(p[i], q[k - 1 - i]) for i in range(k)), 0.0 * p[k])
        for k in range(depth)
    )


tensor_algebra = Monoid(
    _product,
    lambda e: tuple(jnp.zeros_like(level) for level in e),
    lambda e, h: _product(h, e),
)
"""Elements and states 1 + levels, whose words have 1 letter, 2, .. as many as there are levels."""


def exponential(dx: Array, depth: int) -> Levels:
    """The signature of a straight piece dx [D]."""
    levels = [dx]
    for k in range(2, depth + 1):
        levels.append(_outer(levels[-1], dx) / k)
    return tuple(levels)


def signature(x: Array, depth: int, *, evaluator: str | None = None) -> Levels:
    """Of the path of straight pieces through the points x [T, D]."""
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x must be [T, D] with T at least 2, got {list(x.shape)}")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    pieces = jax.vmap(partial(exponential, depth=depth))(jnp.diff(x, axis=0))
    nothing = tuple(jnp.zeros_like(level[0]) for level in pieces)
    return scan(tensor_algebra, pieces, nothing, evaluator=evaluator)[1]


def logarithm(S: Levels) -> Levels:
    """log(1 + S) = S - S^2 / 2 + S^3 / 3 - .. of the tensor algebra."""
    total, power = S, S
    for n in range(2, len(S) + 1):
        power = _product(power, S, unit=0.0)
        total = tuple(t - (-1) ** n * p / n for t, p in zip(total, power, strict=True))
    return total


def lyndon_words(letters: int, depth: int) -> list[Word]:
    """Words that are smaller than all of their other rotations, by length and then by letters."""
    every = (w for k in range(1, depth + 1) for w in product(range(letters), repeat=k))
    return [w for w in every if all(w < w[n:] + w[:n] for n in range(1, len(w)))]


def flat(S: Levels) -> Array:
    """All coefficients, by length of the words and then by letters."""
    return jnp.concatenate([level.reshape(-1) for level in S])


def at(S: Levels, word: Word) -> Array:
    """The coefficient of a word; 1 of the one without letters."""
    return S[len(word) - 1][word] if word else jnp.ones((), S[0].dtype)


def shuffles(u: Word, v: Word) -> list[Word]:
    """All words of the letters of both, each in its order, as often as they arise."""
    if not u or not v:
        return [u + v]
    return [u[:1] + w for w in shuffles(u[1:], v)] + [v[:1] + w for w in shuffles(u, v[1:])]


def controlled(A: Array, x: Array, h: Array) -> Array:
    """h_T [N] of dh = sum_i A_i h dx^i from h, A [D, N, N], along the pieces of x [T, D]: exact."""

    def body(h: Array, dx: Array) -> tuple[Array, None]:
        return expm(jnp.tensordot(dx, A, axes=1)) @ h, None

    return jax.lax.scan(body, h, jnp.diff(x, axis=0))[0]


def by_words(A: Array, S: Levels, h: Array) -> Array:
    """h_T [M + 1, N] of words of at most 0, 1 .. M letters."""
    terms, moved = [h], h
    for level in S:
        moved = jnp.einsum("inm,...m->...in", A, moved)  # A_{w_k} .. A_{w_1} h of all words
        terms.append(jnp.tensordot(level, moved, axes=level.ndim))
    return jnp.cumsum(jnp.stack(terms), axis=0)


def remainder(length: Any, depth: Any) -> Array:
    """sum_{k > M} L^k / k!: what longer words may add, of |h_0| = 1."""
    length = jnp.asarray(length, float)
    return jnp.exp(length) * gammainc(jnp.asarray(depth, float) + 1, length)


def path_of(layer: Layer, x: Array) -> tuple[Array, Array]:
    """The path [units, T + 1, 2] of (omega, xi) of each unit on x [T, features], and h_T [units].

    Raises ValueError for a layer that is no recurrence over the `diagonal` monoid.
    """
    if not isinstance(layer, Associative) or layer.monoid is not affine:
        raise ValueError(f"{type(layer).__name__} is no Associative layer over the diagonal monoid")
    a, b = jax.vmap(layer.lift)(layer.driven(x, Flow()))
    log_a = jnp.log(a)
    # (a - 1) / log a, which is 1 at a = 1
    small = jnp.abs(log_a) < 1e-6
    safe = jnp.where(small, 1, log_a)
    held = jnp.where(small, 1 + log_a / 2, jnp.expm1(safe) / safe)
    pieces = jnp.stack(jnp.broadcast_arrays(log_a, b / held), axis=-1)
    path = jnp.cumsum(jnp.concatenate([jnp.zeros_like(pieces[:1]), pieces]), axis=0)
    _, last = scan(affine, (jnp.broadcast_to(a, b.shape), b), jnp.zeros_like(b[0]))
    return jnp.moveaxis(path, 1, 0), last


def read(S: Levels) -> Array:
    """h_T [M] of the words xi, xi omega, xi omega omega ..: of 1 .. M letters."""
    return jnp.cumsum(jnp.stack([at(S, (1, *(0,) * k)) for k in range(len(S))]))


def signatures(
    layer: Layers = SELECTIVE,
    *,
    features: Count = 4,
    steps: Count = 4,
    depth: Count = 12,
    seed: Seed = 0,
) -> Finding:
    """The states of layers as linear functions of a signature: the error that is left when words
    are cut off at a length. In float64.

    Args:
        layer: layers over the diagonal monoid, each by itself, with their options
        features: of the layers
        steps: of the inputs, which are normal
        depth: the longest words, of which there are 2 to that power
        seed: of weights and inputs
    """
    if depth > 16:
        raise ValueError(f"depth must be at most 16, for 2^16 words, got {depth}")
    rows, curves = [], {}
    shown = sorted({1, depth // 3 or 1, 2 * depth // 3 or 1, depth})
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(seed), (steps, features))
        for label, one in each(layer, features, seed):

            def errors(x: Array, one: Layer = one) -> tuple[Array, Array]:
                path, last = path_of(one, x)
                found = jax.vmap(lambda path: read(signature(path, depth)))(path)
                length = jnp.sum(jnp.abs(jnp.diff(path[..., 0], axis=1)), axis=1)
                off = jnp.abs(found - last[:, None])
                return jnp.max(off, axis=0) / jnp.max(jnp.abs(last)), jnp.max(length)

            off, length = jax.jit(errors)(x)
            rows.append(
                (label, f"{float(length):.2f}", *(f"{float(off[n - 1]):.1e}" for n in shown))
            )
            curves[label] = (range(1, depth + 1), off)
    columns = ("layer", "sum |log a|", *(f"{n} letter{'s' * (n > 1)}" for n in shown))
    title = f"h_{steps} from words of a signature: largest error over largest state"
    return Finding(title, columns, rows, "letters of the longest words", "error", curves,
                   scale=("linear", "log"))  # fmt: skip
