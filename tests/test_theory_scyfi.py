"""Fixed points and cycles of PLRNNs: all those that a search of every region finds."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn.base import cast_parameters
from seqjax.theory.scyfi import Piecewise, bifurcations, cycle, cycles, piecewise, scyfi
from seqjax.zoo import make

FORMS = ("vanilla", "dendritic", "clipped", "shallow", "clipped_shallow")


def drawn(seed, N, spread=1.5):
    """A vanilla PLRNN that has something to find."""
    draw = np.random.default_rng(seed)
    A, W = draw.uniform(-0.9, 0.9, N), spread * draw.normal(size=(N, N))
    np.fill_diagonal(W, 0)
    return Piecewise(A, W, np.eye(N), np.zeros(N), draw.normal(size=N))


def by_force(of, order):
    """Sets of points of every cycle, by all 2^(m k) choices of regions; no shared code."""
    A, U, V, c, h = (np.asarray(v) for v in of)
    found = set()
    for k in range(1, order + 1):
        for D in product(product((0.0, 1.0), repeat=len(c)), repeat=k):
            # the k points at once: z_{j+1} = W_j z_j + h_j, and z_1 follows z_k
            N = len(h)
            left, right = np.eye(N * k), np.zeros(N * k)
            for j in range(k):
                after = slice((j + 1) % k * N, (j + 1) % k * N + N)
                on = np.diag(D[j])
                left[after, j * N : j * N + N] -= np.diag(A) + U @ on @ V
                right[after] += U @ on @ c + h
            if abs(np.linalg.det(left)) < 1e-12:
                continue
            z = np.linalg.solve(left, right).reshape(k, N)
            if not ((z @ V.T + c > 0) == np.array(D, bool)).all():
                continue
            points = sorted(tuple(np.round(p, 7) + 0.0) for p in z)
            if len(set(points)) == k:
                found.add(tuple(points))
    return found


def as_sets(found):
    return {tuple(sorted(tuple(np.round(p, 7) + 0.0) for p in one.points)) for one in found}


@pytest.mark.parametrize(
    "N, order",
    [
        (3, 2),
        (5, 1),
        *(pytest.param(*c, marks=pytest.mark.thorough) for c in ((2, 4), (3, 3), (5, 2), (8, 1))),
    ],
)
def test_it_finds_what_brute_force_finds(N, order):
    total = 0
    for seed in range(4):
        of = drawn(seed, N, 2.4 / N**0.5)
        found, every = cycles(of, order, outer=100), by_force(of, order)
        assert as_sets(found) == every and len(found) == len(every)
        total += len(every)
    assert total  # there was something to find


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("centred", [False, True])
def test_the_map_is_the_layers_step(form, centred):
    layer = make("plrnn", 2, hidden=3, form=form, width=4, centred=centred, rngs=nnx.Rngs(0))
    layer = cast_parameters(layer, jnp.float64)
    of = piecewise(layer)
    for seed in range(5):
        z = 2 * jax.random.normal(jax.random.key(seed), (3,))
        np.testing.assert_allclose(of.step(z), layer.step(z, jnp.zeros(3)), atol=1e-13)
    for one in cycles(of, 2, outer=20):  # and what is found is a cycle of the layer
        z = jnp.asarray(one.points[0])
        for _ in one.points:
            z = layer.step(z, jnp.zeros(3))
        np.testing.assert_allclose(z, one.points[0], atol=1e-9)


def test_stability_is_what_trajectories_do():
    seen = set()
    for seed in range(12):
        of = drawn(seed, 3)
        for one in cycles(of, 2, outer=20):
            k = len(one.points)
            push = 1e-7 * np.random.default_rng(1).normal(size=3)
            z = jnp.asarray(one.points[0] + push)
            step, off = jax.jit(of.step), []
            for n in range(1, 30 * k + 1):
                z = step(z)
                off.append(float(jnp.linalg.norm(z - one.points[n % k])))
            if abs(abs(one.eigenvalues[0]) - 1) > 0.3:
                grew = max(off[-k:]) > float(np.linalg.norm(push))
                assert grew is not one.stable
                seen.add(one.stable)
    assert seen == {True, False}


def test_a_tent_bends_where_theory_has_it():
    """z' = mu - 2 |z| in one unit: no fixed point below mu = 0, then two, and a cycle of two."""

    def of(mu):
        one = np.ones(1)
        return Piecewise(2 * one, np.full((1, 1), -4.0), np.ones((1, 1)), 0 * one, mu * one)

    for mu, found in bifurcations(of, (-1.0, 0.5, 1.0), 2):
        if mu < 0:
            assert not found
            continue
        first, second, two = found
        np.testing.assert_allclose([first.points[0, 0], second.points[0, 0]], [-mu, mu / 3])
        # z_1 = mu + 2 z_2 on the left of 0, z_2 = mu - 2 z_1: -mu/5 and 3 mu/5
        np.testing.assert_allclose(two.points[:, 0], [-mu / 5, 3 * mu / 5])
        assert not any(one.stable for one in found)
        np.testing.assert_allclose([one.eigenvalues[0] for one in found], [2, -2, -4])


@pytest.mark.thorough
def test_a_bounded_map_has_a_fixed_point():
    """Clipped forms with |A| < 1 map a ball into itself (Brouwer): one is found at any gain."""
    of = Piecewise(*(np.asarray(v) for v in piecewise(make("plrnn", 2, width=8, rngs=nnx.Rngs(1)))))
    for gain in np.linspace(1, 8, 30):
        assert cycles(of._replace(U=gain * of.U), 1, outer=50)


def wide(found):
    return [one for one in found if len(one.points) > 1]


def test_points_are_differentiable_in_the_weights():
    of = next(of for of in (drawn(seed, 3) for seed in range(20)) if wide(cycles(of, 2, outer=20)))
    of = Piecewise(*map(jnp.asarray, of))
    one = wide(cycles(of, 2, outer=20))[0]
    np.testing.assert_allclose(cycle(of, one.regions), one.points, atol=1e-9)

    def first(h):
        return cycle(of._replace(h=h), one.regions)[0]

    slope, eps = jax.jacobian(first)(of.h), 1e-6
    for n in range(3):
        moved = [cycles(of._replace(h=of.h.at[n].add(s)), 2, outer=20) for s in (eps, -eps)]
        near = [min((c.points for c in wide(m)), key=lambda p: abs(p - one.points).max())
                for m in moved]  # fmt: skip
        np.testing.assert_allclose((near[0][0] - near[1][0]) / (2 * eps), slope[:, n], atol=1e-6)


def test_the_question_and_what_it_refuses():
    found = scyfi(features=2, order=2, points=3, outer=10)
    assert found.rows and all(len(row) == len(found.columns) for row in found.rows)
    assert {row[1] for row in found.rows} <= {"1", "8"}
    drawn = sum(np.isfinite(y).sum() for _, y in found.curves.values()) // 2
    assert drawn >= 3 and all(len(x) == len(y) for x, y in found.curves.values())
    for options, wrong in ((dict(clip=1.0), "clip=None"), (dict(forcing=0.5), "without forcing")):
        with pytest.raises(ValueError, match=wrong):
            piecewise(make("plrnn", 2, rngs=nnx.Rngs(0), **options))
    with pytest.raises(ValueError, match="takes plrnn"):
        piecewise(make("gru", 2, rngs=nnx.Rngs(0)))
