"""Theory: which steps compose, what long memory costs, equalities, what a state can hold."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.stacks.config import LayerConfig
from seqjax.theory import associativity
from seqjax.theory.finding import each

random = np.random.default_rng(0)
BROKEN = ("tanh(h + x)", "clip(h + x, -1, 1)", "(h + x) / 2", "1 / (h + x)")


def layer_of(name, features, **options):
    ((_, layer),) = each([LayerConfig(name, options)], features, seed=0)
    return layer


@pytest.mark.share(4)
@pytest.mark.parametrize("name", associativity.OPERATIONS)
def test_a_search_finds_what_does_not_compose_and_nothing_else(name):
    one = associativity.of_operation(associativity.OPERATIONS[name], jax.random.key(3))
    points = one.states, one.inputs[:, :3]
    found = jax.jit(partial(associativity.search, lambda at: one.claim(*at)))(points)
    assert found.largest >= found.drawn
    np.testing.assert_allclose(one.claim(*found.at), found.largest, rtol=1e-6, atol=1e-15)
    assert found.largest > 0.1 if name in BROKEN else found.largest < 1e-12


def test_a_counterexample_that_no_draw_meets_is_found_by_ascent():
    """A sum with a bump far from all that is drawn: 1e-6 there, and its slope leads to it."""

    def combine(p, q):
        return p + q + jnp.exp(-8 * jnp.sum((p - 1) ** 2 + (q + 1) ** 2))

    points = jnp.asarray(0.4 * random.uniform(-1, 1, (50, 3, 2)))
    points = points.at[:2].set(jnp.array([-1.0, 1.0])[:, None, None])  # the box is wider
    points = points.at[:2, 1].multiply(1 + 1e-9)
    residual = lambda at: associativity.associator(combine, *at)  # noqa: E731
    found = jax.jit(partial(associativity.search, residual))(points)
    assert found.drawn < 1e-2 and found.largest > 0.1
    plain = jax.jit(partial(associativity.search, lambda at: associativity.associator(
        lambda p, q: p + q, *at)))(points)  # fmt: skip
    assert plain.largest < 1e-15


def test_curvature_and_numbers_of_closed_form():
    """tanh'' = -2 tanh (1 - tanh^2); (1 / 2) h + x has one number, a h + b two, and tanh no end."""
    h = jnp.array([0.3])
    t = np.tanh([0.0, 0.3])
    expected = np.max(np.abs(2 * t * (1 - t**2)))
    found = associativity.curvature(jnp.tanh, 0 * h, h)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    off = associativity.bend(jnp.abs, -h, h)  # its second derivative is 0
    np.testing.assert_allclose(off, 0.3 / 1.3, rtol=1e-12)
    assert (
        associativity.curvature(jnp.abs, -h, h) == 0 == associativity.bend(lambda h: -h, h, 0 * h)
    )
    states = jnp.asarray(random.normal(size=(9, 1)))
    for step, width, numbers in (
        (lambda h, x: 0.5 * h + x, 1, [1, 1, 1, 1]),
        (lambda h, x: x[0] * h + x[1], 2, [2, 2, 2, 2]),
        (lambda h, x: jnp.tanh(2 * h + x), 1, [1, 2, 3, 4]),
    ):
        x = jnp.asarray(random.normal(size=(4, width)))
        assert associativity.composed(step, states, x).tolist() == numbers


@pytest.mark.share(2)
@pytest.mark.parametrize("name, affine, claim, numbers", [
    ("gru", False, "affine", [2, 4, 8, 16]),
    ("lru", True, "its monoid", [2, 4, 4, 4]),
    ("elman", False, "affine", [2, 4, 8, 16]),
    ("min_gru", True, "its monoid", [2, 4, 4, 4]),
])  # fmt: skip
def test_layers_that_compose(name, affine, claim, numbers):
    one = associativity.of_layer(layer_of(name, 2), jax.random.key(0), draws=24)
    found = jax.jit(lambda: associativity.measure(one))()
    small = found.bend < 1e-12, found.curvature < 1e-12, found.found.largest < 1e-12
    assert small == (affine,) * 3 and one.name == claim
    assert found.numbers[jnp.array([0, 1, 3, 7])].tolist() == numbers


@pytest.mark.thorough
def test_a_layer_with_a_false_monoid_is_found():
    layer = layer_of("min_gru", 2)
    right = layer.monoid
    type(layer).monoid = right.__class__(  # the earlier and the later are changed
        lambda p, q: right.combine(q, p), right.identity, right.act, right.structure
    )
    try:
        one = associativity.of_layer(layer, jax.random.key(0), draws=8)
        points = one.states, one.inputs[:, :3]
        assert associativity.search(lambda at: one.claim(*at), points).largest > 0.1
    finally:
        type(layer).monoid = right
    found = associativity.associativity([LayerConfig("elman", {})], features=2, operations=False)
    ((label, *_, claim, law),) = found.rows
    assert (label, claim, law) == ("elman", "affine", "broken")
