"""Training: it learns, goes on bitwise after a stop, survives damage, and says what went wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.stacks.config import LayerConfig, ModelConfig, parse_layers, show_pattern
from seqjax.stacks.model import Model
from seqjax.tasks import make
from seqjax.tools import cli, writers
from seqjax.tools.jobs import with_field
from seqjax.train.checkpoint import CheckpointError, Checkpoints, fingerprint
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig, from_dict
from seqjax.train.loop import NotFinite, train
from seqjax.train.optimiser import build, learning_rate
from seqjax.train.progress import Progress, clock, short
from seqjax.train.record import read_config, read_metrics, write_config
from seqjax.train.step import TrainState, make_update, take_apart
from seqjax.train.trained import load

ELMAN = (LayerConfig("elman"),)
PARITY = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=32, length=6, evaluation_batches=2),
    ModelConfig(layer=ELMAN, features=16, depth=1),
    OptimiserConfig(learning_rate=0.01, warmup=10),
    TrainConfig(steps=300, evaluate_every=150, save_every=1000, log_every=50),
)


def settings(config, **changes):
    return replace(config, train=replace(config.train, **changes))


class StopAt(Progress):
    """A terminal in front of which somebody presses Ctrl-C, or kills politely, at a step."""

    def __init__(self, at, number=signal.SIGTERM):
        super().__init__(0)
        self.at, self.number = at, number

    def update(self, step, *rest):
        if step == self.at:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes(b"the quick brown fox jumps over the lazy dog; " * 300)
    return path


@pytest.fixture(scope="module")
def streams(text):
    """What a checkpoint must hold at its widest: dropout, carried state, a position in a text."""
    return Config(
        TaskConfig("char_lm", {"path": str(text), "held_out": 200, "order": "streams"},
                   batch=4, length=8, evaluation_batches=None),
        ModelConfig(layer=(*ELMAN, LayerConfig("indrnn")), features=8, depth=3, dropout=0.1),
        OptimiserConfig(accumulate=2, warmup=5),
        TrainConfig(steps=20, evaluate_every=10, save_every=5, log_every=1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(streams, tmp_path_factory):
    run = tmp_path_factory.mktemp("straight")
    return train(streams, run), run


def hash_of(run, step):
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        return fingerprint(checkpoints.read(step)[0])


def test_it_learns_and_leaves_a_record(tmp_path):
    result = train(PARITY, tmp_path)
    assert result.reason == "finished" and result.step == 300
    assert result.metrics["accuracy"] > 0.95  # chance is 0.58: the first step shows its answer
    rows = read_metrics(tmp_path)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 6 and losses[-1] < 0.2 < losses[0]
    assert [row["step"] for row in rows if "validation_loss" in row] == [150, 300]
    assert all(row["tokens_per_second"] > 0 for row in rows if row["step"] > 50 and "loss" in row)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.glob("events.*"))) == 1
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["config"]["model"]["layer"][0]["options"]["activation"] == "tanh"  # filled in
    assert {"jax", "device", "git", "python"} <= told["environment"].keys()

    model, task, config, step = load(tmp_path)
    assert step == 300 and config == read_config(tmp_path)
    batch = task.sample(jax.random.key(1), 64, 6)
    assert task.score(model(batch.x)[0], batch)["accuracy"] > 0.95


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on_bitwise(streams, straight, tmp_path, number):
    whole, run = straight
    at = 7 if number == signal.SIGTERM else 10
    first = train(streams, tmp_path, StopAt(at, number))
    assert first.reason == number.name and at <= first.step < 20
    second = train(streams, tmp_path)
    assert second.step == 20 and hash_of(tmp_path, 20) == hash_of(run, 20)
    assert second.metrics == whole.metrics and second.best == whole.best
    lines = [{k: v for k, v in row.items() if "second" not in k}
             for folder in (run, tmp_path) for row in read_metrics(folder)]  # fmt: skip
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    again = train(streams, tmp_path)
    assert again.step == 20 and again.metrics == whole.metrics


def test_a_checkpoint_is_the_whole_state_and_the_best_one_is_kept(straight):
    result, run = straight
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        steps, (arrays, extra) = checkpoints.steps(), checkpoints.read()
    assert set(steps) == {15, 20} | {result.best["step"]}
    kinds = {name.split(".")[0] for name in arrays}
    assert kinds == {"step", "params", "moments", "key", "carry"}
    assert extra["data"] and extra["best"] == result.best
    assert float(np.abs(arrays["carry.blocks.0"]).max()) > 0
    model, _, _, step = load(run)
    assert step == result.best["step"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.share(1)
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "seal"])
def test_a_damaged_checkpoint_is_one_clear_error(streams, straight, tmp_path, damage):
    run = shutil.copytree(straight[1], tmp_path / "run")
    folder = run / "checkpoints" / "20"
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    if damage == "seal":
        largest = folder / "SHA256SUMS"
    contents = bytearray(largest.read_bytes())
    if damage == "flip":
        contents[len(contents) // 2] ^= 1
    if damage == "remove":
        largest.unlink()
    else:
        kept = {"truncate": 100, "seal": 0}.get(damage)
        largest.write_bytes(contents[:kept])
    with pytest.raises(
        CheckpointError, match=f"{re.escape(str(folder))}.*last complete step is 15"
    ):
        train(streams, run)
    shutil.rmtree(folder)  # as the error says
    assert train(streams, run).step == 20
    assert hash_of(run, 20) == hash_of(straight[1], 20)


def test_another_run_in_the_same_folder_is_refused(streams, straight):
    text = make("char_lm", **streams.task.options).fingerprint
    changed = replace(streams, model=replace(streams.model, features=12))
    with pytest.raises(ValueError, match="differs in model.features: give the same .*--from"):
        write_config(straight[1], changed, text)
    write_config(straight[1], settings(streams, steps=30), text)  # to go on longer is the same run


def test_two_trainings_in_one_folder_are_refused(streams, straight):
    with Checkpoints(straight[1] / "checkpoints"):
        with pytest.raises(CheckpointError, match="another process is training in"):
            train(settings(streams, steps=21), straight[1])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = replace(
        settings(PARITY, steps=50, save_every=1, log_every=1),
        optimiser=OptimiserConfig(learning_rate=1e30, warmup=1, schedule="constant"),
    )
    with pytest.raises(
        NotFinite, match=r"step (\d+): .*last good checkpoint is .*/(\d+)$"
    ) as caught:
        train(config, tmp_path)
    bad, good = map(int, re.search(r"step (\d+).*/(\d+)$", str(caught.value)).groups())
    assert 1 <= good < bad < 50
    arrays = Checkpoints(tmp_path / "checkpoints", read_only=True).read()[0]
    assert all(np.isfinite(a).all() for name, a in arrays.items() if name.startswith("params"))


def test_patience_and_the_clock_end_a_run():
    still = replace(
        settings(PARITY, steps=50, evaluate_every=5, patience=2),
        optimiser=OptimiserConfig(learning_rate=0.0),
    )
    result = train(still)
    assert result.reason == "patience" and result.step == 15 and result.best["step"] == 5
    timed = train(settings(PARITY, steps=10**6, max_seconds=3.0, evaluate_every=10**6))
    assert timed.reason == "time" and 3 <= timed.seconds < 8 and timed.metrics["loss"] < 0.7


def test_sigterm_saves_and_is_the_exit_status(tmp_path):
    command = [
        sys.executable, "-m", "seqjax.tools.cli", "train", "state_tracking",
        "--run", f"{tmp_path}/run",
        "--steps", "1000000", "--log-every", "10", "--save-every", "1000000",
        "--model.layer", "elman", "--model.depth", "1", "--model.features", "8",
        "--task.length", "4", "--task.batch", "2",
    ]  # fmt: skip
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": ""}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        lines = tmp_path / "run" / "metrics.jsonl"
        give_up = time.monotonic() + 120
        while not (lines.exists() and lines.stat().st_size) and child.poll() is None:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM, said
    step = int(re.search(r"SIGTERM: saved step (\d+)", said).group(1))
    assert step >= 10 and hash_of(tmp_path / "run", step)


# --- the step


def pieces(config, streams=False):
    task = make(config.task.name, **config.task.options)
    model = Model(config.model, task.spec, rngs=nnx.Rngs(0))
    params, frozen, decays, rebuild = take_apart(model)
    optimiser = build(config.optimiser, decays)
    key = jax.random.key_data(jax.random.key(0))
    carry = model.start(config.task.batch) if streams else None
    state = TrainState(jnp.int32(0), params, frozen, optimiser.init(params), key, carry)
    return task, state, decays, make_update(config, task, rebuild, optimiser)


def test_micro_batches_are_the_batch(streams):
    model = replace(streams.model, layer=ELMAN, depth=2, dropout=0.0)
    config, results = replace(streams, model=model), []
    for accumulate in (1, 2):
        optimiser = replace(config.optimiser, accumulate=accumulate)
        task, state, _, update = pieces(replace(config, optimiser=optimiser), streams=True)
        batch = next(task.batches(0, 4, 8))
        batch = batch._replace(mask=batch.mask * (np.arange(4) > 0)[:, None])  # unequal parts
        results.append(update(state, batch, np.float32(0)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), *results)


def test_noise_on_the_gradient_is_new_at_every_step():
    optimiser = replace(PARITY.optimiser, name="sgd", noise=10.0, learning_rate=1.0, warmup=0)
    task, state, _, update = pieces(replace(PARITY, optimiser=optimiser))
    batch = next(task.batches(0, 32, 6))
    later = jax.tree.map(jnp.copy, state)._replace(step=jnp.int32(1))
    before = {name: np.array(p) for name, p in state.params.items()}
    steps = [
        np.concatenate([np.ravel(new[name] - p) for name, p in before.items()])
        for new in (update(s, batch, np.float32(0))[0].params for s in (state, later))
    ]
    assert np.std(steps[0]) > 1 and abs(np.corrcoef(*steps)[0, 1]) < 0.2


def test_what_decays():
    config = replace(
        PARITY, model=replace(PARITY.model, layer=(LayerConfig("lru"), *ELMAN), depth=2)
    )
    _, state, decays, _ = pieces(config)
    assert decays.keys() == state.params.keys()
    assert {name for name in decays if "blocks.0" in name and decays[name]} == {
        "blocks.0.layer.B",
        "blocks.0.layer.C",
        "blocks.0.mlp.W_1.kernel",
        "blocks.0.mlp.W_2.kernel",
        "blocks.0.mlp.W_3.kernel",
    }
    assert decays["embed.table"] and decays["blocks.1.layer.U"]
    assert not decays["norm.weight"] and not decays["head.bias"]


def test_the_schedule():
    config = OptimiserConfig(learning_rate=2.0, warmup=4, final=0.1)
    steps, shares = jnp.arange(5, dtype=jnp.int32), jnp.zeros(5)
    warm = jax.vmap(lambda n, f: learning_rate(config, n, f))(steps, shares)
    np.testing.assert_allclose(warm, [0.5, 1.0, 1.5, 2.0, 2.0])
    for schedule, middle, last in (("cosine", 1.1, 0.2), ("linear", 1.1, 0.2), ("constant", 2, 2)):
        at = [learning_rate(replace(config, schedule=schedule), jnp.int32(9), jnp.float32(f))
              for f in (0.5, 1.0)]  # fmt: skip
        np.testing.assert_allclose(at, [middle, last], rtol=1e-6)


# --- the command line


def test_the_command_line(streams, text, tmp_path, capsys, monkeypatch):
    run = str(tmp_path / "run")
    words = [
        "train", "char_lm", "--tiny", "--run", run, "--task.options", f"path={text}",
        "--model.layer", "indrnn", "elman*2", "hidden=3", "--model.dropout", "0.1",
        "--model.depth", "3",
    ]  # fmt: skip
    assert cli.main(words) == 0
    layers = read_config(Path(run)).model.layer
    assert [layer.name for layer in layers] == ["indrnn", "elman", "elman"]
    assert layers[1] == layers[2] and layers[2].options["hidden"] == 3
    assert "validation loss" in capsys.readouterr().out
    assert cli.main(["eval", run, "--batches", "2"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"step 2 .*loss \d.*bits \d.*\nbaseline .*bits \d", said)
    away = text.rename(text.with_suffix(".away"))  # weights are enough to generate
    assert cli.main(["generate", run, "--prompt", "the", "a", "--length", "3"]) == 0
    assert capsys.readouterr().out.startswith("the")
    drafted = ["generate", run, "--prompt", "the", "a", "--length", "3", "--draft", run]
    assert cli.main([*drafted, "--temperature", "0", "--guesses", "2"]) == 0
    found = capsys.readouterr()
    assert found.err == f"accepted: 1.000 of the tokens that {run} wrote\n"
    assert cli.main([*drafted[:-2], "--temperature", "0"]) == 0
    assert found.out == capsys.readouterr().out
    opened, copy = writers.writer, shutil.copytree(run, f"{run}-copy")

    def writer(run, *given):
        found = opened(run, *given)
        names = found.spelling.names[:: -1 if str(run) == copy else 1]
        return found._replace(spelling=found.spelling._replace(names=names))

    with monkeypatch.context() as patch:
        patch.setattr(writers, "writer", writer)
        assert cli.main([*drafted[:-1], copy]) == 2
    assert f"{copy} writes other tokens than {run}" in capsys.readouterr().err
    assert cli.main([*drafted, "--top-k", "2"]) == 2
    assert "--draft is for samples of all tokens" in capsys.readouterr().err
    escape = ["generate", run, "--length", "0", "--prompt"]
    assert cli.main([*escape, "\x1b[2J\udcff"]) == 0
    assert capsys.readouterr().out == "\\x1b[2J\\xff\n"  # control bytes, and what is no text
    assert cli.main([*escape, "\x1b[2J", "--raw"]) == 0
    assert capsys.readouterr().out == "\x1b[2J\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main([*escape, "\x1b[2J", "--raw"]) == 2
    assert cli.main([*escape, "a", "--context", "4"]) == 2
    assert "--context is for imported models" in capsys.readouterr().err
    away.rename(text)


def test_a_layer_of_a_pattern_is_repeated():
    """On the command line, in JSON and in a sweep; what is shown is read back."""
    words = ["mamba2*3", "state=8", "attention", "mamba2", "state=8"]
    mamba, attention = LayerConfig("mamba2", {"state": 8}), LayerConfig("attention")
    pattern = parse_layers(words)
    assert pattern == (mamba, mamba, mamba, attention, mamba)
    assert show_pattern(pattern) == words
    stored = json.loads('{"layer": [{"name": "mamba2*2", "options": {"state": 8}}]}')
    assert from_dict(ModelConfig, stored).layer == (mamba, mamba)
    swept = with_field(Config(), "model.layer", ("lru*2", attention)).model.layer
    assert show_pattern(swept) == ["lru*2", "attention"] and len(swept) == 3
    for wrong in ("gru*", "*2", "gru*-1", "gru*1e3", "gru*10001"):
        with pytest.raises(ValueError, match=r"NAME\*N, with N from 1 to 10000, got") as error:
            parse_layers([wrong])
        assert repr(wrong) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("words, message", [
    (["trian"], "did you mean 'train'"),
    (["train", "partiy"], "did you mean 'parity'"),
    (["train", "parity", "--tiny", "--model.layer", "gruu"], "did you mean 'gru'"),
    (["train", "parity", "--tiny", "--model.layer", "gru", "hiden=3"], "did you mean 'hidden'"),
    (["train", "parity", "--tiny", "--model.layer", "gru*0"], "with N from 1 to 10000, got"),
    (["train", "parity", "--tiny", "--model.layer", "lru", "gru*x"], "got 'gru*x'"),
    (["train", "parity", "--tiny", "--task.options", "grup=S3"], "no option 'grup'; did you mean"),
    (["eval", "nowhere"], "not the folder of a run"),
])  # fmt: skip
def test_mistakes_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not list(tmp_path.rglob("checkpoints"))


def test_numbers_for_people():
    shown = {7: "7", 950: "950", 12_345: "12.3k", 4.56e6: "4.56M", 8e12: "8T"}
    assert {n: short(n) for n in shown} == shown
    assert [clock(s) for s in (0, 61.2, 3725)] == ["0:00", "1:01", "1:02:05"]
