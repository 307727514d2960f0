"""`seqjax plot`: runs put together, named by what differs, over steps, tokens or seconds."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from seqjax.tools.cli import main
from seqjax.tools.curves import curves, labels, read_run
from seqjax.tools.knobs import knobs
from seqjax.tools.plot import baselines, picture, title
from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig, TrainConfig
from seqjax.train.record import write_config

STEPS = (10, 20, 30)
CONFIG = Config(
    TaskConfig("state_tracking", {"group": "S3"}, batch=4, length=8, evaluation_length=32),
    ModelConfig(layer=(LayerConfig("gru"),), features=16),
    train=TrainConfig(steps=30),
)


def with_layer(name, **options):
    layer = (LayerConfig(name, options),)
    return replace(CONFIG, model=replace(CONFIG.model, layer=layer))


def a_run(folder, config, seed=0, values=(3.0, 2.0, 1.0)):
    """As training leaves it, but for the checkpoints: 2 seconds a step."""
    write_config(folder, replace(config, train=replace(config.train, seed=seed)))
    lines = [{"step": step, "loss": v / 2, "seconds": 2.0 * step + 1} for step, v in
             zip(STEPS, values, strict=True)]  # fmt: skip
    lines += [{"step": step, "validation_loss": v} for step, v in zip(STEPS, values, strict=True)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two layers, the first with three seeds."""
    return [
        *(
            a_run(tmp_path / f"gru-{n}", with_layer("gru"), n, (3.0, 2.0, 1.0 + n))
            for n in (0, 1, 2)
        ),
        a_run(tmp_path / "gla", with_layer("gla", heads=2), 0, (4.0, 3.0, 0.5)),
    ]


def test_seeds_are_one_curve(runs):
    found = curves([read_run(run) for run in runs], "validation_loss", "tokens")
    assert [(curve.label, len(curve.runs)) for curve in found] == [("gru", 3), ("gla", 1)]
    np.testing.assert_array_equal(found[0].values, [[3, 2, 1], [3, 2, 2], [3, 2, 3]])
    np.testing.assert_array_equal(found[0].x, np.multiply(STEPS, 4 * 8))
    (seconds, *_) = curves([read_run(runs[0])], "validation_loss", "seconds")
    np.testing.assert_array_equal(seconds.x, [21, 41, 61])
    assert seconds.label == "gru-0", "of one curve the folder"


@pytest.mark.parametrize("configs, expected", [
    ([with_layer("gru"), with_layer("gla")], ["gru", "gla"]),
    ([with_layer("gru", hidden=8), with_layer("gru", hidden=16)], ["hidden=8", "hidden=16"]),
    ([with_layer("gru", hidden=8), with_layer("gru", hidden=16), with_layer("gla", heads=2)],
     ["gru, hidden=8", "gru, hidden=16", "gla"]),
    ([CONFIG, replace(CONFIG, model=replace(CONFIG.model, features=32)),
      replace(CONFIG, task=replace(CONFIG.task, options={"group": "A5"}))],
     ["group=S3, features=16", "group=S3, features=32", "group=A5, features=16"]),
    ([CONFIG, replace(CONFIG, task=TaskConfig("copy"))], ["state_tracking, batch=4, length=8, "
      "evaluation_length=32", "copy, batch=32, length=64, evaluation_length=None"]),
    ([CONFIG], [""]),
    ([CONFIG, replace(CONFIG, train=replace(CONFIG.train, seed=9))], ["", ""]),
])  # fmt: skip
def test_labels_are_what_differs(configs, expected):
    assert labels(configs) == expected


def test_the_picture_has_bands_and_the_baseline(runs):
    found = curves([read_run(run) for run in runs], "validation_loss", "steps")
    expected = {"baseline of state_tracking": pytest.approx(np.log(6))}
    assert baselines(found, "validation_loss") == expected
    assert title(found, "validation_loss").endswith("evaluated at length 32, trained at 8")
    assert title(found, "loss") == "state_tracking"
    (axes,) = picture(found, "validation_loss", "steps").axes
    first, second, baseline = (line.get_ydata() for line in axes.lines)
    np.testing.assert_allclose(first, [3, 2, 2])
    np.testing.assert_allclose(second, [4, 3, 0.5])
    np.testing.assert_allclose(baseline, np.log(6))
    (band,) = axes.collections
    assert (band.get_datalim(axes.transData).ymin, band.get_datalim(axes.transData).ymax) == (1, 3)
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["gru  (3 seeds)", "gla", "baseline of state_tracking, 1.79"]


def test_a_baseline_is_of_the_length_that_is_measured(tmp_path):
    task = TaskConfig("copy", {"symbols": 4, "memorised": 5}, length=20, evaluation_length=50)
    run = read_run(a_run(tmp_path / "copy", replace(CONFIG, task=task)))
    assert run.baseline("validation_loss") == pytest.approx(5 * np.log(4) / 50)
    assert run.baseline("loss") == pytest.approx(5 * np.log(4) / 20)
    assert run.baseline("gradient_norm") is None


def test_numbers_and_pictures_are_written(runs, tmp_path, capsys):
    words = ["plot", *map(str, runs)]
    assert main([*words, "--out", str(tmp_path / "x.csv")]) == 0
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and {row["label"] for row in rows} == {"gru", "gla"}
    assert rows[-1]["tokens"] == "960" and rows[-1]["validation_loss"] == "0.5"
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["gru", "3", "30", "2", "1", "1.667"], "mean, sd, mean of the best"
    for name, start in (("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.pdf", b"%PDF")):
        options = ["--x", "seconds", "--metric", "loss", "--out", str(tmp_path / name)]
        assert main([*words, *options]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize("words, message", [
    ([], "give at least one folder of a run"),
    (["nowhere"], "nowhere is not the folder of a run"),
    (["gla", "--metric", "validation_los"], "unknown metric of gla: 'validation_los'; did you mean "
     "'validation_loss'"),
    (["gla", "--x", "hours"], "x must be 'steps' or 'tokens' or 'seconds', got 'hours'"),
    (["gla", "--out", "x.doc"], "figure must end in one of"),
    (["gla", "--out", "none/x.csv"], "figure must be a file in a folder that exists"),
    (["empty"], "empty has no metrics yet"),
])  # fmt: skip
def test_a_mistake_is_one_line(runs, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "empty", CONFIG)
    before = sorted(tmp_path.rglob("*"))
    assert main(["plot", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_sliders_over_curves():
    curves = np.arange(24.0).reshape(2, 3, 4)
    curves[0, 0, :2] = np.inf, -np.inf
    page = knobs(curves, {"a<b": [0.5, 1], "name": ["x", "y", "</script>"]}, low=-1, high=30)
    data = json.loads(page.partition("const data = ")[2].partition(", sliders")[0])
    assert np.shape(data) == (2, 3, 4) and data[0][0] == [30, -1, 2, 3] and data[1][2][3] == 23
    assert "a&lt;b" in page and page.count("</script>") == 1
    with pytest.raises(ValueError, match=r"curves must be \[2, 'T'\] for these sliders"):
        knobs(curves, {"a": [1, 2]}, low=0, high=1)
