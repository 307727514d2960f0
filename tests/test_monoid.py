"""The laws of every algebra, plain, resettable and masked, on random elements."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from seqjax.core import monoid as m
from seqjax.core.scan import scan
from seqjax.core.smoother import DIAGONALS, MATRICES, riccati

N, G, K, V = 3, 2, 3, 2


def normal(key, *shape):
    return jax.random.normal(key, shape)


def maybe_infinite(key, *shape):
    """Exponents, some of which are -inf: legitimate in the max-plus and stabilised algebras."""
    one, two = jax.random.split(key)
    return jnp.where(jax.random.bernoulli(one, 0.2, shape), -jnp.inf, 2 * normal(two, *shape))


def complex_normal(key, *shape):
    one, two = jax.random.split(key)
    return jax.lax.complex(normal(one, *shape), normal(two, *shape))


def window(key):
    return m.shift_element(normal(key, 2), 3)


def spread(key, *shape):
    """Positive semidefinite."""
    x = normal(key, *shape)
    return x @ x.swapaxes(-1, -2)


# name -> (monoid, element from a list of keys, state from a key); each leaf has its own key
ALGEBRAS = {
    "diagonal": (m.diagonal, lambda k: (normal(k[0], N), normal(k[1], N)), lambda k: normal(k, N)),
    "diagonal complex": (
        m.diagonal,
        lambda k: (complex_normal(k[0], N), complex_normal(k[1], N)),
        lambda k: complex_normal(k, N),
    ),
    "dense": (m.dense, lambda k: (normal(k[0], N, N), normal(k[1], N)), lambda k: normal(k, N)),
    "dense matrix": (
        m.dense,
        lambda k: (normal(k[0], N, N), normal(k[1], N, V)),
        lambda k: normal(k, N, V),
    ),
    "block diagonal": (
        m.block_diagonal,
        lambda k: (normal(k[0], G, 2, 2), normal(k[1], G, 2)),
        lambda k: normal(k, G, 2),
    ),
    "scalar decay": (
        m.scalar_decay,
        lambda k: (normal(k[0]), normal(k[1], K, V)),
        lambda k: normal(k, K, V),
    ),
    "key decay": (
        m.key_decay,
        lambda k: (normal(k[0], K), normal(k[1], K, V)),
        lambda k: normal(k, K, V),
    ),
    "stabilised": (
        m.stabilised,
        lambda k: (-jnp.abs(maybe_infinite(k[0], G)), maybe_infinite(k[1], G), normal(k[2], G, V)),
        lambda k: (normal(k, G), normal(jax.random.fold_in(k, 1), G, V)),
    ),
    "maxplus": (
        m.maxplus,
        lambda k: (normal(k[0], N), maybe_infinite(k[1], N)),
        lambda k: normal(k, N),
    ),
    "forward": (m.forward, lambda k: maybe_infinite(k[0], N, N), lambda k: normal(k, N)),
    "viterbi": (m.viterbi, lambda k: maybe_infinite(k[0], N, N), lambda k: normal(k, N)),
    "sum": (
        m.total,
        lambda k: {"xx": normal(k[0], N, N), "xy": normal(k[1], N)},
        lambda k: {"xx": normal(k, N, N), "xy": normal(jax.random.fold_in(k, 1), N)},
    ),
    "riccati": (
        riccati(MATRICES),
        lambda k: (normal(k[0], N, N), spread(k[1], N, N), spread(k[2], N, 2)),
        lambda k: spread(k, N, N),
    ),
    "riccati diagonal": (
        riccati(DIAGONALS),
        lambda k: (normal(k[0], N), normal(k[1], N) ** 2, normal(k[2], N) ** 2),
        lambda k: normal(k, N) ** 2,
    ),
    "shift": (m.shift(3), lambda k: window(k[0]), lambda k: normal(k, 3, 2)),
    "product": (
        m.product(m.diagonal, m.maxplus),
        lambda k: ((normal(k[0], N), normal(k[1], N)), (normal(k[2], N), normal(k[3], N))),
        lambda k: (normal(k, N), normal(jax.random.fold_in(k, 1), N)),
    ),
}


def forms(name, key):
    """(monoid, elements of five steps, state): the algebra plain, resettable and masked."""
    algebra, draw, state = ALGEBRAS[name]
    keys = jax.random.split(key, 7)
    elements = [draw(jax.random.split(k, 4)) for k in keys[:5]]
    flags = jax.random.bernoulli(keys[5], 0.5, (5,))
    h = state(keys[6])
    initial = state(jax.random.fold_in(keys[6], 9))
    yield "plain", algebra, elements, h
    flagged = list(zip(flags, elements, strict=True))
    yield "resettable", m.resettable(algebra, initial), flagged, h
    yield "masked", m.masked(algebra), flagged, h
    # in either order they compose
    both = [(f, (~f, e)) for f, e in flagged]
    yield "resettable masked", m.resettable(m.masked(algebra), initial), both, h


def value(name, tree):
    """What a stabilised state stands for: exp(m) x; other states are themselves."""
    if name == "stabilised":
        exponent, x = tree
        return jnp.exp(exponent)[:, None] * x
    return tree


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


@pytest.mark.share(3)
@pytest.mark.parametrize("name", ALGEBRAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31 - 1))
def test_laws(name, seed):
    for form, algebra, (p, q, r, *_), h in forms(name, jax.random.key(seed)):
        del form
        act, combine, unit = algebra.act, algebra.combine, algebra.identity(p)
        see = lambda e: value(name, act(e, h))  # noqa: E731, B023
        close(see(combine(combine(p, q), r)), see(combine(p, combine(q, r))))
        close(value(name, act(combine(p, q), h)), value(name, act(q, act(p, h))))
        close(see(combine(unit, p)), see(p))
        close(see(combine(p, unit)), see(p))
        close(value(name, act(unit, h)), value(name, h))


@pytest.mark.share(8)
@pytest.mark.parametrize("name", ALGEBRAS)
def test_elements_are_associative_and_unital(name):
    """The same on the elements themselves, where no state can hide a difference."""
    for form, algebra, (p, q, r, *_), _ in forms(name, jax.random.key(1)):
        if name == "stabilised" and form == "plain":  # elements too are equal up to the gauge
            gauge = lambda e: (e[0], jnp.exp(e[1])[:, None] * e[2])  # noqa: E731
        elif name == "shift" or form != "plain" and name in ("stabilised",):
            continue  # the unused front of a window, and gauges under flags, are not compared
        else:
            gauge = lambda e: e  # noqa: E731
        c = algebra.combine
        close(gauge(c(c(p, q), r)), gauge(c(p, c(q, r))))
        unit = algebra.identity(p)
        if form == "plain":
            close(gauge(c(unit, p)), gauge(p))
            close(gauge(c(p, unit)), gauge(p))


@pytest.mark.share(2)
@pytest.mark.parametrize("name", ALGEBRAS)
def test_a_nan_does_not_cross_a_reset(name):
    """Neither in value nor in gradient, however the elements are grouped."""
    algebra, draw, state = ALGEBRAS[name]
    keys = jax.random.split(jax.random.key(2), 4)
    poison = lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else x  # noqa: E731
    bad = jax.tree.map(poison, draw(jax.random.split(keys[0], 4)))
    good = draw(jax.random.split(keys[1], 4))
    h, initial = state(keys[2]), state(keys[3])
    flags = jnp.array([False, True])

    @partial(jax.jit, static_argnums=1)
    def after(good, evaluator):
        elements = jax.tree.map(lambda a, b: jnp.stack([a, b]), bad, good)
        kind = None if evaluator == "primitive" and algebra.structure != "diagonal" else evaluator
        _, last = scan(algebra, elements, h, evaluator=kind, resets=flags, start=initial)
        return value(name, last)

    expected = value(name, algebra.act(good, initial))
    floats = [x for x in jax.tree.leaves(good) if jnp.issubdtype(x.dtype, jnp.floating)]
    for evaluator in ("sequential", "associative", "chunked", "primitive"):
        close(after(good, evaluator), expected)
        if len(floats) == len(jax.tree.leaves(good)):
            finite = lambda g, e=evaluator: sum(  # noqa: E731
                jnp.sum(jnp.where(jnp.isfinite(v), v, 0)) for v in jax.tree.leaves(after(g, e))
            )
            gradient = jax.jit(jax.grad(finite))(
                jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, -1.0), good)
            )
            assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradient))


def test_shift_is_a_window():
    x = jnp.arange(1.0, 8.0)[:, None]
    elements = jax.vmap(lambda v: m.shift_element(v, 3))(x)
    windows, _ = scan(m.shift(3), elements, jnp.zeros((3, 1)), evaluator="associative")
    expected = np.stack([np.concatenate([np.zeros(3), x[: t + 1, 0]])[-3:] for t in range(7)])
    np.testing.assert_array_equal(windows[:, :, 0], expected)


def test_stabilised_is_a_softmax_average():
    """With no decay, x = (v, 1): the state after T steps is softmax attention over them."""
    scores, v = normal(jax.random.key(0), 6) * 30, normal(jax.random.key(1), 6, 2)
    x = jnp.concatenate([v, jnp.ones((6, 1))], 1)
    elements = (jnp.zeros((6, 1)), scores[:, None], x[:, None])
    start = (jnp.full((1,), -jnp.inf), jnp.zeros((1, 3)))
    (_, x), _ = scan(m.stabilised, elements, start, evaluator="associative")
    np.testing.assert_allclose(x[-1, 0, :2] / x[-1, 0, 2], jax.nn.softmax(scores) @ v, rtol=1e-12)
