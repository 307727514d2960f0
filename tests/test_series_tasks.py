"""Tasks of time series: what papers have of them, and naive loops."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from made_series import prepares, raw

from seqjax.data import DataError
from seqjax.data.sets.uea import parse
from seqjax.tasks import make
from seqjax.tasks.signals.forecasting import parts_of, time_features
from seqjax.tasks.signals.uea import whole_series


@pytest.fixture
def made(tmp_path, monkeypatch):
    return prepares(tmp_path, monkeypatch)


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


@pytest.mark.share(1)
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


@pytest.mark.share(1)
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


def test_steps_of_a_series_are_answered_from_those_before():
    horizon, seen = 3, 5
    given = dict(dataset="illness", horizon=horizon, calendar=True)
    task = make("forecasting", stepwise=True, answer="gaussian", **given)
    whole = make("forecasting", **given)
    width = whole.values.shape[1]
    batch, other = (next(one.validation(16, seen + horizon)) for one in (task, whole))
    assert (batch.mask == 1).all() and batch.x.shape[-1] == width + 6
    for row in (0, 7):
        nu = 1 + np.mean([abs(float(v)) for step in other.y[row, :seen] for v in step])
        for t in range(seen + horizon):
            before = other.y[row, t - 1] / nu if t else np.zeros(width)
            expected = [*before, math.log(nu), *other.x[row, t, width + 1 :]]
            np.testing.assert_allclose(batch.x[row, t], expected, atol=1e-5)
            np.testing.assert_allclose(batch.y[row, t], [*other.y[row, t], nu], atol=1e-5)
    # a model that repeats what it reads has the errors of the last value
    starts = task.starts("validation", seen + horizon)
    held_out = task.windows(starts, seen + horizon)
    nu, ahead = held_out.y[..., -1:], slice(1, None)
    error = (nu * held_out.x[..., :width] - held_out.y[..., :-1])[:, ahead]
    found = task.naive(seen + horizon)["last value"]
    np.testing.assert_allclose(found["mae"], np.abs(error).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["rmse"], np.sqrt((error**2).mean()), rtol=1e-5)
    some = task.spread(3, seen + horizon)
    np.testing.assert_array_equal(some.x[[0, -1]], held_out.x[[0, -1]])
    with pytest.raises(ValueError, match="stepwise goes with answer=gaussian or student_t"):
        make("forecasting", stepwise=True, dataset="illness")


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


def test_forecasts_of_distributions_have_the_baseline_of_a_gaussian():
    """Of one deviation, that of the errors; Student's t of many degrees of freedom is that too."""
    for answer, degrees in (("gaussian", ()), ("student_t", (1e6,))):
        task = make("forecasting", dataset="illness", horizon=4, answer=answer, univariate=True)
        (batch,) = task.validation(94, 10)
        for name, mean in (
            ("mean", 0 * batch.y),
            ("last value", 0 * batch.y + batch.x[:, 5:6, :1]),
        ):
            expected = task.naive(10)[name]
            hats = [*degrees, 0.0, np.log(np.expm1(expected["rmse"]))]
            y_hat = np.broadcast_to(np.float32(hats), (*batch.y.shape[:2], len(hats))).copy()
            y_hat[..., -2:-1] = mean
            found = task.summary(task.score(y_hat, batch))
            for key, value in expected.items():
                np.testing.assert_allclose(found[key], value, rtol=1e-4, err_msg=key)


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


# -- people --


def test_stays_have_uneven_steps_and_missing_numbers(made):
    made("physionet_sepsis", "folders")
    task = make("physionet", held_out="test")
    source = task.data.source("patients")
    stays = {tuple(one["hours"]): task.encode(one, 72) for one in source}
    trained = [task.train[i] for i in range(len(task.train))]
    rates = [r for one in trained for h, r in zip(one["hours"], one["values"][::34]) if h <= 72]
    mean, deviation = np.nanmean(rates), np.nanstd(rates) or 1

    def scaled(*numbers):
        return [0 if n is None else (n - mean) / deviation for n in numbers]

    first = stays[1, 2, 3, 5]  # nothing was measured in the second hour
    np.testing.assert_allclose(first["x"][:, 0], scaled(80, 80, 90.5), rtol=1e-5)
    np.testing.assert_array_equal(first["x"][:, 39], [1, 0, 1])
    np.testing.assert_array_equal(first["x"][:, 41], [0, 1, 0])
    np.testing.assert_array_equal(first["dt"], [1, 2, 2])
    assert first["y"] == 0 and first["x"].shape == (3, 73)
    empty = stays[4, 6]
    assert empty["x"].shape == (1, 73) and not empty["x"][0, 39:].any() and empty["dt"] == [1]
    late = stays[2, 72, 73]  # sepsis comes after what is seen
    np.testing.assert_array_equal(late["dt"], [1, 70])
    np.testing.assert_allclose(late["x"][:, 0], scaled(100, 110), rtol=1e-5)
    assert late["y"] == 1
    (batch,) = task.validation(len(task.apart), 72)
    assert batch.dt is not None and batch.x.shape[1:] == (72, 73)
    np.testing.assert_array_equal(batch.dt > 0, batch.present)
    right = task.score(60 * np.eye(2, dtype=np.float32)[batch.y], batch)
    assert right["accuracy"] == 1 and set(task.baseline(72)) <= set(right)
    assert make("physionet", intensity=False).spec.inputs.shape == (39,)
    within = make("physionet", times="input", held_out="test")
    (other,) = within.validation(len(task.apart), 72)
    assert other.dt is None and not within.spec.timed
    np.testing.assert_array_equal(other.x[..., -1], batch.dt)
    np.testing.assert_array_equal(other.x[..., :-1], batch.x)


def test_people_who_train_are_not_those_held_out(made):
    made("har", "zip")
    task = make("har2")
    assert {one["person"] for one in task.train} == {1, 3, 5, 6}
    assert [one["person"] for one in task.apart] == [7]
    seen = {one["activity"]: task.encode(one, 128) for one in [*task.train, *task.apart]}
    # walking, up and down stairs, sitting, standing, lying
    assert [seen[n]["y"] for n in range(6)] == [1, 0, 1, 0, 1, 0]
    for n in range(6):
        np.testing.assert_array_equal(seen[n]["x"][0], 10 * n + np.arange(9))
        assert seen[n]["x"].shape == (128, 9) and (seen[n]["x"][1:] == 0.5).all()
    assert make("har2", kinds=6).spec.outputs.count == 6


def test_a_table_that_is_absent_is_named(made, tmp_path):
    made("har", "folder")
    (tmp_path / "har/UCI HAR Dataset/test/Inertial Signals/body_gyro_y_test.txt").unlink()
    with pytest.raises(
        DataError, match="UCI HAR Dataset has no test/Inertial Signals/body_gyro_y_test.txt"
    ):
        make("har2")


def test_errors_of_vital_signs_are_in_their_own_unit(made):
    made("uea_bidmc32hr", "folder")
    task = make("bidmc", vital="HR", held_out="test")
    targets = [one["target"] for one in task.train]
    (batch,) = task.validation(3, 3)
    means = task.score(np.zeros((3, 1), np.float32), batch)
    found = task.summary(means)["rmse"]
    apart = np.array([60.5, 61.5, 62.5])
    np.testing.assert_allclose(found, np.sqrt(np.mean((apart - np.mean(targets)) ** 2)), rtol=1e-5)
    np.testing.assert_allclose(means["mse"], task.baseline(3)["mse"], rtol=1e-5)
    assert batch.x.shape == (3, 3, 2)
