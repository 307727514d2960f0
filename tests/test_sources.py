"""Own rows and own batches as a task: data sets, loaders, functions that make iterators."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from seqjax.answers import Classes, Features, Tokens, Values
from seqjax.core.common import Notice
from seqjax.tasks import Batch, from_arrays, from_batches, from_source
from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig, TrainConfig
from seqjax.train.loop import train
from seqjax.train.record import read_metrics

rng = np.random.default_rng(0)
ROWS = [{"text": "ab" * n, "label": n % 2, "who": n // 3} for n in range(1, 10)]


class Indexed:
    """What tfds.data_source and grain's sources have, and no more."""

    def __init__(self, rows, features=None):
        self.rows, self.dataset_info = rows, SimpleNamespace(features=features)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, n):
        return self.rows[n]


def same(one, two):
    assert one.fingerprint == two.fingerprint and one.spec == two.spec


def test_rows_of_any_source_are_arrays():
    texts, labels = [row["text"] for row in ROWS], [row["label"] for row in ROWS]
    plain = from_arrays(texts, labels, held_out=3)
    assert plain.spec.inputs == Tokens(256)
    same(plain, from_source(ROWS, "text", "label", held_out=3))
    same(plain, from_source(Indexed(ROWS), x="text", y="label", held_out=3))
    same(plain, from_source(list(zip(texts, labels)), 0, 1, held_out=3))
    other = from_arrays(texts[:6], labels[:6], held_out=(texts[6:], labels[6:]))
    for held_out in (Indexed(ROWS[6:]), ROWS[6:]):
        same(other, from_source(ROWS[:6], "text", "label", held_out=held_out))
    who = np.array([row["who"] for row in ROWS])
    grouped = from_source(ROWS, "text", "label", groups="who", held_out=4)
    assert not set(who[grouped.train]) & set(who[grouped.apart])


def test_a_row_is_encoded_and_declared_classes_count():
    declared = {"label": SimpleNamespace(num_classes=7)}
    task = from_source(Indexed(ROWS, declared), "text", "label", encode=lambda text: [len(text), 1])
    assert (task.spec.inputs, task.spec.outputs) == (Tokens(19), Classes(7, per_step=False))
    assert sorted(task.rows.x[:, 0]) == [2 * n for n in range(1, 10)]


def test_a_data_set_of_hugging_face():
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    rows = [{"text": row["text"], "label": row["label"]} for row in ROWS]
    source = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    task = from_source(source, "text", "label", held_out=source.select([0, 1]))
    assert task.spec.outputs == Classes(3, per_step=False) and len(task.apart) == 2
    with pytest.raises(ValueError, match="one of its splits, train"):
        from_source(datasets.DatasetDict(train=source), "text", "label")
    with pytest.raises(ValueError, match="IterableDataset: from_batches"):
        from_source(source.to_iterable_dataset(), "text", "label")


@pytest.mark.parametrize(
    "source, names, message",
    [
        (ROWS, ("txt", "label"), "unknown x of a row 'txt'; did you mean 'text'"),
        (ROWS, ("text", "lable"), "unknown y of a row 'lable'; did you mean 'label'"),
        ([(1, 2)], (0, 2), r"unknown y of a row '?2'?.*known: 0, 1"),
        ({"train": ROWS, "test": ROWS}, ("text", "label"), "one of its splits, train, test"),
        (iter(ROWS), ("text", "label"), "list_iterator: from_batches"),
    ],
)
def test_a_wrong_source_is_one_line(source, names, message):
    with pytest.raises(ValueError, match=message):
        from_source(source, *names)


X = rng.integers(0, 5, (11, 3))


def cut(epoch, rows=X, size=4):
    """Batches of 4, 4 and 3 rows, which begin elsewhere in each epoch."""
    rows = np.roll(rows, epoch, axis=0)
    return ({"x": rows[n : n + size], "y": rows[n : n + size] % 2} for n in range(0, 11, size))


KINDS = dict(inputs=Tokens(5), outputs=Classes(2, per_step=True))


class Saved:
    """An iterator that can be set, as those of grain."""

    opened = 0

    def __init__(self, epoch):
        self.batches, self.n = list(cut(epoch)), 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.n == 3:
            raise StopIteration
        Saved.opened, self.n = Saved.opened + 1, self.n + 1
        return self.batches[self.n - 1]

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


def test_epochs_follow_each_other_and_the_last_batch_is_filled_up():
    task = from_batches(cut, list(cut(0)), **KINDS)
    assert task.decides == {"batch": 4, "length": 3, "evaluation_batches": None}
    stream = task.batches(0, 4, 3)
    batches = [next(stream) for _ in range(6)]
    for epoch in (0, 1):
        taken = batches[3 * epoch : 3 * epoch + 3]
        assert all(batch.x.shape == (4, 3) for batch in taken)
        weights = np.concatenate([batch.mask for batch in taken])
        assert weights.sum() == 33 and not weights[-1].any()
        rows = np.concatenate([batch.x for batch in taken])[weights[:, 0] > 0]
        np.testing.assert_array_equal(rows, np.roll(X, epoch, axis=0))
    assert sum(batch.mask.sum() for batch in task.validation(4, 3)) == 33
    assert len(list(task.validation(4, 3, 2))) == 2
    again = from_batches(list(cut(0)), cut, **KINDS)  # a list, and a function
    np.testing.assert_array_equal(next(again.batches(0, 4, 3)).x, batches[0].x)
    assert "evaluation_batches" not in again.decides  # a function may have no end


@pytest.mark.parametrize("make", [cut, Saved])
def test_a_position_is_kept(make):
    task = from_batches(make, cut, **KINDS)
    stream = task.batches(0, 4, 3)
    for _ in range(5):
        next(stream)
    state, expected = stream.get_state(), [next(stream).x for _ in range(3)]
    again = task.batches(0, 4, 3)
    if make is Saved:
        before = Saved.opened
        again.set_state(state)
        assert Saved.opened == before  # no batch was gone over
    else:
        with pytest.warns(Notice, match="going over 2 of them"):
            again.set_state(state)
    np.testing.assert_array_equal([next(again).x for _ in range(3)], expected)
    short = from_batches(lambda epoch: list(cut(epoch))[:1], cut, **KINDS).batches(0, 4, 3)
    with pytest.warns(Notice), pytest.raises(ValueError, match="ends after 1 batches, and the run"):
        short.set_state({"epoch": 1, "index": 2})


@pytest.mark.parametrize(
    "make, options, message",
    [
        (cut(0), KINDS, "make must be a function of the epoch .* got generator"),
        (lambda epoch: [], KINDS, "make must have batches, got none"),
        (cut, {}, "inputs must be given, as Tokens"),
        (cut, dict(inputs=Tokens(5)), "outputs must be given, as Classes"),
        ([3], KINDS, "a batch must be .* got int"),
        ([{"z": 3}], KINDS, r"a batch must be .* got \['z'\]"),
        ([(X, X[:2])], KINDS, "x has 11 rows, and y 2"),
        ([Batch(X, X, X)], {}, "of a Batch inputs"),
    ],
)
def test_wrong_batches_are_one_line(make, options, message):
    with pytest.raises(ValueError, match=message):
        from_batches(make, cut, **options)


def test_batches_that_differ_are_named():
    task = from_batches([(X, X % 2), (X[:, :2], X[:, :2] % 2)], cut, **KINDS)
    stream = task.batches(0, 11, 3)
    next(stream)
    with pytest.raises(ValueError, match="11 x 3 steps as the first one, got 11 x 2"):
        next(stream)
    with pytest.raises(ValueError, match="are of 11 x 3 steps, got batch 4"):
        task.batches(0, 4, 3)
    assert from_batches([(X / 2, X[:, 0] / 2)], []).spec == replace(
        task.spec, inputs=Features(1), outputs=Values(1, per_step=False)
    )


@pytest.mark.thorough
@pytest.mark.filterwarnings("always::seqjax.core.common.Notice")
def test_a_run_on_batches_goes_on_as_if_it_had_not_stopped(tmp_path):
    def run(steps, folder):
        config = Config(
            TaskConfig(), ModelConfig(layer=(LayerConfig("min_gru"),), features=4, depth=1),
            train=TrainConfig(steps=5, evaluate_every=2, save_every=1, log_every=1),
        )  # fmt: skip
        until = [lambda step, metrics, model: step == steps]
        train(config, tmp_path / folder, task=from_batches(cut, list(cut(0)), **KINDS),
              callbacks=until)  # fmt: skip
        rows = read_metrics(tmp_path / folder)
        timed = {"tokens_per_second", "seconds"}
        return [{name: row[name] for name in row if name not in timed} for row in rows]

    whole = run(5, "whole")
    run(2, "stopped")
    assert run(5, "stopped") == whole and whole[-1]["step"] == 5
