"""Generalised teacher forcing: exact at both ends, annealed by norms; measures in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.learn.bptt import bptt
from seqjax.learn.cell import Cell, as_cell
from seqjax.learn.gtf import annealed, gtf
from seqjax.learn.learner import squared_error
from seqjax.learn.reconstruction import power_spectrum_error, state_space_divergence
from seqjax.nn.base import cast_parameters
from seqjax.testing import distance
from seqjax.zoo import make

T, N = 6, 4


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


XS = jnp.zeros((T, 3))


def plrnn(form):
    """A PLRNN on its own: what it would be forced with is left to the learner."""
    layer = make("plrnn", 3, hidden=N, form=form, width=6, forcing=0.0, rngs=nnx.Rngs(0))
    cell, params = as_cell(cast_parameters(layer, jnp.float64))
    read = cell._replace(readout=lambda p, z, x: z[:3])
    return read, jax.tree.map(lambda p: p + 0.2 * drawn(1, *p.shape), params)


START, YS = drawn(2, 3), drawn(3, T, 3)


def by_hand(cell, params, alpha, ys=YS, observed=3):
    """The loss in a loop over steps."""
    z, y, total = cell.start(params), START[:observed], 0.0
    for x, target in zip(XS, ys, strict=True):
        mixed = (1 - alpha) * z[:observed] + alpha * y
        z = cell.step(params, jnp.concatenate([mixed, z[observed:]]), x)
        total, y = total + squared_error(cell.readout(params, z, x), target), target
    return total


def learned(learner, params, ys=YS):
    return jax.jit(learner.grad)(params, learner.init(params), XS, ys)


@pytest.mark.parametrize("form", ["clipped_shallow", "vanilla"])
@pytest.mark.share(1)
def test_it_is_exact_at_both_ends_and_between(form):
    cell, params = plrnn(form)
    for alpha in (0.0, 0.3, 1.0):
        loss, grads, state = learned(gtf(cell, squared_error, START, alpha=alpha), params)
        expected = jax.jit(jax.value_and_grad(lambda p, a=alpha: by_hand(cell, p, a)))(params)
        assert abs(loss - expected[0]) < 1e-12 and distance(grads, expected[1]) < 1e-12
        assert state.alpha == alpha and distance(state.previous, YS[-1]) == 0
        if alpha == 0.0:
            free = bptt(cell, squared_error)
            assert distance(grads, learned(free, params)[1]) < 1e-12


def test_all_units_forced_wholly_no_step_sees_another():
    cell, params = plrnn("clipped_shallow")
    whole = cell._replace(readout=lambda p, z, x: z)
    start, ys = drawn(4, N), drawn(5, T, N)
    _, grads, _ = learned(gtf(whole, squared_error, start, alpha=1.0), params, ys)

    def apart(params):
        before = jnp.concatenate([start[None], ys[:-1]])
        step = jax.vmap(lambda y, x: whole.step(params, y, x))
        return squared_error(step(before, XS), ys)

    assert distance(grads, jax.grad(apart)(params)) < 1e-12


@pytest.mark.thorough
def test_windows_go_on_where_they_were():
    cell, params = plrnn("clipped_shallow")
    learner = gtf(cell, squared_error, START, alpha=1.0)
    state, total = learner.init(params), 0.0
    for cut in (slice(0, 2), slice(2, T)):
        loss, _, state = learner.grad(params, state, XS[cut], YS[cut])
        total += loss
    assert abs(total - by_hand(cell, params, 1.0)) < 1e-12


def test_alpha_follows_the_norm_of_the_jacobian():
    """A linear cell: sigma is the norm of its matrix, whichever estimate."""
    A = drawn(6, N, N)
    A = 2.5 * A / jnp.linalg.norm(A, 2)
    cell = Cell(lambda p: jnp.zeros(N), lambda p, h, x: p @ h, lambda p, h, x: h[:3])
    for estimate in ("mean", "product"):
        learner = gtf(cell, squared_error, START, gamma=0.75, estimate=estimate)
        _, _, state = learned(learner, A)
        assert abs(state.alpha - (0.75 + 0.25 * (1 - 1 / 2.5))) < 1e-12  # down slowly
        _, _, state = learner.grad(A, state._replace(alpha=jnp.array(0.2)), XS, YS)
        assert abs(state.alpha - (1 - 1 / 2.5)) < 1e-12  # up at once
    assert annealed(jnp.array(0.0), jnp.array(0.5), 0.9) == 0  # a contraction needs none
    # of Jacobians that cancel: their mean is zero, their norms are not
    turning = Cell(lambda p: jnp.zeros(1), lambda p, h, x: p * x * h, lambda p, h, x: h)
    xs, ys = jnp.array([2.0, -2.0])[:, None], jnp.zeros((2, 1))
    for estimate, alpha in (("mean", 0.0), ("product", 0.5)):
        learner = gtf(turning, squared_error, jnp.ones(1), gamma=0.0, estimate=estimate)
        one = jnp.ones(())
        _, _, state = learner.grad(one, learner.init(one), xs, ys)
        assert abs(state.alpha - alpha) < 1e-12


def test_what_is_wrong_is_named():
    cell, _ = plrnn("vanilla")
    gru, params = as_cell(make("lstm", 3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="alpha must be in"):
        gtf(cell, squared_error, START, alpha=1.5)
    with pytest.raises(ValueError, match="gamma must be in"):
        gtf(cell, squared_error, START, gamma=-1.0)
    with pytest.raises(ValueError, match="estimate of gtf"):
        gtf(cell, squared_error, START, estimate="max")
    with pytest.raises(ValueError, match="a state that is one vector"):
        gtf(gru, squared_error, START).init(params)


# ---- measures -----------------------------------------------------------------------------------


def test_the_divergence_of_visits_in_closed_form():
    x = np.array([[0.0], [1.0]] * 50)
    y = np.array([[0.0]] * 25 + [[1.0]] * 75)
    found = state_space_divergence(x, y, bins=2, smoothing=1e-12)
    assert found == pytest.approx(0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75), abs=1e-9)
    walk = np.random.default_rng(0).normal(size=(500, 3)).cumsum(axis=0)
    assert state_space_divergence(walk, walk) == 0
    assert state_space_divergence(walk, walk[::-1]) == 0  # time does not enter
    near, far = (state_space_divergence(walk, walk + d * walk.std()) for d in (0.05, 0.5))
    assert 0 < near < far
    assert state_space_divergence(walk, np.full((5, 3), np.nan)) == np.inf
    assert state_space_divergence(walk, walk + 1e6) == np.inf


def test_the_spectrum_error_in_closed_form():
    t = 2 * np.pi * np.arange(64) / 64
    one, other = np.sin(3 * t)[:, None], np.cos(7 * t)[:, None]
    assert power_spectrum_error(one, one) < 1e-7  # a root of rounding
    assert power_spectrum_error(one, np.roll(5 * one, 9, axis=0)) < 1e-7  # nor phase, nor size
    assert power_spectrum_error(one, other) == pytest.approx(1, abs=1e-7)
    both = power_spectrum_error(one, one + other)
    assert both == pytest.approx(np.sqrt(1 - np.sqrt(0.5)), abs=1e-7)
    assert power_spectrum_error(one, np.zeros_like(one)) == 1
    assert power_spectrum_error(one, one * np.nan) == 1
    smooth = power_spectrum_error(one, np.sin(4 * t)[:, None], smoothing=2.0)
    assert 0 < smooth < 0.5  # neighbours are alike, once smoothed
    with pytest.raises(ValueError, match="of one length"):
        power_spectrum_error(one, one[1:])
    with pytest.raises(ValueError, match="two series"):
        state_space_divergence(one, np.zeros((5, 2)))
