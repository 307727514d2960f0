"""Tasks of music and of strokes, and pickles, which are read as numbers only."""

import io
import math
import os
import pickle

import numpy as np
import pytest
from made_series import DRAWINGS, iam_line, prepares, raw

from seqjax.data import DATASETS, DataError
from seqjax.data.pickles import read_npz, unpickled
from seqjax.data.sets.strokes import NUMERALS, offsets
from seqjax.tasks import make
from seqjax.tasks.signals.handwriting import digits as digits_of


@pytest.fixture
def made(tmp_path, monkeypatch):
    return prepares(tmp_path, monkeypatch)


# -- music --

PIECES = {  # pieces and frames of each part
    "jsb": ((229, 13807), (76, 4602), (77, 4725)),
    "nottingham": ((694, 176561), (173, 45513), (170, 44463)),
    "musedata": ((524, 245202), (135, 82755), (124, 64339)),
    "piano_midi": ((87, 75911), (12, 8540), (25, 19036)),
}


@pytest.mark.share(1)
@pytest.mark.parametrize("name", PIECES)
def test_pieces_are_those_that_were_published(name):
    found = raw(name)
    sizes = tuple((len(rows), sum(len(row["roll"]) for row in rows)) for rows in found.values())
    assert sizes == PIECES[name] and list(found) == ["train", "validation", "test"]


def test_layouts_of_chorales_have_the_same_keys(made):
    found = {}
    for layout in ("mat", "pickle", "json"):
        made("jsb", layout)
        (one,) = (one for one in DATASETS["jsb"].layouts if one.name == layout)
        paths = one.find()
        found[layout] = [row["roll"] for rows in one.examples(paths).values() for row in rows]
        paths["pieces"][0].unlink()
    for rolls in zip(*found.values(), strict=True):
        for other in rolls[1:]:
            np.testing.assert_array_equal(rolls[0], other)
    first = found["json"][0]
    assert [list(np.flatnonzero(frame)) for frame in first] == [[39, 51], [], [0]]


def test_chorales_here_are_the_same_in_both_files():
    DATASETS["jsb"].find()  # or skipped, with the line that names what is absent
    (mat, json) = (
        one.examples(paths)
        for one in DATASETS["jsb"].layouts
        if (paths := one.find()) and one.name != "pickle"
    )
    for split in mat:
        for one, other in zip(mat[split], json[split], strict=True):
            np.testing.assert_array_equal(one["roll"], other["roll"])


def test_a_pickle_that_would_run_anything_is_refused(made, tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    made("jsb", "pickle")
    (tmp_path / "polymusic/JSB Chorales.pickle").write_bytes(pickle.dumps({"train": Runs()}))
    with pytest.raises(DataError, match="it names posix.mkdir, and should hold numbers only"):
        make("polyphonic")
    assert not (tmp_path / "ran").exists()


def test_each_frame_is_answered_from_those_before_it(made):
    made("jsb", "json")
    task = make("polyphonic", held_out="test")
    assert task.decides == {"length": 3, "evaluation_batches": None}
    (batch,) = task.validation(3, 3)
    np.testing.assert_array_equal(batch.x[:, 0], np.zeros((3, 88)))
    np.testing.assert_array_equal(batch.x[:, 1:], batch.y[:, :-1] * batch.present[:, 1:, None])
    frames = batch.y[batch.mask > 0]
    assert sorted(tuple(np.flatnonzero(frame) + 21) for frame in frames) == [
        (40,), (41,), (42,), (50, 60, 70)
    ]  # fmt: skip
    metrics = task.spec.outputs.summary(task.score(60 * batch.y - 30, batch))
    assert metrics["loss"] < 1e-6 and metrics["accuracy"] == 1
    certain = task.score(np.zeros_like(batch.y), batch)["loss"]
    np.testing.assert_allclose(certain, 88 * math.log(2), rtol=1e-6)
    # by frequencies: of four training frames, 5 of 6 for what never sounds
    p = np.full(88, 1 / 6)
    p[np.array([60, 72, 21, 108, 64, 67]) - 21] = 2 / 6
    nll = -np.mean([(f * np.log(p) + (1 - f) * np.log(1 - p)).sum() for f in frames])
    np.testing.assert_allclose(task.baseline(3)["loss"], nll, rtol=1e-6)


def test_training_pieces_are_cut_and_held_out_ones_are_whole(made):
    made("jsb", "json")
    task = make("polyphonic", frames=2, held_out="test")
    assert task.decides == {"length": 2, "evaluation_batches": None}
    for held_out in ("validation", "test"):  # a run is scored on either
        decides = make("polyphonic", frames=1, held_out=held_out).decides
        assert decides["length"] == 1 and decides["evaluation_length"] == 2
    assert len(task.train) == 3 and len(task.apart) == 3
    shown = {tuple(map(tuple, (np.flatnonzero(f) + 21 for f in one["roll"]))): one.get("before")
             for one in task.train}  # fmt: skip
    assert set(shown) == {((60, 72), ()), ((21,),), ((64, 67, 108),)}
    assert shown[((21,),)] is not None and not shown[((21,),)].any()


# -- strokes --


def test_arrays_of_pickles_are_what_numpy_reads(tmp_path):
    ragged = np.empty(2, object)
    ragged[:] = [np.arange(6, dtype=np.int16).reshape(2, 3), np.ones((1, 3), np.float32)]
    np.savez(tmp_path / "a.npz", whole=np.arange(4.0), ragged=ragged)
    found = dict(read_npz(tmp_path / "a.npz"))
    np.testing.assert_array_equal(found["whole"], np.arange(4.0))
    for one, other in zip(found["ragged"], ragged, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        raw = io.BytesIO(pickle.dumps({"a": [(1, 2.5), "b"], "x": np.arange(3)}, protocol))
        assert str(unpickled(raw)) == str({"a": [(1, 2.5), "b"], "x": np.arange(3)})


@pytest.mark.parametrize("named", [os.system, eval, np.load, np.ctypeslib.load_library])
def test_nothing_that_a_pickle_names_is_run(named, tmp_path):
    class Runs:
        def __reduce__(self):
            return named, (str(tmp_path),)

    array = np.empty(1, object)
    array[0] = Runs()
    np.savez(tmp_path / "a.npz", train=array)
    with pytest.raises(DataError, match="it names .*, and should hold numbers only"):
        list(read_npz(tmp_path / "a.npz"))


def test_lines_of_handwriting_are_offsets():
    found = offsets(iam_line([[(10, 20), (13, 18)], [(12, 30)], [], [(12, 31), (12, 31), (0, 0)]]))
    expected = [[0, 0, 0], [3, -2, 1], [-1, 12, 1], [0, 1, 0], [0, 0, 0], [-12, -31, 1]]
    np.testing.assert_array_equal(found, expected)
    for xml, message in ((iam_line([]), "no stroke"), (b"<a><b></a>", "mismatched tag")):
        with pytest.raises(ValueError, match=message):
            offsets(xml)


def test_the_pen_goes_on_from_where_it_is(made):
    made("omniglot", "sketch_rnn")
    task = make("handwriting", dataset="omniglot", held_out="test")
    assert task.decides["length"] == 3
    offsets = [row for one in DRAWINGS["train"] for row in one]
    numbers = [min(v, 1000) for row in offsets for v in row[:2]]
    mean = sum(numbers) / len(numbers)
    scale = math.sqrt(sum((v - mean) ** 2 for v in numbers) / len(numbers))
    (batch,) = task.validation(3, 3)
    drawn = sorted(
        [[round(float(x) * scale, 3), round(float(y) * scale, 3), int(pen)] for x, y, pen in rows]
        for rows in (y[mask > 0] for y, mask in zip(batch.y, batch.mask))
    )
    assert drawn == sorted(DRAWINGS["test"])
    np.testing.assert_array_equal(batch.x[:, 1:], batch.y[:, :-1] * batch.present[:, 1:, None])
    np.testing.assert_array_equal(batch.x[:, 0], 0)
    lines = task.lines(np.array(DRAWINGS["train"][0]))
    assert [line.tolist() for line in lines] == [[[0, 0], [5, -3]], [[2005, 1]]]


def test_numbers_are_written_beside_their_digits():
    """One line for each stroke of each digit, from left to right; the source is padded."""
    task = make("handwriting", dataset="numbers", conditioned=True, components=2)
    plain = make("handwriting", dataset="numbers", components=2)
    (batch, *_), (other, *_) = task.validation(20, task.steps), plain.validation(20, task.steps)
    np.testing.assert_array_equal(batch.x.target, other.x)
    np.testing.assert_array_equal(batch.y, other.y)
    strokes = np.array([1 + numeral.count("/") for numeral in NUMERALS])
    lengths = set()
    for n, (source, there) in enumerate(zip(batch.x.source, batch.x.present)):
        digits = source[there][:-1]
        lengths.add(len(digits))
        lines = task.lines(batch.y[n][batch.present[n]])
        assert source[there][-1] == 10 and len(lines) == strokes[digits].sum()
        begins = np.cumsum([0, *strokes[digits][:-1]])
        middles = [line[:, 0].mean() for line in np.array(lines, object)[begins]]
        assert np.all(np.diff(middles) > 0)
    assert lengths == {1, 2, 3}
    with pytest.raises(ValueError, match="conditioned is of dataset='numbers'"):
        make("handwriting", conditioned=True)
    for text in (b"1234", b"", b"4a"):
        with pytest.raises(ValueError, match="a number has 1 to 3 digits, got"):
            digits_of(text)


def test_one_gaussian_and_the_frequency_of_lifting_score_the_baseline():
    task = make("handwriting", components=2, held_out="test")
    train, apart = (list(part) for part in (task.train, task.apart))
    rows = np.concatenate([task.encode(one, 0)["y"] for one in train])
    deviation = rows[:, :2].std(0)
    p = (rows[:, 2].sum() + 1) / (len(rows) + 2)
    rho = np.corrcoef(rows[:, :2].T)[0, 1]
    halves = np.repeat([*rows[:, :2].mean(0), *np.log(deviation), np.arctanh(rho)], 2)
    y_hat = np.concatenate([[-np.log(p / (1 - p)), 0, 0], halves]).astype(np.float32)
    (batch,) = task.validation(len(apart), task.steps)
    answers = np.broadcast_to(y_hat, (*batch.mask.shape, len(y_hat)))
    loss = float(task.score(answers, batch)["loss"])
    np.testing.assert_allclose(loss, task.baseline(task.steps)["loss"], rtol=1e-4)
    assert len(train) == 600 and len(apart) == 100


def test_omniglot_is_what_sketch_rnn_has():
    found = raw("omniglot")
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 30000, "validation": 1000, "test": 1000
    }  # fmt: skip
    assert found["train"][0]["longest"] == 143
