"""Connectionist temporal classification against all alignments, by every evaluator."""

from collections import defaultdict
from functools import partial
from itertools import groupby, product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax
from seqjax.answers.ctc import EVALUATORS

B, T, V, L = 4, 6, 4, 3


def merged(path, blank):
    return tuple(k for k, _ in groupby(path) if k != blank)


def labellings(logits, blank):
    """labels -> p, over all paths."""
    logits = np.asarray(logits, np.float64)
    y = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found = defaultdict(float)
    for path in product(range(y.shape[1]), repeat=len(y)):
        found[merged(path, blank)] += np.prod(y[np.arange(len(y)), list(path)])
    return found


def batch(blank, seed=0):
    """Logits, labels that fit and that do not, frames and labels that count."""
    logits = 2 * np.random.default_rng(seed).normal(size=(B, T, V))
    names = np.array([k for k in range(V) if k != blank])
    labels = names[np.array([[0, 1, 2], [0, 0, 1], [2, 2, 2], [1, 0, 0]])]
    return logits, labels, np.array([6, 4, 5, 2]), np.array([3, 3, 2, 0])


@pytest.mark.share(2)
@pytest.mark.parametrize("blank", [0, 2, V - 1])
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_loss_is_the_sum_over_all_paths(blank, evaluator):
    logits, labels, frames, counts = batch(blank)
    expected = [
        -np.log(labellings(z[:t], blank)[tuple(row[:n])])
        for z, row, t, n in zip(logits, labels, frames, counts)
    ]
    loss = partial(
        seqjax.ctc_loss, labels=labels, lengths=frames, label_lengths=counts, blank=blank,
        evaluator=evaluator, chunk_size=4,
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(loss)(jnp.asarray(logits)), expected, 1e-12)
    filled = np.where(np.arange(L) < counts[:, None], labels, blank)
    one = jax.jit(lambda *given: seqjax.ctc_loss(*given, blank=blank, evaluator=evaluator))
    np.testing.assert_allclose(one(logits[0], filled[0]), expected[0], 1e-12)


@pytest.mark.share(1)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_derivatives_of_both_modes_are_those_of_the_loss(evaluator):
    logits, labels, frames, counts = batch(0)
    spoiled = jnp.asarray(np.where(np.arange(T)[:, None] < frames[:, None, None], logits, np.nan))

    def loss(z):
        return seqjax.ctc_loss(
            z, labels, lengths=frames, label_lengths=counts, evaluator=evaluator, chunk_size=4
        )

    way = np.random.default_rng(1).normal(size=logits.shape)
    found = jax.jit(jax.grad(lambda z: loss(z).sum()))(spoiled)
    moved = jax.jit(lambda z, v: jax.jvp(loss, (z,), (v,))[1])(spoiled, way)
    padded = (np.arange(T) >= frames[:, None]).astype(float)
    absent = (np.arange(L) >= counts[:, None]).astype(float)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = jax.jit(jax.grad(lambda z: optax.ctc_loss(z, padded, labels, absent).sum()))
        expected = np.asarray(theirs(logits))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(moved, np.sum(expected * way, axis=(1, 2)), atol=1e-9)
    step = 1e-6 * way
    slope = (loss(jnp.asarray(logits + step)) - loss(jnp.asarray(logits - step))) / 2e-6
    np.testing.assert_allclose(moved, slope, rtol=1e-7, atol=1e-8)


@pytest.mark.share(1)
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_labels_that_do_not_fit_have_no_gradient(evaluator):
    labels = np.array([[1, 1, 1, 1], [1, 2, 3, 0], [1, 2, 0, 0]])  # 7, 3 and 2 frames
    logits = np.random.default_rng(2).normal(size=(3, T, V))
    lengths = np.array([6, 2, 0])

    @partial(jax.jit, static_argnums=1)
    def run(z, zero):
        loss = partial(seqjax.ctc_loss, zero_infinity=zero, evaluator=evaluator)
        value, pull = jax.vjp(lambda z: loss(z, labels, lengths=lengths), z)
        return value, pull(jnp.ones_like(value))[0]

    for zero, expected in ((False, np.inf), (True, 0)):
        value, grad = run(logits, zero)
        assert (value == expected).all() and not np.asarray(grad).any()
    assert seqjax.ctc_loss(logits[0, :0], labels[0, :0]) == 0
    np.testing.assert_allclose(
        seqjax.ctc_loss(logits[0], labels[0, :0]),
        -jax.nn.log_softmax(logits[0])[:, 0].sum(), 1e-12,
    )  # fmt: skip


@pytest.mark.share(1)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_loss_is_finite_at_extremes(dtype):
    logits, labels, *_ = batch(0)
    run = jax.jit(jax.value_and_grad(lambda z: seqjax.ctc_loss(z, labels[:2]).sum()))
    for scale in (0.0, 1e2, 1e4, 1e30):
        value, grad = run(jnp.asarray(np.sign(logits[:2]) * scale, dtype))
        assert value.dtype == jnp.float32 and grad.dtype == dtype
        assert np.isfinite(value) and np.isfinite(np.asarray(grad, np.float32)).all(), scale
    banned = jnp.asarray(logits[:2], dtype).at[..., 3].set(-jnp.inf)  # a label that cannot be
    value, grad = run(banned)
    assert np.isinf(value) and np.isfinite(np.asarray(grad, np.float32)).all()


@pytest.mark.thorough
def test_a_beam_of_all_labellings_is_exact():
    logits, _, frames, _ = batch(2)
    for blank in (0, 2):
        # how many labellings there can be
        beams = jax.jit(partial(seqjax.ctc_beam_search, width=500, blank=blank))
        labels, scores = map(np.asarray, beams(jnp.asarray(logits), lengths=jnp.asarray(frames)))
        for z, t, rows, values in zip(logits, frames, labels, scores):
            exact = labellings(z[:t], blank)
            found = {merged_row(row, blank): s for row, s in zip(rows, values) if s > -np.inf}
            assert set(found) == set(exact) and len(found) == np.sum(values > -np.inf)
            assert (np.diff(values[: len(found)]) <= 0).all()
            for row, p in exact.items():
                np.testing.assert_allclose(found[row], np.log(p), 1e-10)


def merged_row(row, blank):
    return tuple(k for k in row.tolist() if k != blank)


@pytest.mark.thorough
def test_a_language_is_weighed_and_labels_have_a_bonus():
    """Of bigrams that forbid some labels after others."""
    rng = np.random.default_rng(3)
    table = np.log(rng.dirichlet(np.ones(V), size=V))
    logits, weight, bonus, blank = 2 * rng.normal(size=(5, V)), 0.7, 0.4, 1

    def language(prefix, length):
        last = jnp.where(length > 0, prefix[length - 1], blank)
        return jnp.asarray(table)[last]

    def spoken(row):
        return sum(table[a, b] for a, b in zip((blank, *row), row))

    exact = {row: np.log(p) + weight * spoken(row) + bonus * len(row)
             for row, p in labellings(logits, blank).items()}  # fmt: skip
    search = partial(
        seqjax.ctc_beam_search, blank=blank, language=language, weight=weight, bonus=bonus
    )
    labels, scores = jax.jit(partial(search, width=300))(logits)
    for row, score in zip(np.asarray(labels), np.asarray(scores)):
        if score > -np.inf:
            np.testing.assert_allclose(score, exact.pop(merged_row(row, blank)), 1e-10)
    assert not exact
    narrow = jax.jit(partial(search, width=3))(logits)[1]
    assert (np.asarray(narrow) <= np.asarray(scores)[:3] + 1e-12).all()


def test_the_best_path_stops_with_the_frames():
    path = np.array([[2, 1, 1, 2, 1, 3], [0, 0, 2, 0, 3, 3]])
    logits = 9.0 * np.eye(4)[path]
    found = seqjax.ctc_best_path(logits, lengths=np.array([6, 4]), blank=2)
    assert found.tolist() == [[1, 1, 3, 2, 2, 2], [0, 0, 2, 2, 2, 2]]


@pytest.mark.parametrize("change, message", [
    (dict(evaluator="tree"), "unknown evaluator of ctc_loss 'tree'"),
    (dict(blank=4), "blank is 4, expected an index of the 4 logits"),
    (dict(lengths=np.ones(3, int)), r"lengths must be integers \[4\], got int64 \[3\]"),
    (dict(label_lengths=np.ones(4)), r"label_lengths must be integers \[4\], got float64 \[4\]"),
    (dict(logits=np.zeros((B, T, V), int)), r"logits must be floats \[T, V\] or"),
    (dict(labels=np.ones((3, L), int)), r"labels must be integers \[4, 3\], got int64 \[3, 3\]"),
])  # fmt: skip
def test_mistakes_are_named(change, message):
    given = dict(logits=np.zeros((B, T, V)), labels=np.ones((B, L), int)) | change
    with pytest.raises(ValueError, match=message):
        seqjax.ctc_loss(**given)
    with pytest.raises(ValueError, match="width is 0, expected at least 1"):
        seqjax.ctc_beam_search(np.zeros((B, T, V)), width=0)
