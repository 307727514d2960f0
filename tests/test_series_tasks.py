"""Tasks of time series, music, strokes and sound: what papers have of them, and naive loops."""

import io
import math
import os
import pickle
from datetime import datetime, timedelta

import numpy as np
import pytest
from made_files import DRAWINGS, MADE, iam_line

from seqjax.data import DATASETS, DataError
from seqjax.data.pickles import read_npz, unpickled
from seqjax.data.sets.strokes import offsets
from seqjax.data.sets.uea import parse
from seqjax.tasks import make
from seqjax.tasks.forecasting import parts_of, time_features
from seqjax.tasks.uea import whole_series


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Writes the made-up files of a dataset; what is prepared goes beside them."""
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))

    def write(dataset, layout):
        MADE[dataset, layout](tmp_path)

    return write


def raw(dataset):
    """The examples of the raw files that are here, by split."""
    layout, paths = DATASETS[dataset].find()
    return {split: list(rows) for split, rows in layout.examples(paths).items()}


# -- the archives of UEA and UCR --

SETS = {  # training and test series, channels, fewest and most steps, classes: as published
    "ACSF1": (100, 100, 1, 1460, 1460, 10),
    "ArrowHead": (36, 175, 1, 251, 251, 3),
    "BasicMotions": (40, 40, 6, 100, 100, 4),
    "GunPoint": (50, 150, 1, 150, 150, 2),
    "ItalyPowerDemand": (67, 1029, 1, 24, 24, 2),
    "JapaneseVowels": (270, 370, 12, 7, 29, 9),
    "OSULeaf": (200, 242, 1, 427, 427, 6),
    "PLAID": (537, 537, 1, 100, 1344, 11),
}


@pytest.mark.share(2)
@pytest.mark.parametrize("name", SETS)
def test_sets_are_those_that_the_archives_describe(name):
    found = raw(f"uea_{name.lower()}")
    rows = found["train"] + found["test"]
    (channels,), (classes,) = ({row[field] for row in rows} for field in ("channels", "classes"))
    steps = [len(row["values"]) // channels for row in rows]
    shape = (len(found["train"]), len(found["test"]), channels, min(steps), max(steps), classes)
    assert shape == SETS[name]
    assert {row["label"] for row in rows} == set(range(classes))


def test_a_file_of_series_means_what_it_means_to_aeon():
    text = """
# comments and empty lines

@ProblemName made
@missing true
@classLabel true Left right
@data
1,?,3:-1e-2,5,NaN:right
 4 , 5 : 6,7 : left
"""
    found = parse(text)
    nan = math.nan
    expected = ([[1, -0.01], [nan, 5], [3, nan]], [[4, 6], [5, 7]])
    for values, rows in zip(found.values, expected, strict=True):
        np.testing.assert_array_equal(values, np.array(rows, np.float32))
    assert (found.y, found.classes) == (["right", "left"], ["left", "right"])
    for line, message in (
        ("1,2:3:left", r"line 8 has channels of \[1, 2\] steps"),
        ("1,2", "line 8 has no class"),
        ("1,2:up", "line 8 has the class up"),
        ("1,x:left", "could not convert"),
    ):
        with pytest.raises(ValueError, match=message):
            parse("\n".join([*text.splitlines()[:7], line]))
    for head, message in (
        ("@timeStamps true\n@data", "time stamps"),
        ("@data", "neither @classLabel"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(f"{head}\n1:2\n")


def test_what_is_missing_is_drawn_between_what_is_there():
    nan = math.nan
    x = np.array([[nan, nan, 1], [0, nan, nan], [nan, nan, nan], [3, nan, nan], [nan, nan, 5]])
    example = {"values": x.astype(np.float32).ravel(), "channels": 3}
    expected = [[0, 0, 1], [0, 0, 2], [1.5, 0, 3], [3, 0, 4], [3, 0, 5]]
    np.testing.assert_allclose(whole_series(example), expected, rtol=1e-6)


def test_series_of_an_archive_are_classified(made):
    made("uea_gunpoint", "folder")
    task = make("uea", dataset="GunPoint", held_out="test")
    assert task.spec.inputs.shape == (2,) and task.spec.outputs.count == 2
    assert task.decides["length"] == 4 and len(task.train) == 3 and len(task.apart) == 2
    (batch,) = task.validation(2, 4)
    short = int(np.argmin(batch.present.sum(1)))
    np.testing.assert_array_equal(batch.x[short], [[1, -1], [0, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(batch.present[short], [True, False, False, False])
    assert batch.y[short] == 0 and batch.y[1 - short] == 1
    with pytest.raises(ValueError, match="targets of BIDMC32HR are numbers"):
        make("uea", dataset="BIDMC32HR")
    with pytest.raises(ValueError, match="a set has a name"):
        make("uea", dataset="../GunPoint")
    with pytest.raises(DataError, match="no files of uea_beef"):
        make("uea", dataset="Beef")


# -- forecasting --

WINDOWS = {  # rows, horizon, look-back; windows of each part that the published loaders have
    "etth1": (17420, 96, 96, (8449, 2785, 2785)),
    "ettm1": (69680, 96, 96, (34369, 11425, 11425)),
    "exchange": (7588, 96, 96, (5120, 665, 1422)),
    "illness": (966, 24, 36, (617, 74, 170)),
    "weather": (52696, 96, 96, (36696, 5175, 10444)),
}
REPEATED = {  # test mse and mae of the last value, H = 96: arXiv:2205.13504, table 2
    "etth1": (1.295, 0.713),
    "etth2": (0.432, 0.422),
    "ettm1": (1.214, 0.665),
    "exchange": (0.081, 0.196),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_parts_of_a_series_have_as_many_windows_as_published(name):
    rows, horizon, seen, counts = WINDOWS[name]
    parts = parts_of(name, rows)
    first, last = parts["train"]
    found = [last - first - seen - horizon + 1]
    found += [end - start - horizon + 1 for start, end in list(parts.values())[1:]]
    assert tuple(found) == counts


@pytest.mark.share(2)
@pytest.mark.parametrize("name", REPEATED)
def test_the_last_value_has_the_published_errors(name):
    task = make("forecasting", dataset=name, held_out="test")
    found = task.naive(192)["last value"]
    # tables have three digits, and may lack the windows of a last batch
    np.testing.assert_allclose([found["mse"], found["mae"]], REPEATED[name], atol=1.1e-3)
    assert len(task.starts("test", 192)) == WINDOWS.get(name, WINDOWS["etth1"])[3][2]


def test_windows_are_those_of_a_loop_over_the_rows():
    horizon, seen = 3, 5
    task = make("forecasting", dataset="illness", horizon=horizon, calendar=True)
    minutes, values = series("illness")
    begin, rows = datetime(1970, 1, 1), len(values)
    first, last = int(rows * 0.7), rows - int(rows * 0.2)
    mean = [sum(column[:first]) / first for column in zip(*values)]
    deviation = [
        math.sqrt(sum((v - m) ** 2 for v in column[:first]) / first)
        for column, m in zip(zip(*values), mean)
    ]
    held_out = list(task.validation(16, seen + horizon))
    assert sum(int(batch.mask.any(1).sum()) for batch in held_out) == last - first - horizon + 1
    batch, width = held_out[0], len(mean)
    for row in (0, 7):
        start = first - seen + row
        for t in range(seen + horizon):
            scaled = [(v - m) / d for v, m, d in zip(values[start + t], mean, deviation)]
            when = begin + timedelta(minutes=int(minutes[start + t]))
            clock = [when.minute / 59, when.hour / 23, when.weekday() / 6, (when.day - 1) / 30,
                     (when.timetuple().tm_yday - 1) / 365]  # fmt: skip
            hidden = t >= seen
            x = [0 if hidden else v for v in scaled] + [hidden] + [c - 0.5 for c in clock]
            np.testing.assert_allclose(batch.x[row, t], x, atol=2e-5)
            np.testing.assert_allclose(batch.y[row, t], scaled, atol=2e-5)
            assert batch.mask[row, t] == hidden
    assert batch.x.shape == (16, seen + horizon, width + 6)
    # none of what is trained on shows anything of what is held out
    starts = task.starts("train", seen + horizon)
    assert starts[0] == 0 and starts[-1] + seen + horizon == first
    moved = make("forecasting", dataset="illness", horizon=horizon, from_last=True)
    (other, *_) = moved.validation(16, seen + horizon)
    np.testing.assert_allclose(other.y, batch.y - batch.y[:, seen - 1 : seen], atol=1e-6)
    np.testing.assert_array_equal(other.x[:, :seen, :width], other.y[:, :seen])
    zero = moved.score(np.zeros_like(other.y), other)["mse"]
    repeated = task.score(np.broadcast_to(batch.y[:, seen - 1 : seen], batch.y.shape), batch)["mse"]
    np.testing.assert_allclose(zero, repeated, rtol=1e-5)


def series(name):
    (example,) = raw(name)["series"]
    return example["minutes"], example["values"].reshape(-1, example["channels"]).tolist()


def test_forecasts_score_what_they_must():
    for answer in ("values", "quantiles"):
        task = make("forecasting", dataset="illness", horizon=4, answer=answer, univariate=True)
        (batch,) = task.validation(94, 10)
        assert batch.x.shape[-1] == 2 and batch.mask.any(1).all()
        at_zero = np.zeros((*batch.y.shape[:2], task.spec.outputs.size), np.float32)
        for y_hat, name in (
            (at_zero, "mean"),
            (at_zero + batch.x[:, 5:6, :1], "last value"),
            (at_zero + batch.y, None),
        ):
            metrics = task.score(y_hat, batch)
            expected = task.naive(10)[name] if name else dict.fromkeys(metrics, 0)
            for key, value in expected.items():
                np.testing.assert_allclose(metrics[key], value, rtol=1e-5, err_msg=key)
        assert task.baseline(10) in task.naive(10).values()


def test_times_of_day_week_and_year():
    for when in (datetime(2016, 2, 29, 23, 45), datetime(2018, 12, 31), datetime(1969, 7, 20, 20)):
        minutes = np.array([(when - datetime(1970, 1, 1)) // timedelta(minutes=1)])
        expected = [when.minute / 59, when.hour / 23, when.weekday() / 6, (when.day - 1) / 30,
                    (when.timetuple().tm_yday - 1) / 365]  # fmt: skip
        np.testing.assert_allclose(time_features(minutes)[0], np.array(expected) - 0.5)


def test_what_no_window_can_be_is_refused(made):
    made("exchange", "txt_gz")
    with pytest.raises(ValueError, match="calendar needs dates, which these files of exchange"):
        make("forecasting", dataset="exchange", calendar=True)
    task = make("forecasting", dataset="exchange", horizon=2)
    for length, part in ((2, "train"), (15, "train"), (17, "validation")):
        with pytest.raises(ValueError, match=f"the {part} part .*got length {length}"):
            task.starts(part, length)
    assert len(task.starts("train", 14)) == 1 and len(task.starts("validation", 14)) == 1


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
    assert make("polyphonic", frames=1).decides["evaluation_length"] == 2
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
