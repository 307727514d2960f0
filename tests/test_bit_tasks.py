"""Tasks of bits and of graphs: answers that the inputs determine, that know nothing, and drawn."""

from itertools import pairwise
from math import log

import jax
import numpy as np
import pytest

from seqjax.tasks import make

BATCH = 64
# Name, length, options, and the bits of a target that a coin answers.
CASES = {
    "bit_copy": (15, dict(bits=4)),
    "repeat_copy": (23, dict(bits=4, repeats=4)),
    "bit_recall": (32, {}),
    "priority_sort": (17, dict(answered=6)),
}


def copied(x, bits):
    n = int(x[:, bits].argmax())
    return [(n + 1 + i, x[i, :bits]) for i in range(n)]


def repeated(x, bits):
    n = int(x[:, bits].argmax())
    r = round(x[n, bits + 1] * (99 / 12) ** 0.5 + 5.5)
    end = n + n * r + 1
    due = [(n + 1 + i, [*x[i % n, :bits], 0]) for i in range(n * r)]
    return [*due, (end, [0] * bits + [1])]


def recalled(x, bits):
    starts = list(np.flatnonzero(x[:, bits]))
    first, last = np.flatnonzero(x[:, bits + 1])
    query = x[first + 1 : last, :bits]
    items = {begin: x[begin + 1 : end, :bits] for begin, end in pairwise([*starts, first])}
    known = [begin for begin, item in items.items() if (item == query).all()]
    assert len(known) == 1
    following = items[starts[starts.index(known[0]) + 1]]
    return [(last + 1 + i, vector) for i, vector in enumerate(following)]


def sorted_down(x, bits):
    n = int(x[:, bits + 1].argmax())
    order = sorted(range(n), key=lambda i: -x[i, bits])
    return [(n + 1 + i, x[j, :bits]) for i, j in enumerate(order[: len(x) - n - 1])]


SOLVERS = dict(zip(CASES, (copied, repeated, recalled, sorted_down)))


@pytest.mark.share(2)
@pytest.mark.parametrize("name", CASES)
def test_answers_that_are_right_guessed_and_drawn(name):
    length, options = CASES[name]
    task = make(name, **options)
    batch = task.sample(jax.random.key(3), BATCH, length)
    x, y, mask = (np.asarray(part) for part in batch[:3])
    extra = 2 if name != "bit_copy" else 1
    answer = np.zeros_like(y)
    due = np.zeros_like(mask)
    for row, known, counted in zip(x, answer, due):
        for t, vector in SOLVERS[name](row, x.shape[2] - extra):
            known[t], counted[t] = vector, 1
    np.testing.assert_array_equal(due, mask)
    assert not y[mask == 0].any() and (0 < mask.mean(axis=1)).all()
    if batch.present is not None:
        present = np.asarray(batch.present)
        assert not mask[~present].any() and not x[~present].any()

    def score(y_hat):
        return {k: float(v) for k, v in task.summary(task.score(y_hat, batch)).items()}

    right, guess = score(60 * (2 * answer - 1)), score(np.zeros_like(y))
    assert right["loss"] < 1e-6 and right["f1"] == 1 and right["accuracy"] == 1
    clock = np.zeros_like(y)
    if name == "repeat_copy":  # that predictor knows when the end is due
        clock[..., -1] = 60 * (2 * y[..., -1] - 1)
        clock[y[..., -1] > 0, :-1] = -60
    baseline = task.baseline(length)["loss"]
    np.testing.assert_allclose(score(clock)["loss"], baseline, 0.02)
    assert guess["accuracy"] == 0
    coin = np.random.default_rng(0).choice([-1.0, 1.0], y.shape).astype(np.float32)
    wrong = ((coin > 0) != y)[mask > 0].mean()
    loss = score(60 * coin)["loss"]
    np.testing.assert_allclose(loss, 60 * wrong * y.shape[2], 1e-5)
    assert abs(wrong - 0.5) < 5 * 0.5 / (mask.sum() * y.shape[2]) ** 0.5


@pytest.mark.thorough
def test_lengths_and_numbers_are_all_drawn():
    batch = make("repeat_copy", bits=4, repeats=4).sample(jax.random.key(0), 512, 23)
    n, ends = np.asarray(batch.x)[..., 4].argmax(1), np.asarray(batch.y)[..., 4].argmax(1)
    assert set(zip(n, (ends - n - 1) / n)) == {(n, r) for n in range(1, 5) for r in range(1, 5)}
    x = np.asarray(make("bit_copy").sample(jax.random.key(0), 512, 9).x)
    counts = np.bincount(x[..., 8].argmax(1), minlength=5)
    assert counts[0] == 0 and (abs(counts[1:] / 512 - 1 / 4) < 5 * (3 / 16 / 512) ** 0.5).all()
    x = np.asarray(make("bit_recall").sample(jax.random.key(0), 512, 32).x)
    assert set(x[..., 6].sum(1)) == {2, 3, 4, 5, 6}


def test_counts_predict_ngrams_nearly_as_well_as_their_table():
    task, length = make("dynamic_ngrams", order=3), 300
    batch = task.sample(jax.random.key(1), BATCH, length)
    bits, mask = np.asarray(batch.x)[..., 0].astype(int), np.asarray(batch.mask)
    np.testing.assert_array_equal(batch.x[:, 1:], batch.y[:, :-1])
    assert (mask == (np.arange(length) >= 1)).all()
    y_hat, counts = np.zeros(batch.y.shape, np.float32), np.full((BATCH, 4, 2), 0.5)
    rows = np.arange(BATCH)
    for t in range(1, length):
        context = 2 * bits[:, t - 1] + bits[:, t]
        if t > 1:
            counts[rows, 2 * bits[:, t - 2] + bits[:, t - 1], bits[:, t]] += 1
        zeros, ones = counts[rows, context].T
        y_hat[:, t, 0] = np.log(ones / zeros)
    loss, guess = (float(task.score(z, batch)["loss"]) for z in (y_hat, 0 * y_hat))
    np.testing.assert_allclose(guess, log(2), 1e-6)
    entropy = 2 * log(2) - 1  # of a bit by a table from Beta(1/2, 1/2), on average
    assert abs(loss - entropy) < 0.06 and loss < 0.5 < guess


def edges_of(x, labels):
    """The steps of x as triples of labels, None where there is none."""
    found = []
    for step in x[:, : 3 * labels].reshape(len(x), 3, labels):
        found.append([int(one.argmax()) if one.any() else None for one in step])
    return found


def travelled(told, question):
    node, way = question[0][0], []
    for _, edge, _ in question:
        (way_on,) = [triple for triple in told if triple[:2] == [node, edge]]
        way.append(way_on)
        node = way_on[2]
    return way


def shortest(told, question):
    """All ways by length, those of one length by their edges: the first that arrives."""
    (start, _, goal) = question[0]
    ways = [[]]
    while True:
        longer = []
        for way in ways:
            at = way[-1][2] if way else start
            longer += [[*way, triple] for triple in told if triple[0] == at]
        ways = sorted(longer, key=lambda way: [edge for _, edge, _ in way])
        for way in ways:
            if way[-1][2] == goal:
                return way


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name, find", [("graph_traversal", travelled), ("shortest_path", shortest)]
)
def test_ways_through_graphs_are_those_asked_for(name, find):
    labels, path, length = 7, 4, 25
    task = make(name, nodes=6, degree=2, labels=labels, path=path)
    batch = task.sample(jax.random.key(2), BATCH, length)
    x, y, mask = (np.asarray(part) for part in batch[:3])
    lengths = set()
    for row, answers, due in zip(x, y, mask):
        asked, answering = row[:, -2].argmax(), row[:, -1].argmax()
        assert (asked, answering) == (12, length - path) and row[:, -2].sum() == 1
        steps = edges_of(row, labels)
        told = steps[:12]
        assert len({(a, b) for a, b, _ in told}) == 12 and all(a != c for a, _, c in told)
        question = [step for step in steps[12:answering] if step != [None] * 3]
        way = find(told, question)
        expected = np.zeros_like(answers)
        for step, triple in enumerate(way):
            expected[answering + step, [i * labels + v for i, v in enumerate(triple)]] = 1
        np.testing.assert_array_equal(answers, expected)
        assert (np.flatnonzero(due) == answering + np.arange(len(way))).all()
        lengths.add(len(way))
    assert lengths == ({path} if name == "graph_traversal" else {1, 2, 3, 4})
    assert len({tuple(map(tuple, edges_of(row, labels)[:12])) for row in x}) == BATCH

    def score(y_hat):
        return {k: float(v) for k, v in task.summary(task.score(y_hat, batch)).items()}

    right = score(60 * (2 * y - 1))
    assert right["loss"] < 1e-6 and right["f1"] == 1
    frequency = np.full(y.shape, -np.log(labels - 1), np.float32)
    np.testing.assert_allclose(score(frequency)["loss"], task.baseline(length)["loss"], 1e-5)
    drawn = np.eye(labels)[np.random.default_rng(0).integers(0, labels, (*y.shape[:2], 3))]
    drawn = score((60 * (2 * drawn - 1)).reshape(y.shape).astype(np.float32))
    assert (
        abs(drawn["f1"] - 1 / labels) < 5 * (labels - 1) ** 0.5 / labels / (3 * mask.sum()) ** 0.5
    )


def test_nodes_have_labels_and_neighbours_enough():
    with pytest.raises(ValueError, match="degree < nodes <= labels, got 2, 8 and 7"):
        make("shortest_path", labels=7)


@pytest.mark.parametrize(
    "name, options, length, needed",
    [
        ("bit_copy", dict(shortest=4), 8, "bit_copy of 4 needs length >= 9, got 8"),
        ("repeat_copy", dict(repeats=3), 5, "repeat_copy of 1 needs length >= 6, got 5"),
        ("bit_recall", {}, 15, "bit_recall of 2 needs length >= 16, got 15"),
        ("dynamic_ngrams", {}, 4, "dynamic_ngrams needs length >= 5, got 4"),
        ("priority_sort", dict(answered=3), 6, "priority_sort of 3 needs length >= 7, got 6"),
        ("graph_traversal", {}, 21, "needs length >= 22, got 21"),
    ],
)
def test_too_short_a_length_is_answered_at_once(name, options, length, needed):
    with pytest.raises(ValueError, match=needed):
        make(name, **options).batches(0, 2, length)
