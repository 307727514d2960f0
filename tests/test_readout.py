"""Readouts are sums of statistics: streamed, batched and sharded they are the same readout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from experiments import reservoir, reservoirs
from seqjax.learn.readout import closed_loop, lms, merge, ridge_readout, rls, solve, statistics
from seqjax.nn.base import cast_parameters
from seqjax.zoo import make

rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(4, 8, 5)) + 0.5)
Y = jnp.asarray(rng.normal(size=(4, 8, 2)) - 1.0)
RIDGE = 0.3


def close(a, b, tolerance=1e-10):
    return all(
        bool(jnp.allclose(p, q, 0, tolerance)) for p, q in zip(*map(jax.tree.leaves, (a, b)))
    )


@pytest.mark.parametrize("fit_bias", [True, False])
def test_ridge_minimises_its_objective(fit_bias):
    found = ridge_readout(X, Y, RIDGE, fit_bias=fit_bias)

    def objective(readout):
        return jnp.sum((readout(X) - Y) ** 2) + RIDGE * jnp.sum(readout.W**2)

    slope = jax.grad(objective)(found)
    assert close(slope.W, jnp.zeros_like(slope.W), 1e-9)
    assert close(slope.b, jnp.zeros_like(slope.b), 1e-9) is fit_bias


def test_statistics_add_up():
    whole = statistics(X, Y)
    parts = [statistics(X[:, s], Y[:, s]) for s in (slice(0, 3), slice(3, 8))]
    assert close(merge(*parts), whole)

    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    spec = PartitionSpec("data")
    sharded = jax.shard_map(
        lambda x, y: lax.psum(statistics(x, y), "data"),
        mesh=mesh, in_specs=(spec, spec), out_specs=PartitionSpec(),
    )  # fmt: skip
    assert close(solve(jax.jit(sharded)(X, Y), RIDGE), ridge_readout(X, Y, RIDGE))

    mask = jnp.asarray(rng.random((4, 8)) < 0.6)
    poisoned = jnp.where(mask[..., None], X, jnp.nan)
    kept = statistics(X[mask], Y[mask])
    assert close(statistics(poisoned, Y, mask), kept) and kept.steps == float(mask.sum())
    assert statistics(X.astype(jnp.bfloat16), Y.astype(jnp.bfloat16)).xx.dtype == jnp.float32
    with pytest.raises(ValueError, match="go together"):
        statistics(X, Y[:, 1:])


@pytest.mark.thorough
def test_a_ridge_that_is_not_resolved_is_raised():
    """Float32 states of a reservoir, whose smallest directions are rounding; and columns twice."""
    esn = make("esn", 1, hidden=50, density=0.2, bias_scale=0.2)
    t = np.arange(900)
    x = jnp.asarray(np.sin(0.2 * t) * np.sin(0.0311 * t), jnp.float32)[None, :, None]
    states = esn(x[:, :-1])[0]
    fit, test = slice(100, 600), slice(600, None)
    errors = []
    for dtype in (jnp.float32, jnp.float64):
        X, Y = states.astype(dtype), x[:, 1:].astype(dtype)
        readout = jax.jit(ridge_readout)(X[:, fit], Y[:, fit], 1e-10)
        errors.append(float(jnp.std(readout(X[:, test]) - Y[:, test]) / jnp.std(Y)))
    assert errors[1] < errors[0] < 0.02
    readout = ridge_readout(twice := jnp.concatenate([X[0, fit]] * 2, axis=1), Y[0, fit])
    best = np.linalg.lstsq(np.c_[X[0, fit], np.ones(500)], Y[0, fit])[0]
    expected = np.c_[X[0, fit], np.ones(500)] @ best - Y[0, fit]
    np.testing.assert_allclose(jnp.std(readout(twice) - Y[0, fit]), np.std(expected), rtol=0.1)
    lost = ridge_readout(X.at[0, 200, 0].set(jnp.nan)[:, fit], Y[:, fit], 1e-10)
    assert jnp.all(jnp.isnan(lost.W))

    def slope(ridge):
        return jnp.sum(ridge_readout(X[:, fit], Y[:, fit], ridge).W ** 2)

    gap = (slope(0.1 + 1e-5) - slope(0.1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(slope)(0.1), gap, rtol=1e-6)


def stream(learner, xs, ys):
    return lax.scan(lambda state, now: learner.step(state, *now), learner.init(), (xs, ys))


def test_rls_is_ridge_at_every_step():
    xs, ys = X.reshape(-1, 5), Y.reshape(-1, 2)
    for count in (3, 32):
        state, predictions = stream(rls(5, 2, alpha=RIDGE, fit_bias=False), xs[:count], ys[:count])
        expected = ridge_readout(xs[:count], ys[:count], RIDGE, fit_bias=False)
        assert close(state.readout.W, expected.W, 1e-9)
    before = ridge_readout(xs[:31], ys[:31], RIDGE, fit_bias=False)
    assert close(predictions[31], before(xs[31]), 1e-9)  # told before the target was seen

    weight = jnp.sqrt(0.9 ** jnp.arange(31.0, -1, -1))[:, None]
    faded = ridge_readout(weight * xs, weight * ys, RIDGE * 0.9**32, fit_bias=False)
    state, _ = stream(rls(5, 2, alpha=RIDGE, forgetting=0.9, fit_bias=False), xs, ys)
    assert close(state.readout.W, faded.W, 1e-8) and not close(faded.W, before.W, 1e-2)
    # The bias alone is the mean of the targets, faded likewise.
    state, predictions = stream(rls(5, 2, forgetting=0.9), jnp.zeros_like(xs), ys)
    fade = weight**2
    assert close(state.readout.b, jnp.sum(fade * ys, axis=0) / jnp.sum(fade))
    assert close(predictions[1], ys[0])
    with pytest.raises(ValueError, match="forgetting"):
        rls(5, 2, forgetting=0.0)


def test_lms_follows_a_linear_teacher_that_moves():
    W = jnp.asarray(rng.normal(size=(5, 2)))
    xs = jnp.asarray(rng.normal(size=(4000, 5)))
    moving = jnp.where(jnp.arange(4000)[:, None] < 2000, xs @ W, 1 - xs @ W)
    state, predictions = stream(lms(5, 2, rate=0.02), xs, moving)
    assert close(state.readout.W, -W, 1e-6) and close(state.readout.b, jnp.ones(2), 1e-6)
    errors = jnp.max(jnp.abs(predictions - moving), axis=1)
    assert errors[1990] < 1e-6 and errors[2000] > 0.1


@pytest.mark.thorough
def test_closed_loop_reads_what_it_says():
    esn = make("esn", 2, hidden=12)
    x = jnp.asarray(rng.normal(size=(3, 30, 2)), jnp.float32)
    states, h = esn(x[:, :-1])
    readout = ridge_readout(states[:, 5:], x[:, 6:], 1e-2)
    first = readout(states[:, -1])
    ys, end = closed_loop(esn, readout, h, first, 4)
    said, state = first, h
    for t in range(4):
        out, state = esn(said[:, None], state)
        said = readout(out[:, 0])
        assert close(ys[:, t], said, 1e-5)
    assert close(end, state, 1e-5)


@pytest.mark.thorough
def test_the_experiment_predicts_mackey_glass_on_its_own():
    error = reservoir.run(60, reservoir.mackey_glass(3600), starts=8, ridge=1e-9)
    assert error < 0.5  # the mean of the series has 1


@pytest.mark.thorough
def test_a_grid_of_reservoirs_is_each_of_them(monkeypatch):
    """The networks of one compiled call, against those that are made with their options."""
    small = dict(WASHOUT=20, TRAIN=150, TEST=50, STEPS=220)
    small |= dict(RADII=(0.4, 0.9), LEAKS=(0.3,), SCALES=(0.2, 1.0), RIDGES=(1e-6, 1e-2))
    for name, value in small.items():
        monkeypatch.setattr(reservoirs, name, value)
    found, (x, y) = reservoirs.grid("narma"), reservoirs.drawn("narma", 1)
    options = reservoirs.OPTIONS | dict(leak=0.3, input_scale=0.2, spectral_radius=0.9)
    esn = cast_parameters(make("esn", 1, rngs=nnx.Rngs(0), **options), jnp.float64)
    states = esn(x)[0]
    readout = ridge_readout(states[:, 20:170], y[:, 20:170], 1e-2)
    expected = reservoirs.nrmse(readout(states[:, 170:]), y[:, 170:])
    np.testing.assert_allclose(found[1, 0, 0, 1], expected, rtol=1e-5)
    assert found.shape == (2, 1, 2, 2) and len(np.unique(found)) == found.size


def test_each_of_several_series_may_have_a_readout_of_its_own():
    each = jax.vmap(lambda X, Y: ridge_readout(X, Y, RIDGE))(X, Y)
    for n in range(len(X)):
        one = jax.tree.map(lambda leaf, n=n: leaf[n], each)
        assert close(one, ridge_readout(X[n], Y[n], RIDGE))
    assert not close(each.W[0], each.W[1], 0.01)
