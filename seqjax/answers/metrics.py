"""The metrics of the field, under their names.

    perplexity, bits                    of a loss in nats: per word, byte, dimension
    accuracy, f1, jaccard, area         of classes and of yes or no
    frame_nll, pinball, crps            of distributions
    coverage, sample_crps               of samples of distributions
    rmse, nrmse, mae                    of real numbers
    edit_distance, word_error_rate      of sequences
    chunk_counts                        of tags: what precision, recall and f1 are formed of
    bleu                                of translations

Those of arrays can be traced. A rate of several batches is the ratio of the sums, not a mean of
ratios: hence f1, jaccard and ratio take counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seqjax.core.mesh import loop


def ratio(part: Any, whole: Any) -> Any:
    """part / whole; 0 of nothing."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)


def perplexity(nats: Any, count: Any = 1) -> Any:
    """exp(nats / count), nats the total negative log likelihood.

    count: of words or bytes, which need not be the tokens of the model; 1 if nats is a mean.
    """
    return jnp.exp(nats / count)


def bits(nats: Any, count: Any = 1) -> Any:
    """nats / (count log 2): bits per byte, per character, per dimension."""
    return nats / count / log(2)


def accuracy(predicted: Any, y: Any) -> jax.Array:
    """The share of `predicted` that is y."""
    return jnp.mean((jnp.asarray(predicted) == jnp.asarray(y)).astype(jnp.float32))


def f1(hits: Any, predicted: Any, actual: Any) -> Any:
    """2 TP / (2 TP + FP + FN), of the counts TP, TP + FP and TP + FN; 0 of nothing."""
    return ratio(2 * hits, predicted + actual)


def jaccard(hits: Any, predicted: Any, actual: Any) -> Any:
    """TP / (TP + FP + FN), the frame accuracy of music transcription (Bay et al. 2009)."""
    return ratio(hits, predicted + actual - hits)


def area(absent: jax.Array, present: jax.Array) -> jax.Array:
    """The area under the ROC of counts [N] of either class by score, rising; 1/2 without both."""
    below = jnp.cumsum(absent) - absent / 2
    pairs = jnp.sum(absent) * jnp.sum(present)
    return jnp.where(pairs > 0, jnp.sum(present * below) / jnp.where(pairs > 0, pairs, 1), 0.5)


def frame_nll(logits: jax.Array, y: jax.Array) -> jax.Array:
    """[...]: the cross entropy of keys y in {0, 1} [..., K], summed over the K keys of a frame."""
    return jnp.sum(jax.nn.softplus(logits) - logits * y, axis=-1)


def pinball(quantiles: jax.Array, levels: jax.Array, y: jax.Array) -> jax.Array:
    """[...]: max(tau (y - q), (tau - 1) (y - q)), averaged over the levels tau.

    quantiles [..., Q] at levels [Q], y [...].
    """
    error = y[..., None] - quantiles
    tau = levels.reshape((1,) * (error.ndim - 1) + (-1,))
    return jnp.mean(jnp.maximum(tau * error, (tau - 1) * error), axis=-1)


def crps(quantiles: jax.Array, levels: jax.Array, y: jax.Array) -> jax.Array:
    """[...]: 2 int_0^1 pinball_tau dtau (Gneiting & Raftery 2007), of evenly spaced levels."""
    return 2 * pinball(quantiles, levels, y)


def coverage(samples: Any, y: Any, level: float, axis: int = 0) -> float:
    """The share of y within the central interval that has `level` of what its samples are of.

    By the rank of y among its n samples, which is uniform on n + 1 places if y is one more of them;
    where counts tie, each place counts in part (Czado, Gneiting & Held 2009).
    """
    samples, y = np.asarray(samples), np.expand_dims(y, axis)
    below, same = (np.sum(one, axis=axis) for one in (samples < y, samples == y))
    places = samples.shape[axis] + 1
    low, high = (places * (1 + sign * level) / 2 for sign in (-1, 1))
    inside = np.minimum(below + same + 1, high) - np.maximum(below, low)
    return float(np.mean(np.maximum(inside, 0) / (same + 1)))


def sample_crps(samples: Any, y: Any, axis: int = 0) -> np.ndarray:
    """[...]: E |X - y| - E |X - X'| / 2 (Gneiting & Raftery 2007, eq. 21), without a bias.

    Pairs of different samples: with the sorted ones x_1 .. x_n, sum_ij |x_i - x_j| is
    2 sum_i (2 i - n - 1) x_i.
    """
    x = np.sort(np.moveaxis(np.asarray(samples), axis, -1), axis=-1)
    n = x.shape[-1]
    spread = 2 * (x @ (2 * np.arange(1, n + 1) - n - 1.0)) / max(n * (n - 1), 1)
    return np.abs(x - np.asarray(y)[..., None]).mean(axis=-1) - spread / 2


def rmse(y_hat: Any, y: Any) -> jax.Array:
    """sqrt(mean (y_hat - y)^2)."""
    return jnp.sqrt(jnp.mean((jnp.asarray(y_hat) - jnp.asarray(y)) ** 2))


def nrmse(y_hat: Any, y: Any) -> jax.Array:
    """rmse over the standard deviation of y: 1 is what the mean of y scores."""
    return rmse(y_hat, y) / jnp.std(jnp.asarray(y))


def mae(y_hat: Any, y: Any) -> jax.Array:
    """mean |y_hat - y|."""
    return jnp.mean(jnp.abs(jnp.asarray(y_hat) - jnp.asarray(y)))


def edit_distance(a: jax.Array, b: jax.Array, n: Any = None, m: Any = None) -> jax.Array:
    """The insertions, deletions and substitutions from a[:n] to b[:m] (Levenshtein 1966).

    a [N], b [M]; n, m: None for all. By rows of the table: within one,
    d_j = min(c_j, d_{j-1} + 1) is a cumulative minimum of c_j - j.
    """
    n, m = (jnp.int32(len(s) if k is None else k) for s, k in ((a, n), (b, m)))
    column = jnp.arange(len(b) + 1, dtype=jnp.int32)

    def row(before, step):
        symbol, i = step
        best = jnp.minimum(before[1:] + 1, before[:-1] + (b != symbol).astype(jnp.int32))
        best = jnp.concatenate([(i + 1)[None], best])
        return jnp.where(i < n, lax.cummin(best - column) + column, before), None

    return loop(row, column, (a, jnp.arange(len(a), dtype=jnp.int32)))[0][m]


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """The edit distances in words over the words of the references, all sentences together."""
    pairs = [(h.split(), r.split()) for h, r in zip(hypotheses, references, strict=True)]
    words = sum(len(reference) for _, reference in pairs)
    if not words:
        raise ValueError("word_error_rate needs references with words, got none")
    number: dict[str, int] = {}
    rows = [[number.setdefault(word, len(number)) for word in side] for p in pairs for side in p]
    lengths = np.array([len(row) for row in rows], np.int32)
    padded = jnp.array([row + [-1] * (lengths.max() - len(row)) for row in rows], jnp.int32)
    distances = jax.vmap(edit_distance)(padded[::2], padded[1::2], lengths[::2], lengths[1::2])
    return float(jnp.sum(distances)) / words


def chunk_counts(
    kinds: jax.Array, begins: jax.Array, kinds_y: jax.Array, begins_y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Chunks that are right in kind and both ends, those of the first tagging, of the second.

    kinds [B, T]: of the chunk that a step is in, -1 for none; begins [B, T]: whether its tag is one
    that begins a chunk. As conlleval has them: one begins there, and where no chunk of its kind
    stands before; it ends before the next one, or where the kind ends.
    """
    starts, ends = zip(*(_chunks(*side) for side in ((kinds, begins), (kinds_y, begins_y))))
    hits = starts[0] & starts[1] & (ends[0] == ends[1]) & (kinds == kinds_y)
    return jnp.sum(hits), jnp.sum(starts[0]), jnp.sum(starts[1])


def _chunks(kinds: jax.Array, begins: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, T]: where a chunk begins, and the first step that is no more in the one of a step."""
    before = jnp.pad(kinds, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    changes = begins | (kinds != before)
    t = kinds.shape[1]
    ends = jnp.where(changes, jnp.arange(t, dtype=jnp.int32)[None], t)
    ends = jnp.pad(ends, ((0, 0), (0, 1)), constant_values=t)[:, 1:]
    return changes & (kinds >= 0), lax.cummin(ends, axis=1, reverse=True)


def bleu(hypotheses: Sequence[str], *references: Sequence[str], **options: Any) -> float:
    """BLEU of a corpus, 0 to 100, as sacrebleu computes it (arXiv:1804.08771); options are its own.

    references: one of each hypothesis, and more where there are several translations.
    Raises ImportError without sacrebleu, the extra `metrics`.
    """
    try:
        sacrebleu = import_module("sacrebleu")
    except ImportError as error:
        raise ImportError("bleu needs sacrebleu: pip install 'seqjax[metrics]'") from error
    return sacrebleu.corpus_bleu(list(hypotheses), [list(r) for r in references], **options).score
