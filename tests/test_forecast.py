"""Demand, as its law has it, and forecasts by sampling: paths, and how what comes lies in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_tasks import BATCH, built, draw

from seqjax.answers import metrics
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks.synthetic import demand
from seqjax.tools import runs
from seqjax.train.forecast import calibration, sample_paths

T, H = 28, 14


def test_windows_are_counts_over_their_scale():
    batch = draw("demand", T)
    x, y = np.asarray(batch.x), np.asarray(batch.y)
    z, nu = y[..., 0], y[..., 1]
    assert (z == np.round(z)).all() and z.min() == 0
    np.testing.assert_allclose(nu, 1 + z[:, : T - H].mean(axis=1, keepdims=True) + 0 * nu, 1e-5)
    np.testing.assert_allclose(x[:, 1:, 0] * nu[:, 1:], z[:, :-1], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(x[..., 1], np.log(nu), 1e-5)
    np.testing.assert_allclose(np.hypot(x[..., 2], x[..., 3]), 1, atol=1e-5)
    np.testing.assert_allclose(x[:, 7:, 2:], x[:, :-7, 2:], atol=1e-4)  # weeks
    size = np.log10(nu[:, 0])
    assert size.min() < 0.8 and size.max() > 2.7, "three magnitudes"


def test_counts_have_the_mean_and_the_variance_of_their_law():
    """By the means that are drawn with the same key: (z - mu)^2 is mu + mu^2 / 5 in the mean."""
    key = jax.random.key(7)
    mu, _ = demand.means(jax.random.split(key)[0], BATCH, T + 1)
    mu = np.asarray(mu)[:, 1:]
    z = np.asarray(draw("demand", T).y)[..., 0]
    variance = mu + mu**2 / 5
    u = (z - mu) / variance**0.5
    assert abs(u.mean()) < 5 / u.size**0.5
    assert abs((u**2).mean() - 1) < 5 * (u**2).std() / u.size**0.5
    swing = mu.max(axis=1) / mu.mean(axis=1) - 1
    assert (swing < 0.9 + 1e-3).all() and swing.max() > 0.8


@pytest.mark.thorough
def test_the_baseline_is_the_best_of_constant_means():
    """Counts whose law is the baseline's: where nothing swings, and nu is the mean."""
    z = np.random.default_rng(0).negative_binomial(4, 4 / (4 + 100), (64, T, 1))
    batch = built("demand").sample(jax.random.key(0), 64, T)
    y = jnp.asarray(np.concatenate([z, np.full_like(z, 100)], axis=-1), jnp.float32)
    found = demand.constant(batch._replace(y=y))
    p = 4 / (4 + 100)
    log_p = np.array([
        sum(np.log((k + np.arange(4 - 1) + 1) / (np.arange(4 - 1) + 1))) for k in z.ravel()
    ]) + 4 * np.log(p) + z.ravel() * np.log(1 - p)  # fmt: skip
    np.testing.assert_allclose(found["loss"], -log_p.mean(), rtol=2e-3)
    np.testing.assert_allclose(found["rmse"], np.sqrt(((z - 100.0) ** 2).mean()), 1e-4)


def test_ranks_of_what_is_one_of_the_samples_are_uniform():
    """So that coverage is its level, of few samples and where counts tie; other laws are seen."""
    rng = np.random.default_rng(0)
    for drawn in (rng.normal(size=(20_000, 12)), rng.poisson(0.7, size=(20_000, 12))):
        samples, y = drawn[:, 1:], drawn[:, 0]
        for level in (0.5, 0.8, 0.9):
            found = metrics.coverage(samples, y, level, axis=1)
            assert abs(found - level) < 5 * (level * (1 - level) / 20_000) ** 0.5
            assert metrics.coverage(samples, y + 3, level, axis=1) < level - 0.2
    assert metrics.coverage(np.zeros((5, 3)), np.zeros(3), 0.5) == 0.5


def test_the_crps_of_samples_is_the_double_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 9)), rng.normal(size=6)
    expected = [
        abs(row - v).mean() - sum(abs(a - b) for a in row for b in row) / (2 * 9 * 8)
        for row, v in zip(x, y)
    ]
    np.testing.assert_allclose(metrics.sample_crps(x, y, axis=1), expected, 1e-12)


def model_of(answer, **options):
    config = ModelConfig(layer=(LayerConfig("lstm", options),), features=8, depth=1, mlp="none")
    return Model(config, built("demand", answer=answer).spec, rngs=nnx.Rngs(0))


@pytest.mark.share(1)
@pytest.mark.share(1)
@pytest.mark.parametrize("answer", demand.ANSWERS)
def test_a_path_is_what_the_model_reads_when_it_draws_the_next_day(answer):
    """The same draws out of whole windows, in which the path stands so far."""
    model, batch = model_of(answer), draw("demand", 10, horizon=4)
    x, nu, n, paths = batch.x[:2], batch.y[:2, 0, 1], 4, 3
    spoiled = x.at[:, -n + 1 :, 0].set(jnp.nan)  # what comes is not looked at
    key = jax.random.key(3)
    found = sample_paths(model, spoiled, nu, n, paths=paths, key=key)
    assert found.shape == (2, paths, n, 1) and np.isfinite(found).all()
    rows, scale = np.repeat(np.asarray(x), paths, axis=0), np.repeat(np.asarray(nu), paths)
    read = jax.jit(lambda x: model(x)[0])
    sample = jax.jit(jax.vmap(lambda key, y, nu: model.outputs.sample(key, y, scale=nu)))
    for step, one in enumerate(jax.random.split(key, n)):
        t = 10 - n + step
        y_hat = read(rows)[:, t]
        z = np.asarray(sample(jax.random.split(one, len(rows)), y_hat, scale))[:, 0]
        np.testing.assert_allclose(found[:, :, step, 0].reshape(-1), z, rtol=1e-3)
        if step + 1 < n:
            rows[:, t + 1, 0] = found[:, :, step, 0].reshape(-1) / scale


def test_what_does_not_forecast_is_named():
    model, x, nu = model_of("paper"), jnp.zeros((2, 6, 4)), jnp.ones(2)
    known = dict(paths=2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="a horizon from 1 to 5 are needed, of 6 steps"):
        sample_paths(model, x, nu, 6, **known)
    model.outputs = demand.NegativeBinomial(1, per_step=True)
    with pytest.raises(ValueError, match="answers of a scale at every step, got NegativeBinomial"):
        sample_paths(model, x, nu, 3, **known)
    with pytest.raises(ValueError, match="more days than its horizon of 14, got 14"):
        built("demand").batches(0, 2, 14)


def test_calibration_of_a_forecast_that_is_right():
    rng = np.random.default_rng(0)
    y, paths = rng.normal(size=(500, 3, 1)), rng.normal(size=(500, 40, 3, 1))
    found = calibration(paths, y)
    assert all(abs(found[f"coverage_{c}"] - c / 100) < 0.06 for c in (50, 80, 90))
    # E |X - y| - E |X - X'| / 2 = 1 / sqrt(pi), and E |y| = sqrt(2 / pi)
    np.testing.assert_allclose(found["crps"], 2**-0.5, rtol=0.1)


@pytest.mark.share(1)
@pytest.mark.parametrize("name, options", [
    ("demand", {}),
    ("forecasting", dict(dataset="illness", stepwise=True, answer="gaussian")),
])  # fmt: skip
def test_what_is_held_out_is_compared_with_the_paths_of_a_model(name, options):
    """Of a model that answers zero with a deviation of almost nothing, or counts of almost none."""
    task = built(name, horizon=3, **options)
    config = ModelConfig(layer=(LayerConfig("min_gru"),), features=4, depth=1, mlp="none")
    model = Model(config, task.spec, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jnp.zeros_like(model.head.kernel.get_value()))
    size = model.outputs.size
    bias = jnp.where(jnp.arange(size) < (size + 1) // 2, -30.0 if name == "demand" else 0.0, -30.0)
    model.head.bias.set_value(bias.astype(model.head.bias.get_value().dtype))
    found = runs.forecast(model, task, 10, windows=4, paths=5)
    y = np.asarray(task.spread(4, 10).y)[:, -3:, :-1]
    np.testing.assert_allclose(found["mse"], np.mean(y**2), rtol=1e-3)
    np.testing.assert_allclose(found["mae"], np.mean(np.abs(y)), rtol=1e-3)
    np.testing.assert_allclose(found["crps"], 1, rtol=1e-3)
