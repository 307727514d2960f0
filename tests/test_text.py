"""Iterators that resume, and text: nothing held out is trained on, nothing is asked twice."""

import gzip
import json
from itertools import islice

import jax
import numpy as np
import pytest

from seqjax.tasks import TASKS, make
from seqjax.tasks.texts.text import compression_baselines, read_files, split_text, stdlib_text


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize(
    "name, options",
    [("copy", {}), ("char_lm", {}), ("char_lm", dict(order="streams", reset_at_files=True)),
     ("char_lm", dict(order="packed"))],
)  # fmt: skip
def test_a_restored_iterator_continues_exactly(name, options):
    task = make(name, **TASKS[name].smoke, **options)
    assert task.carries_state == (options.get("order") == "streams")

    def batches(seed):
        return task.batches(seed, 2, TASKS[name].length)

    stream = batches(seed=3)
    seen = list(islice(stream, 5))
    state = json.loads(json.dumps(stream.get_state()))
    rest = list(islice(stream, 3))
    resumed = batches(seed=3)
    next(resumed)
    resumed.set_state(state)
    same(list(islice(resumed, 3)), rest)
    assert not any(np.array_equal(old.x, new.x) for old in seen for new in rest)
    # Streams follow the text, whatever the seed.
    assert np.array_equal(next(batches(seed=4)).x, seen[0].x) == task.carries_state


@pytest.fixture
def folder(tmp_path):
    """Forty files whose bytes name them: file i is all of byte 100 + i, 50 + i times."""
    (tmp_path / "deep" / "tests").mkdir(parents=True)
    for i in range(40):
        place = tmp_path / "deep" if i % 2 else tmp_path
        (place / f"{i}.txt").write_bytes(bytes([100 + i]) * (50 + i))
    (tmp_path / "copy.txt").write_bytes((tmp_path / "0.txt").read_bytes())
    (tmp_path / "empty.txt").touch()
    (tmp_path / ".hidden.txt").write_bytes(b"hidden")
    (tmp_path / "deep" / "tests" / "t.txt").write_bytes(b"tests")
    (tmp_path / "note.md").write_bytes(b"markdown")
    return tmp_path


def test_files_are_read_once_each_in_an_order_of_the_seed(folder):
    files = read_files(folder, "**/*.txt", seed=0, exclude=["tests"])
    expected = [bytes([100 + i]) * (50 + i) for i in range(40)]
    assert sorted(files) == expected and files != expected
    assert read_files(folder, "**/*.txt", seed=0, exclude=["tests"]) == files
    assert read_files(folder, "**/*.txt", seed=1, exclude=["tests"]) != files
    (folder / "3.txt").unlink(missing_ok=True)
    (folder / "deep" / "3.txt").unlink()
    fewer = read_files(folder, "**/*.txt", seed=0, exclude=["tests"])
    assert fewer == [file for file in files if file[0] != 103]
    assert read_files(folder / "note.md") == [b"markdown"]


def test_unreadable_texts_have_one_clear_error_each(folder):
    with pytest.raises(ValueError, match="no such file or folder"):
        make("char_lm", path=str(folder / "missing"))
    with pytest.raises(ValueError, match=r"no file with text matches '\*.py'"):
        make("char_lm", path=str(folder), glob="*.py")
    with pytest.raises(ValueError, match="the file is empty"):
        make("char_lm", path=str(folder / "empty.txt"))
    with pytest.raises(ValueError, match="leaves nothing to train on: the text has 8 bytes"):
        make("char_lm", path=str(folder / "note.md"), held_out=8)
    task = make("char_lm", path=str(folder / "note.md"))  # a tenth of eight bytes is none
    with pytest.raises(ValueError, match="has 8 tokens: too short for 1 x 8 steps"):
        task.batches(0, 1, 8)
    with pytest.raises(ValueError, match="too short for 2 x 4 steps"):
        make("char_lm", path=str(folder / "note.md"), order="streams").batches(0, 2, 4)
    with pytest.raises(ValueError, match="held_out is 0"):
        task.validation(1, 2)


def test_no_held_out_byte_is_trained_on():
    files = [bytes(range(i, i + 10)) for i in range(0, 250, 10)]  # every byte value is a place
    text = split_text(files, 37)
    assert bytes(text.validation) + bytes(text.train) == b"".join(files)
    assert list(np.nonzero(text.validation_starts)[0]) == [0, 10, 20, 30]
    assert list(np.nonzero(text.train_starts)[0])[:3] == [0, 3, 13]
    assert len(split_text(files).validation) == 25  # by default a tenth


@pytest.fixture
def ordered(tmp_path):
    """A task over 250 bytes that name their own place, 50 of them held out, from one file."""
    path = tmp_path / "ordered"
    path.write_bytes(bytes(range(250)))
    return lambda **options: make("char_lm", path=str(path), held_out=50, **options)


def test_an_epoch_of_windows_is_every_window_once(ordered):
    task = ordered()
    epochs = [b.x for b in islice(task.batches(0, 4, 40), 80)]  # 160 windows: 40 batches
    firsts = np.concatenate(epochs)[:, 0].reshape(2, 160)
    for epoch in firsts:
        assert sorted(epoch) == list(range(50, 210))
    assert not np.array_equal(firsts[0], firsts[1])  # shuffled anew
    batch = next(task.batches(0, 4, 40))
    same(batch.x, batch.x[:, :1] + np.arange(40))
    same(batch.y, batch.x + 1)
    assert batch.resets is None and (batch.mask == 1).all()
    drawn = task.sample(jax.random.key(0), 400, 40)
    same(drawn.y, drawn.x + 1)
    assert drawn.x.min() == 50 and drawn.y.max() == 249


def test_batches_of_one_are_those_of_two(ordered):
    task = ordered()
    ones = list(islice(task.batches(0, 1, 40), 4))
    twos = list(islice(task.batches(0, 2, 40), 2))
    same(np.concatenate([b.x for b in ones]), np.concatenate([b.x for b in twos]))
    again = task.batches(0, 1, 40)
    state = [next(again), again.get_state()][1]
    (after := task.batches(0, 1, 40)).set_state(state)
    same(next(after).x, ones[1].x)


def test_streams_run_on_from_batch_to_batch_and_reset_when_they_start_over(ordered):
    stream = ordered(order="streams").batches(0, 3, 20)  # 3 streams of 66 bytes: 3 windows each
    batches = list(islice(stream, 6))
    whole = np.concatenate([b.x for b in batches], axis=1).reshape(3, 2, 60)
    for row, start in zip(whole, (50, 116, 182), strict=True):
        same(row, np.broadcast_to(start + np.arange(60), (2, 60)))
    for n, batch in enumerate(batches):
        same(batch.y, batch.x + 1)
        assert batch.resets[:, 0].all() == (n % 3 == 0) and not batch.resets[:, 1:].any()


@pytest.mark.parametrize("order", ["windows", "streams", "packed"])
def test_the_first_byte_of_each_file_follows_a_separator_after_a_reset(folder, order):
    task = make(
        "char_lm", path=str(folder), glob="*.txt", held_out=70, order=order, reset_at_files=True
    )
    batches = [*islice(task.batches(0, 2, 30), 10), task.sample(jax.random.key(0), 20, 30)]
    seen = 0
    for batch in [*batches, *task.validation(2, 10)]:
        x, y, resets = (np.asarray(part)[:, 1:] for part in (batch.x, batch.y, batch.resets))
        counted = np.asarray(batch.mask)[:, 1:] > 0
        begins = y != np.asarray(batch.y)[:, :-1]  # in this folder, a new byte is a new file
        seen += begins.sum()
        same(resets[counted], begins[counted])
        same(x[counted], np.where(begins, ord("\n"), y)[counted])
    assert seen > 10


@pytest.mark.parametrize("batch, length", [(1, 50), (3, 7), (4, 30)])
def test_validation_asks_for_every_held_out_byte_once_and_scores_it(ordered, batch, length):
    task = ordered()
    batches = list(task.validation(batch, length))
    asked = np.concatenate([b.y[b.mask > 0] for b in batches])
    assert sorted(asked) == list(range(50))
    for n, b in enumerate(batches):
        same(b.x[b.mask > 0], np.where(b.y == 0, 10, b.y - 1)[b.mask > 0])
        assert b.resets[:, 0].all() == (n == 0) and not b.resets[:, 1:].any()
    assert len(list(task.validation(batch, length, 1))) == 1


def test_byte_frequencies_score_the_stated_baseline():
    task = make("char_lm", **TASKS["char_lm"].smoke)
    counts = np.bincount(task.text.train, minlength=256) + 1
    y_hat = np.broadcast_to(np.log(counts / counts.sum()).astype(np.float32), (4, 300, 256))
    score, total, weight = jax.jit(task.score), {}, 0.0
    for batch in task.validation(4, 300):
        for name, value in score(y_hat, batch).items():
            total[name] = total.get(name, 0.0) + float(value) * batch.mask.sum()
        weight += batch.mask.sum()
    assert weight == len(task.text.validation) == 5_000
    for name, expected in task.baseline(300).items():
        np.testing.assert_allclose(total[name] / weight, expected, 1e-5)


def test_the_standard_library_comes_without_its_tests():
    text = stdlib_text(glob="unittest/**/*.py")
    whole = bytes(text.validation) + bytes(text.train)
    assert b"class TestCase" in whole and len(text.validation) == len(whole) // 10
    assert b"class Test_TestCase" not in whole


def test_compression_given_the_training_text_finds_what_it_repeats():
    train = np.random.default_rng(0).integers(0, 16, 60_000, np.uint8)  # 4 bits each
    validation = train[10_000:14_000]  # 46 kB back: out of gzip's sight
    found = compression_baselines(train, validation)
    alone = 8 * len(gzip.compress(bytes(validation), 9)) / 4_000
    assert found["gzip -9"].alone == alone > 4
    assert found["gzip -9"].given > 4
    assert found["xz -9"].alone > 4 and found["xz -9"].given < 0.2
    with pytest.raises(ValueError, match="the validation text is empty"):
        compression_baselines(train, validation[:0])
