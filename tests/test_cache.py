"""The neural cache against a loop over pairs; streamed, reset, masked; and on the command line."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Spec
from seqjax.tasks.task import Classes, Tokens
from seqjax.tools import cli
from seqjax.train.cache import NeuralCache

V, B, T = 5, 3, 24
SPEC = Spec(Tokens(V), Classes(V, per_step=True))
SMALL = ModelConfig(layer=(LayerConfig("gru"),), features=6, depth=1, mlp="none")
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return Model(SMALL, SPEC, rngs=nnx.Rngs(0))


def by_hand(model, x, size, theta, weight):
    """log p [n, V] of a row of tokens that begins anew."""
    y, _, h = jax.jit(model.with_stream)(jnp.asarray(np.pad(x, (0, T - len(x))))[None])
    np.testing.assert_allclose(model.head(h, model.embed), y, rtol=1e-6)
    y, h = (np.asarray(v[0, : len(x)], np.float64) for v in (y, h))
    p = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    for t in range(1, len(x)):
        p_cache = np.zeros(V)
        for i in range(max(0, t - size), t):
            p_cache[x[i + 1]] += np.exp(theta * h[t] @ h[i])
        p[t] = (1 - weight) * p[t] + weight * p_cache / p_cache.sum()
    return np.log(p)


@pytest.mark.parametrize("size, theta, weight", [(4, 0.7, 0.3), (50, 0.2, 0.9)])
def test_the_cache_is_a_loop_over_pairs(model, size, theta, weight):
    """In three batches, with pieces that know nothing of each other and steps left out."""
    x = rng.integers(0, V, (B, T))
    mask, resets = rng.random((B, T)) < 0.7, rng.random((B, T)) < 0.2
    cache, found = NeuralCache(size, theta, weight), []
    run, h = jax.jit(partial(cache, model)), cache.start(model, B)
    for at in (slice(n, n + 8) for n in range(0, T, 8)):
        beside = dict(resets=jnp.asarray(resets[:, at]), mask=jnp.asarray(mask[:, at]))
        log_p, h = run(jnp.asarray(x[:, at]), h, **beside)
        found.append(log_p)
    found = np.concatenate(found, axis=1)
    for n in range(B):
        (there,) = np.nonzero(mask[n])
        pieces = np.split(there, np.nonzero(resets[n][there])[0])
        assert sum(map(bool, map(len, pieces))) > 1
        for piece in filter(len, pieces):
            expected = by_hand(model, x[n][piece], size, theta, weight)
            np.testing.assert_allclose(found[n][piece], expected, rtol=2e-5, atol=2e-6)


def test_probabilities_sum_to_one_and_no_weight_is_the_model(model):
    x = jnp.asarray(rng.integers(0, V, (B, T)))
    log_p, _ = jax.jit(partial(NeuralCache(7, 1.0, 0.4), model))(x)
    np.testing.assert_allclose(jnp.exp(log_p).sum(-1), 1, rtol=1e-5)
    alone, _ = jax.jit(partial(NeuralCache(7, 1.0, 0.0), model))(x)
    np.testing.assert_allclose(alone, jax.nn.log_softmax(jax.jit(model)(x)[0]), rtol=1e-6)


def test_a_model_that_writes_no_tokens_has_no_cache():
    tagger = Model(SMALL, Spec(Tokens(V), Classes(3, per_step=True)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="only a model whose answers are its next inputs"):
        NeuralCache(4)(tagger, jnp.zeros((B, T), jnp.int32))


@pytest.mark.parametrize("options, message", [
    (dict(size=0), "cache.size must be a whole number from 1 to 2147483647, got 0"),
    (dict(size=2, weight=1.0), "cache.weight must be .* below 1, got 1.0"),
    (dict(size=2, theta=-1.0), "cache.theta must be a number at least 0, got -1.0"),
])  # fmt: skip
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        NeuralCache(**options)


@pytest.mark.thorough
def test_the_command_line(capsys):
    """Of a model that comes with the package."""
    few = ["--batches", "1", "--batch", "1", "--length", "32"]
    lines = []
    for more in ([], ["--cache", "20"], ["--cache", "20", "--theta", "1", "--cache-weight", "0"]):
        assert cli.main(["eval", "python", *few, *more]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[2] != lines[1]
