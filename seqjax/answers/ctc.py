"""Connectionist temporal classification (Graves et al., ICML 2006): labels without an alignment.

    p(l | x) = sum over paths pi with B(pi) = l of prod_t y^t_{pi_t}                   eqs 2, 3

y^t is the softmax of the logits of a frame over labels and a blank; B merges what repeats and then
drops the blanks. With l' the labels with a blank before, between and after them, alpha_t(s) is the
probability of all beginnings of paths that end in l'_s at t:

    alpha_t(s) = (alpha_{t-1}(s) + alpha_{t-1}(s-1) + [may skip] alpha_{t-1}(s-2)) y^t_{l'_s}   6, 7
    p(l | x)   = alpha_T(|l'|) + alpha_T(|l'| - 1)                                               8

where a blank between two different labels may be skipped. In logarithms a frame is a matrix of
three diagonals in the semiring (log sum exp, +): "sequential" applies it to alpha, in O(T L);
"associative" and "chunked" compose matrices, by the monoid `forward`, in O(log T) depth and
O(T L^3) work, for few labels and many frames. Before the first frame all of alpha is in the first
blank. Derivatives of both modes are those of the scan.

Letters: B batch, T frames, V labels and the blank, L labels of a target, W beams.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.common import accumulation_dtype, predicted, unknown
from seqjax.core.mesh import loop
from seqjax.core.monoid import forward, log_sum
from seqjax.core.scan import scan
from seqjax.core.types import Float, Int

EVALUATORS = ("sequential", "associative", "chunked")


def ctc_loss(
    logits: Float[Array, "*B T V"],
    labels: Int[Array, "*B L"],
    *,
    lengths: Int[Array, "*B"] | None = None,
    label_lengths: Int[Array, "*B"] | None = None,
    blank: int = 0,
    zero_infinity: bool = False,
    evaluator: str | None = None,
    chunk_size: int = 64,
) -> Float[Array, "*B"]:
    """-log p(labels | logits), in nats, in float32 at least; the batch axis B may be absent.

    logits: of V - 1 labels and of the blank, at any index `blank`; normalised here.
    lengths: frames that count; None: all. What stands behind them has no part in it.
    label_lengths: labels that count; None: those before the first blank.
    zero_infinity: 0, not infinity, for labels that do not fit into the frames: as many frames as
        labels are needed, and one more between two that are equal. The gradient is 0 in both.
    evaluator: sequential (None), associative or chunked, which takes `chunk_size`.
    Raises ValueError or TypeError for other shapes, dtypes and names.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))  # blank and one label
    >>> jnp.exp(-ctc_loss(logits, jnp.array([1])))  # all paths but two blanks: 1 - 1/8
    Array(0.875, dtype=float32)
    """
    lengths = _check("ctc_loss", logits, blank, lengths)
    evaluator = evaluator or "sequential"
    if evaluator not in EVALUATORS:
        raise ValueError(unknown("evaluator of ctc_loss", evaluator, EVALUATORS))
    labels = _integers("labels", labels, (*logits.shape[:-2], *jnp.shape(labels)[-1:]))
    if label_lengths is None:
        label_lengths = jnp.sum(jnp.cumsum(labels == blank, axis=-1) == 0, axis=-1)
    label_lengths = _integers("label_lengths", label_lengths, logits.shape[:-2])
    one = partial(_loss, blank=blank, evaluator=evaluator, chunk_size=chunk_size)
    loss = (jax.vmap(one) if logits.ndim == 3 else one)(logits, labels, lengths, label_lengths)
    return jnp.where(jnp.isposinf(loss), 0, loss) if zero_infinity else loss


def _loss(logits, labels, frames, count, *, blank, evaluator, chunk_size):
    T, L = len(logits), len(labels)
    there = jnp.arange(T, dtype=jnp.int32) < frames
    # selected before anything is made of them: a NaN behind the frames must not come back
    log_y = jax.nn.log_softmax(jnp.where(there[:, None], _wide(logits), 0), axis=-1)
    labels = jnp.where(jnp.arange(L, dtype=jnp.int32) < count, labels, blank)
    extended = jnp.full(2 * L + 1, blank, labels.dtype).at[1::2].set(labels)  # l'
    before = jnp.concatenate([jnp.full_like(extended[:2], blank), extended])[: 2 * L + 1]
    skips = (extended != blank) & (extended != before)
    emitted = log_y[:, extended]
    place = jnp.arange(2 * L + 1, dtype=jnp.int32)
    alpha = jnp.where(place == 0, 0, -jnp.inf).astype(log_y.dtype)
    if evaluator == "sequential":
        alpha = _by_bands(emitted, skips, there, alpha)
    else:
        back = place[:, None] - place[None]  # from which place, so many before
        band = (back == 0) | (back == 1) | ((back == 2) & skips[:, None])
        elements = jnp.where(band[None], emitted[:, :, None], -jnp.inf)
        options = {"chunk_size": chunk_size} if evaluator == "chunked" else {}
        _, alpha = scan(forward, elements, alpha, evaluator=evaluator, mask=there, **options)
    ends = (place == 2 * count) | (place == 2 * count - 1)
    return -log_sum(jnp.where(ends, alpha, -jnp.inf), axis=0)


def _by_bands(emitted, skips, there, alpha):
    nothing = jnp.full(2, -jnp.inf, alpha.dtype)

    def step(alpha, frame):
        log_y, counts = frame
        one, two = (jnp.concatenate([nothing[:n], alpha])[: len(alpha)] for n in (1, 2))
        paths = jnp.stack([alpha, one, jnp.where(skips, two, -jnp.inf)])
        return jnp.where(counts, log_sum(paths, axis=0) + log_y, alpha), None

    return loop(step, alpha, (emitted, there))[0]


def collapse(path: Int[Array, "*B T"], blank: int = 0) -> Int[Array, "*B T"]:
    """B(path): repetitions merged, then blanks dropped; filled up with the blank.

    >>> collapse(jnp.array([0, 1, 1, 0, 1, 3])).tolist()
    [1, 1, 3, 0, 0, 0]
    """
    before = jnp.concatenate([jnp.full_like(path[..., :1], blank), path[..., :-1]], axis=-1)
    kept = (path != blank) & (path != before)
    order = jnp.argsort(~kept, axis=-1, stable=True)
    return jnp.take_along_axis(jnp.where(kept, path, blank), order, axis=-1)


def ctc_best_path(
    logits: Float[Array, "*B T V"], *, lengths: Int[Array, "*B"] | None = None, blank: int = 0
) -> Int[Array, "*B T"]:
    """The labels of the likeliest path, filled up with the blank (section 3.2).

    They need not be the likeliest labels: many paths may lead to others.

    >>> logits = jnp.log(jnp.array([[0.6, 0.4], [0.6, 0.4]]))  # blank and one label
    >>> ctc_best_path(logits).tolist()
    [0, 0]
    """
    lengths = _check("ctc_best_path", logits, blank, lengths)
    path = predicted(logits)
    there = lax.broadcasted_iota(jnp.int32, path.shape, path.ndim - 1) < lengths[..., None]
    return collapse(jnp.where(there, path, blank), blank)


class Beams(NamedTuple):
    """The best labellings, the best one first."""

    labels: Any  # int32 [*B, W, T], filled up with the blank
    scores: Any  # [*B, W]; -inf where there are fewer labellings than beams


def ctc_beam_search(
    logits: Float[Array, "*B T V"],
    *,
    width: int = 16,
    lengths: Int[Array, "*B"] | None = None,
    blank: int = 0,
    language: Callable[[Array, Array], Array] | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
) -> Beams:
    """Prefix beam search (arXiv:1408.2873, algorithm 1): after each frame the best prefixes, with
    the probability of all their paths, those that end in a blank apart from the others.

        score(l) = log p(l | x) + weight log p_language(l) + bonus |l|

    A width of all labellings that there are makes it exact; otherwise what was cut off is missing,
    and scores are lower bounds. In the paper a bonus per word is a power of the length.

    language: (prefix [T], filled up with the blank, its length) -> [V], log p of each next label;
        what it has of the blank is not looked at. A function that can be traced.

    >>> logits = jnp.log(jnp.array([[0.6, 0.4], [0.6, 0.4]]))
    >>> labels, scores = ctc_beam_search(logits, width=2)
    >>> labels.tolist()  # all paths but two blanks: 1 - 0.36 for the label
    [[1, 0], [0, 0]]
    """
    lengths = _check("ctc_beam_search", logits, blank, lengths)
    if width < 1:
        raise ValueError(f"ctc_beam_search: width is {width}, expected at least 1")
    V = logits.shape[-1]

    def extra(prefix: Array, length: Array) -> Array:
        """[V]: what a label more adds to the score."""
        if language is None:
            return jnp.full(V, bonus, dtype)
        return (weight * language(prefix, length) + bonus).astype(dtype)

    dtype = accumulation_dtype(logits.dtype)
    one = partial(_search, width=width, blank=blank, extra=extra)
    return (jax.vmap(one) if logits.ndim == 3 else one)(logits, lengths)


class _Prefixes(NamedTuple):
    labels: Array  # [W, T], each different from others whose p is not 0
    length: Array  # [W]
    last: Array  # [W], its last label
    blank: Array  # [W], log p of the paths that end in a blank
    label: Array  # [W], of those that end in the last label


def _search(logits, frames, *, width, blank, extra):
    T, V = logits.shape
    log_y = jax.nn.log_softmax(_wide(logits), axis=-1)
    none = jnp.full(width, -jnp.inf, log_y.dtype)
    empty = jnp.full((width, T), blank, jnp.int32)
    zero = jnp.zeros(width, jnp.int32)
    beams = _Prefixes(empty, zero, jnp.full_like(zero, blank), none.at[0].set(0), none)
    letter, place = jnp.arange(V, dtype=jnp.int32), jnp.arange(T, dtype=jnp.int32)

    def step(beams, t):
        y = log_y[t]
        total = jnp.logaddexp(beams.blank, beams.label)
        # a label that repeats the last one is another only after a blank
        again = letter[None] == beams.last[:, None]
        longer = jnp.where(again, beams.blank[:, None], total[:, None]) + y[None]
        longer = longer + jax.vmap(extra)(beams.labels, beams.length)
        longer = jnp.where(letter[None] == blank, -jnp.inf, longer)
        # a prefix that another one becomes by its last label is one with it
        alive = (total > -jnp.inf) & (beams.length > 0)
        ends = place[None] == beams.length[:, None] - 1
        shorter = jnp.where(ends, blank, beams.labels)
        joins = alive[:, None] & jnp.all(shorter[:, None] == beams.labels[None], axis=-1)  # [j, i]
        joined = log_sum(jnp.where(joins, longer[:, beams.last].T, -jnp.inf), axis=1)
        taken = jnp.any(
            joins[:, :, None] & (beams.last[:, None, None] == letter[None, None]), axis=0
        )
        longer = jnp.where(taken, -jnp.inf, longer)
        stays = total + y[blank], jnp.logaddexp(beams.label + y[beams.last], joined)

        scores = jnp.concatenate([jnp.logaddexp(*stays), longer.reshape(-1)])
        _, best = lax.top_k(scores, width)
        parent = jnp.where(best < width, best, (best - width) // V)
        new, label = best >= width, ((best - width) % V).astype(jnp.int32)
        at_end = new[:, None] & (place[None] == beams.length[parent][:, None])
        after = _Prefixes(
            jnp.where(at_end, label[:, None], beams.labels[parent]),
            beams.length[parent] + new.astype(jnp.int32),
            jnp.where(new, label, beams.last[parent]),
            jnp.where(new, -jnp.inf, stays[0][parent]),
            jnp.where(new, scores[best], stays[1][parent]),
        )
        return jax.tree.map(lambda a, b: jnp.where(t < frames, a, b), after, beams), None

    beams, _ = loop(step, beams, place)
    scores, order = lax.top_k(jnp.logaddexp(beams.blank, beams.label), width)
    return Beams(beams.labels[order], scores)


def _check(op: str, logits: Any, blank: int, lengths: Any) -> Array:
    """The frames that count, of logits [B?, T, V]."""
    shape, dtype = jnp.shape(logits), jnp.result_type(logits)
    if len(shape) not in (2, 3) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"{op}: logits must be floats [T, V] or [B, T, V], got {dtype} {list(shape)}"
        )
    V = shape[-1]
    if not 0 <= blank < V:
        raise ValueError(f"{op}: blank is {blank}, expected an index of the {V} logits of a frame")
    if lengths is None:
        return jnp.full(logits.shape[:-2], logits.shape[-2], jnp.int32)
    return _integers("lengths", lengths, logits.shape[:-2])


def _integers(name: str, x: Any, shape: tuple[int, ...]) -> Array:
    if not jnp.issubdtype(jnp.result_type(x), jnp.integer) or jnp.shape(x) != shape:
        raise ValueError(
            f"ctc: {name} must be integers {list(shape)}, got {jnp.result_type(x)} "
            f"{list(jnp.shape(x))}"
        )
    return jnp.asarray(x, jnp.int32)


def _wide(x: Array) -> Array:
    return x.astype(accumulation_dtype(x.dtype))
