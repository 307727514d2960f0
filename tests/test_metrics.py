"""The metrics of the field against values computed by hand."""

import sys
from math import e, log
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.answers import Detection, metrics


def close(value, expected):
    np.testing.assert_allclose(value, expected, 1e-6)


def test_of_a_loss_in_nats():
    close(metrics.perplexity(2 * log(8), 2), 8)  # two words of three bits
    close(metrics.perplexity(1.0), e)
    close(metrics.bits(10 * log(2), 5), 2)


def test_of_classes_and_of_yes_or_no():
    close(metrics.accuracy([1, 2, 3, 3], [1, 2, 0, 3]), 3 / 4)
    close(metrics.f1(3, 4, 6), 2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6))
    close(metrics.jaccard(3, 4, 6), 3 / 7)
    close(metrics.f1(0, 0, 0), 0)


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.RandomState(0)
    y, score = rng.randint(0, 2, 60).astype(np.int32), rng.randint(-9 * 8, 9 * 8, 60) / 8
    score[:20] = np.floor(4 * rng.rand(20)) / 8  # many are ties
    counted = np.where(np.arange(60) % 7 == 0, 0, 1).astype(np.float32)
    rows = [(s, label) for s, label, weight in zip(score, y, counted) if weight]
    pairs = [
        (np.clip(a, -8, 7.875), np.clip(b, -8, 7.875))
        for a, first in rows for b, other in rows if first and not other
    ]  # fmt: skip
    expected = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    answer = Detection(per_step=False)
    y_hat = np.stack([np.ones(60), 1 + score], axis=1)
    means = {}
    for part in (slice(0, 13), slice(13, 60)):  # of batches of other sizes
        found = answer.score(jnp.asarray(y_hat[part]), y[part], counted[part])
        for name, value in found.items():
            share = counted[part].sum() / counted.sum()
            means[name] = means.get(name, 0) + share * float(value)
    summary = answer.summary(means)
    assert set(summary) == {"loss", "accuracy", "auroc"}
    close(summary["auroc"], expected)
    for one, area in ((np.eye(2)[y], 1), (np.eye(2)[1 - y], 0), (np.zeros((60, 2)), 0.5)):
        close(answer.summary(answer.score(jnp.asarray(one), y, counted))["auroc"], area)


def test_of_distributions():
    logits, y = jnp.log(jnp.array([[3.0, 1 / 3]])), jnp.array([[1.0, 1.0]])  # 3/4 and 1/4
    close(metrics.frame_nll(logits, y), -log(3 / 16))
    quantiles, levels = jnp.array([[0.0, 2.0]]), jnp.array([0.25, 0.75])
    close(metrics.pinball(quantiles, levels, jnp.array([1.0])), 0.25)
    # of all quantiles of the uniform distribution: int (F(x) - [x >= 0])^2 dx = 1/3
    tau = (jnp.arange(1000.0) + 0.5) / 1000
    close(metrics.crps(tau[None], tau, jnp.zeros(1)), 1 / 3)


def test_of_real_numbers():
    y_hat, y = np.array([1.0, 2, 4, 5]), np.array([1.0, 2, 4, 1])
    close(metrics.rmse(y_hat, y), 2)
    close(metrics.nrmse(y_hat, y), 2 / np.sqrt(1.5))
    close(metrics.mae(y_hat, y), 1)


def naive_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    change = naive_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(change, naive_distance(a[1:], b) + 1, naive_distance(a, b[1:]) + 1)


def test_the_edit_distance_is_the_recursion():
    rng, distance = np.random.default_rng(0), jax.jit(jax.vmap(metrics.edit_distance))
    a, b = rng.integers(0, 3, (2, 60, 5))
    n, m = rng.integers(0, 6, (2, 60))
    expected = [naive_distance(list(a[i, : n[i]]), list(b[i, : m[i]])) for i in range(60)]
    assert distance(a, b, n, m).tolist() == expected
    kitten, sitting = (jnp.array(list(map(ord, word))) for word in ("kitten", "sitting"))
    assert metrics.edit_distance(kitten, sitting) == 3


def test_the_word_error_rate_counts_all_sentences_together():
    hypotheses = ["the cat sat", "", "on a  mat"]
    references = ["the cat sat down", "yes", "on the mat"]
    close(metrics.word_error_rate(hypotheses, references), (1 + 1 + 1) / 8)
    assert metrics.word_error_rate(["a b"], ["a b"]) == 0
    with pytest.raises(ValueError, match="references with words"):
        metrics.word_error_rate(["a"], [" "])


def test_bleu_is_that_of_sacrebleu(monkeypatch):
    calls = []

    def corpus_bleu(hypotheses, references, **options):
        calls.append((hypotheses, references, options))
        return SimpleNamespace(score=31.5)

    monkeypatch.setitem(sys.modules, "sacrebleu", SimpleNamespace(corpus_bleu=corpus_bleu))
    assert metrics.bleu(("a b",), ("a c",), tokenize="char") == 31.5
    assert calls == [(["a b"], [["a c"]], {"tokenize": "char"})]
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"pip install 'seqjax\[metrics\]'"):
        metrics.bleu(["a"], ["a"])
