"""What is kept of a run, what a checkpoint holds, and what a full disk or a strange one costs."""

import errno
import json
import re
import resource
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from test_train import StopAt

from seqjax.core import files
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tools import cli
from seqjax.train import checkpoint
from seqjax.train.checkpoint import FORMAT, SEAL, CheckpointError, Checkpoints, fingerprint
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.loop import train
from seqjax.train.record import read_config, read_metrics
from seqjax.train.trained import load

TINY = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=4, evaluation_batches=2),
    ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1),
    OptimiserConfig(learning_rate=0.03, warmup=5, schedule="constant"),
    TrainConfig(steps=20, evaluate_every=4, save_every=3, keep_every=7, log_every=5,
                best_by="accuracy", best_is="highest"),
)  # fmt: skip
ARRAYS = {"params": {"a": np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)}}


def settings(**changes):
    return replace(TINY, train=replace(TINY.train, **changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    return train(TINY, run), run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained[1], tmp_path / "run")


def test_the_best_by_any_metric_and_every_so_many_steps_are_kept(trained):
    result, run = trained
    scores = {row["step"]: row["validation_accuracy"] for row in read_metrics(run)
              if "validation_accuracy" in row}  # fmt: skip
    best = max(scores, key=lambda step: (scores[step], -step))
    assert result.best["step"] == best and result.best["accuracy"] == scores[best]
    losses = {row["step"]: row["validation_loss"] for row in read_metrics(run)
              if "validation_loss" in row}  # fmt: skip
    assert result.best["loss"] == losses[best] and min(losses, key=losses.__getitem__) != best
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == sorted({best, 7, 14, 18, 20})
    assert load(run)[3] == best


def test_a_metric_that_there_is_not_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^unknown metric train.best_by 'acuracy'.*'accuracy'"):
        train(settings(best_by="acuracy"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_kept(tmp_path):
    with Checkpoints(tmp_path, 1, 4) as checkpoints:
        for step in range(0, 14, 2):
            checkpoints.best = min(step, 6)
            checkpoints.save(step, ARRAYS, {})
        assert checkpoints.steps() == [4, 6, 8, 12]


def test_the_command_lists_them(trained, run, capsys):
    best, kept = trained[0].best["step"], Checkpoints(run / "checkpoints", read_only=True).steps()
    assert cli.main(["checkpoints", str(run)]) == 0
    printed = capsys.readouterr().out
    rows = {int(line.split()[0]): line for line in printed.splitlines()[2:] if line}
    assert list(rows) == kept and " best " in rows[best]
    assert "for good" in rows[7] and "for good" not in rows[20]
    assert all("float32" in line and line.endswith("yes") for line in rows.values())
    assert f"accuracy {trained[0].metrics['accuracy']:.4g}" in rows[20]
    (run / "checkpoints" / "18" / SEAL).unlink()
    assert cli.main(["checkpoints", str(run), "--json"]) == 1
    held = {one["step"]: one for one in json.loads(capsys.readouterr().out)}
    assert "no seal" in held[18]["fault"] and held[20]["fault"] is None
    files = [path for path in (run / "checkpoints" / "20").rglob("*") if path.is_file()]
    assert held[20]["bytes"] == sum(path.stat().st_size for path in files)


def sealed(folder):
    """As if what is in it had been written so."""
    (folder / SEAL).unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{checkpoint._hash(path)}  {path.relative_to(folder)}\n" for path in files]
    (folder / SEAL).write_text("".join(lines))


@pytest.mark.parametrize("strange", ["newer", "foreign"])
def test_what_this_version_cannot_read_is_named_with_the_last_step_that_it_can(
    strange, trained, run, monkeypatch
):
    folder, before = (
        run / "checkpoints" / "20",
        fingerprint(Checkpoints(run / "checkpoints").read(18)[0]),
    )
    if strange == "newer":
        (text,) = folder.glob("extra/metadata")
        text.write_text(text.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    else:
        shutil.rmtree(folder / "extra")
    sealed(folder)
    reason = {"newer": f"has format {FORMAT + 1}, and this version knows {FORMAT}",
              "foreign": "is not a checkpoint of seqjax"}[strange]  # fmt: skip
    with pytest.raises(
        CheckpointError, match=f"/20 {reason}: the last complete step is 18"
    ) as error:
        train(settings(steps=21), run)
    assert "\n" not in str(error.value)
    shutil.rmtree(folder)
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        assert fingerprint(checkpoints.read()[0]) == before


def test_a_checkpoint_from_before_formats_is_read(run):
    folder = run / "checkpoints" / "20"
    (text,) = folder.glob("extra/metadata")
    text.write_text(
        text.read_text().replace(f'"format": {FORMAT}, ', "").replace(f', "format": {FORMAT}', "")
    )
    assert "format" not in text.read_text()
    sealed(folder)
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.read(20)[1]["step"] == 20


# --- another dtype


@pytest.mark.thorough
def test_a_run_goes_on_and_is_evaluated_in_another_dtype(run, capsys):
    """Its parameters are float32 in both."""
    for n, compute, was in ((21, "bfloat16", "float32"), (22, "float32", "bfloat16")):
        before = Checkpoints(run / "checkpoints", read_only=True).read()[0]
        config = settings(steps=n, evaluate_every=100)
        train(replace(config, model=replace(config.model, compute=compute)), run)
        line = f"going on from step {n - 1}, in {compute} what was in {was}\n"
        assert line in capsys.readouterr().out
        assert read_config(run).model.compute == compute
        after = Checkpoints(run / "checkpoints", read_only=True).read()[0]
        moved = [np.abs(after[k] - before[k]).max() for k in after if k.startswith("params.")]
        assert 0 < max(moved) < 0.1  # a step, of a rate of 0.03
    assert cli.main(["eval", str(run), "--step", "14"]) == 0
    plain = capsys.readouterr().out
    assert cli.main(["eval", str(run), "--step", "14", "--compute", "bfloat16"]) == 0
    rough = capsys.readouterr().out
    assert "in bfloat16 what was trained in float32\n" in rough
    losses = [float(re.search(r"loss (\S+)", text)[1]) for text in (plain, rough)]
    assert losses[0] != losses[1] and abs(losses[0] - losses[1]) < 0.02
    model, *_ = load(run, 14, compute="bfloat16")
    assert model.compute == jnp.bfloat16


def test_floats_are_cast_and_integers_are_not(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"n": np.arange(3), "a": np.float32([0.1, 2.5])}, {})
        for dtype in (jnp.bfloat16, jnp.float16, jnp.float64):
            found = checkpoints.restore({"n": np.arange(3), "a": jnp.zeros(2, dtype)})[0]
            assert found["a"].dtype == dtype
            np.testing.assert_array_equal(found["a"], np.float32([0.1, 2.5]).astype(dtype))
        with pytest.raises(CheckpointError, match="differs in 1 arrays: n"):
            checkpoints.restore({"n": np.arange(3.0), "a": np.zeros(2)})


# --- a full disk


@pytest.mark.parametrize("room", [50, 300, 3000, 100_000])
def test_a_full_disk_costs_no_earlier_step(room, tmp_path):
    """A disk of so many bytes in a file: the first file is too large, or a later one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path, 1)
    with pytest.raises(CheckpointError) as error, checkpoints:
        checkpoints.save(3, ARRAYS, {"n": 3})
        kept = fingerprint(checkpoints.read()[0])
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            checkpoints.save(6, ARRAYS, {"n": 6})
            checkpoints.steps()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value) == (
        f"step 6 could not be saved in {tmp_path}: File too large; the last complete step is 3, "
        "and the same command goes on from there"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"3", "lock"}  # the room is given back
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert fingerprint(checkpoints.read()[0]) == kept
        checkpoints.save(6, ARRAYS, {"n": 6})
        assert checkpoints.steps() == [6]


@pytest.mark.share(1)
@pytest.mark.parametrize("write", [2, 1, 3])
def test_a_run_on_a_full_disk_ends_with_one_line(write, tmp_path, monkeypatch, capsys):
    """At the n-th of its saves, and so of what this process writes with a seal."""
    seals, whole = [0], files.write_atomically

    def full(path, content):
        seals[0] += path.name == SEAL
        if path.name == SEAL and seals[0] == write:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    run = tmp_path / "run"
    last = "no step is complete" if write == 1 else f"the last complete step is {[3, 4][write - 2]}"
    with pytest.raises(CheckpointError, match=f"could not be saved .*: No space left.*{last}"):
        train(TINY, run)
    assert not list((run / "checkpoints").glob("*partial*"))
    monkeypatch.undo()
    assert train(TINY, run, StopAt(5)).step >= 5  # once there is room


@pytest.mark.thorough
def test_metrics_that_cannot_be_written_are_one_line_with_the_last_step(tmp_path, monkeypatch):
    from seqjax.train.record import Record

    def full(self, step, metrics):
        if step == 10:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Record, "write", full)
    wanted = (
        r"^metrics.jsonl of .* could not be written: No space left.*last good checkpoint is .*/9$"
    )
    with pytest.raises(CheckpointError, match=wanted):
        train(TINY, tmp_path)
