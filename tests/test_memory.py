"""Heads of an external memory where goldens and oracles do not look: ties, nothing, far ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.layers.memory.addressing import (
    allocation,
    allocations,
    content,
    erase_and_add,
    follow,
    link,
    precedence,
    sharpen,
    shift,
    usage,
)
from seqjax.nn.base import cast_parameters
from seqjax.zoo import make

N = 5


def one_hot(*places):
    return jax.nn.one_hot(jnp.array(places), N)


def test_cells_used_alike_are_taken_by_their_place():
    for u in (0.0, 0.3, 1.0):
        equal = jnp.full(N, u)
        np.testing.assert_allclose(allocation(equal, 0.0), (1 - u) * u ** np.arange(N))
        found, slope = jax.value_and_grad(lambda u: allocation(u, 0.0)[2])(equal)
        assert np.isfinite(slope).all()
        # each cell's own: a_2 = (1 - u_2) u_0 u_1
        np.testing.assert_allclose(slope, [(1 - u) * u, (1 - u) * u, -u * u, 0, 0])
    np.testing.assert_allclose(allocation(jnp.array([1, 1, 0, 1.0, 1]), 0.0), [0, 0, 1, 0, 0])
    # the second head finds taken what the first one takes, and what is not written is free again
    a = allocations(jnp.zeros(N), jnp.array([1.0, 0.0, 0.0]), 0.0)
    np.testing.assert_allclose(a, one_hot(0, 1, 1))


def test_what_is_read_is_freed_and_what_is_written_is_used():
    u, w = jnp.array([0.5, 1, 0, 1, 0.5]), one_hot(0, 2)
    found = usage(u, w, jnp.array([1.0, 0.0]), one_hot(3, 1))
    np.testing.assert_allclose(found, [1, 1, 1, 0, 0.5])


def test_links_go_from_each_cell_to_the_one_written_after_it():
    L, p = jnp.zeros((1, N, N)), jnp.zeros((1, N))
    for place in (0, 3, 1):
        L, p = link(L, p, one_hot(place)), precedence(p, one_hot(place))
    back, forth = follow(L, one_hot(0, 3, 1))
    np.testing.assert_allclose(forth[:, 0], [*one_hot(3, 1), jnp.zeros(N)])
    np.testing.assert_allclose(back[:, 0], [jnp.zeros(N), *one_hot(0, 3)])
    L = link(L, p, one_hot(3))  # written again: what it followed is forgotten
    np.testing.assert_allclose(follow(L, one_hot(3))[0][0, 0], one_hot(1)[0])
    assert not follow(L, one_hot(0))[1].any()


def test_heads_move_around_the_circle():
    s = jnp.eye(3)
    np.testing.assert_allclose(shift(one_hot(4, 4, 4), s), one_hot(0, 4, 3))
    np.testing.assert_allclose(shift(one_hot(0, 0, 0, 0), jnp.eye(4)), one_hot(2, 1, 0, 4))


def test_all_heads_erase_before_any_of_them_adds():
    M, w, e = jnp.ones((N, 2)), one_hot(1, 1), jnp.array([[1.0, 0], [1, 0]])
    found = erase_and_add(M, w, e, jnp.array([[2.0, 0], [3, 4]]))
    np.testing.assert_allclose(found, [[1, 1], [5, 5], [1, 1], [1, 1], [1, 1]])


@pytest.mark.thorough
def test_sharpening_and_search_are_finite_at_their_ends():
    w = jnp.array([[0.2, 0.2, 0.2, 0.2, 0.2], [0.1, 0.3, 0.3, 0.2, 0.1], [0, 0, 1, 0, 0]])
    value, slopes = jax.value_and_grad(lambda w, g: sharpen(w, g)[1, 1], (0, 1))(
        w, jnp.full(3, 1e5)
    )
    np.testing.assert_allclose(value, 0.5)
    assert all(np.isfinite(slope).all() for slope in slopes)
    np.testing.assert_allclose(sharpen(w, jnp.full(3, 1e5)).sum(1), 1)
    np.testing.assert_allclose(sharpen(w, jnp.ones(3)), w)

    def found(k, M, inside):
        return content(k, jnp.array([1e4]), M, 1e-8, inside)[0, 0]

    for inside in (0.0, 1e-6):
        value, slopes = jax.value_and_grad(found, (0, 1))(
            jnp.zeros((1, 2)), jnp.zeros((N, 2)), inside
        )
        np.testing.assert_allclose(value, 1 / N)
        assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("usage_gradient", [False, True])
def test_what_is_used_is_differentiated_by_what_was_written_or_not(usage_gradient):
    options = dict(cells=3, width=2, read_heads=1, hidden=3, usage_gradient=usage_gradient)
    layer = cast_parameters(make("dnc", 2, **options), jnp.float64)
    state = layer.initial()._replace(write_weights=jnp.full((1, 3), 0.3))

    def used(w):
        return layer.use(state._replace(write_weights=w), jnp.ones(3)).usage[1]

    slope = jax.grad(used)(state.write_weights)
    np.testing.assert_allclose(slope, [[0, float(usage_gradient), 0]])


def test_heads_are_letters_and_no_shift_is_wider_than_the_memory():
    for heads in ("rr", "w", "rx", ""):
        with pytest.raises(ValueError, match="letters r and w, at least one of each"):
            make("ntm", 2, heads=heads)
    with pytest.raises(ValueError, match="shifts are at most the cells, 4, got 5"):
        make("ntm", 2, cells=4, shifts=5)
    for name in ("ntm", "dnc"):
        with pytest.raises(ValueError, match="unknown controller 'gru'"):
            make(name, 2, controller="gru")
