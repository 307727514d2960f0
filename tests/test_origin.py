"""Training that goes on: with a checkpoint of the transformers library, or with another run."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from test_hf import MAMBA, ZAMBA, checkpoint, same
from test_stop import Killed, interrupt  # noqa: F401
from test_train import StopAt, hash_of

from seqjax.hf import read
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import make
from seqjax.tools import cli
from seqjax.train.config import Choice, Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.imported import store
from seqjax.train.loop import train
from seqjax.train.record import read_config
from seqjax.train.step import take_apart
from seqjax.train.trained import load

STEPS = TrainConfig(steps=4, evaluate_every=2, save_every=2, log_every=1)
PARITY = TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=4, evaluation_batches=1)
TUNE = Config(PARITY, optimiser=OptimiserConfig(warmup=1, learning_rate=0.05), train=STEPS)
TOKENS = jnp.arange(8).reshape(2, 4) % 7


def arrays(model):
    params, frozen, *_ = take_apart(model)
    return {name: np.asarray(array) for name, array in {**params, **frozen}.items()}


def differ(one, other):
    """The names of the parameters that are others."""
    a, b = arrays(one), arrays(other)
    assert a.keys() == b.keys()
    return {name for name in a if a[name].shape != b[name].shape or (a[name] != b[name]).any()}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A checkpoint, and a run that went on with it when it was gone: two steps, then two."""
    root = tmp_path_factory.mktemp("tuned")
    theirs, run = checkpoint(root / "theirs", ZAMBA), root / "run"
    (theirs / "tokenizer.json").write_text("{}")
    config = replace(TUNE, model=ModelConfig(dropout=0.1), train=replace(STEPS, save_every=1))
    assert train(config, run, StopAt(2), origin=theirs).step < 4
    theirs.rename(root / "gone")
    assert train(config, run, origin=theirs).step == 4
    whole = root / "whole"
    train(config, whole, origin=root / "gone")
    return root / "gone", run, whole


def test_a_run_does_without_its_origin(tuned):
    theirs, run, whole = tuned
    assert hash_of(run, 4) == hash_of(whole, 4)
    model, task, config, _ = load(run, 4)
    assert config.model.dropout == 0.1 and config.model.layer == ()
    assert model.outputs.size == 7 and task.spec.outputs == model.outputs
    begun = json.loads((whole / "config.json").read_text())["from"]
    assert begun["path"] == str(theirs) and len(begun["sha256"]) == 64
    assert "embed.table" in differ(model, read(theirs).model)


@pytest.mark.thorough
def test_the_first_step_is_the_checkpoint(tuned, tmp_path):
    theirs, *_ = tuned
    idle = replace(TUNE, optimiser=OptimiserConfig(learning_rate=0.0, weight_decay=0.0))
    result = train(idle, tmp_path, origin=theirs)
    assert not differ(result.model, read(theirs).model)


@pytest.mark.thorough
def test_a_tuned_run_is_evaluated_and_exported(tuned, tmp_path, capsys):
    theirs, run, _ = tuned
    assert cli.main(["eval", str(run), "--step", "4"]) == 0
    assert cli.main(["export", str(run), "--step", "4", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    kinds = [{n: (a.shape, a.dtype) for n, a in load_file(f / "model.safetensors").items()}
             for f in (theirs, tmp_path / "out")]  # fmt: skip
    assert kinds[0] == kinds[1]
    model, back = load(run, 4)[0], read(tmp_path / "out").model
    np.testing.assert_array_equal(model(TOKENS)[0], back(TOKENS)[0])
    assert float(jnp.abs(back(TOKENS)[0] - read(theirs).model(TOKENS)[0]).max()) > 1e-3
    with pytest.raises(AssertionError):
        same(theirs, tmp_path / "out")


@pytest.mark.thorough
def test_stored_imports_are_origins_and_runs_of_these_again(tmp_path, capsys):
    found = read(checkpoint(tmp_path / "theirs"))
    store(found, tmp_path / "ours")
    words = ["--task.options", "group=parity", "--task.length", "4", "--steps", "1",
             "--task.batch", "2"]  # fmt: skip
    first, second, out = (str(tmp_path / name) for name in ("first", "second", "out"))
    train_ = ["train", "state_tracking", *words]
    assert cli.main([*train_, "--from", str(tmp_path / "ours"), "--run", first]) == 0
    assert cli.main([*train_, "--from", first, "--run", second, "--freeze", "*"]) == 2
    frozen = ["--freeze", "embed*", "tail.0.*"]
    assert cli.main([*train_, "--from", first, "--run", second, *frozen]) == 0
    assert "frozen)" in capsys.readouterr().out
    changed = differ(load(tmp_path / "second", 1)[0], load(tmp_path / "first")[0])
    assert changed and not [n for n in changed if n.startswith(("embed", "tail.0."))]
    assert cli.main(["export", second, "--out", out]) == 0
    assert read(out).config == found.config


@pytest.mark.thorough
def test_another_answer_gets_a_new_head(tmp_path, capsys):
    theirs, run = checkpoint(tmp_path / "theirs"), tmp_path / "run"
    config = replace(TUNE, task=replace(PARITY, name="copy", length=12,
                     options={"symbols": 4, "memorised": 4}))  # fmt: skip
    result = train(config, run, origin=theirs)
    assert "a new head for Classes(count=5, per_step=True, blank=4)" in capsys.readouterr().out
    assert result.model.inputs.vocabulary == 7 and result.model.outputs.size == 5
    shutil.rmtree(theirs)
    model = load(run)[0]
    assert model.head.kernel.shape == (4, 5)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "the head of" in capsys.readouterr().err


@pytest.mark.thorough
def test_text_is_written_after_training_on_text(tmp_path, capsys):
    """By a model that knows more tokens than there are bytes."""
    theirs, run = checkpoint(tmp_path / "theirs", {**MAMBA, "vocab_size": 300}), tmp_path / "run"
    (tmp_path / "text").write_bytes(b"the quick brown fox; " * 100)
    words = ["train", "char_lm", "--from", str(theirs), "--run", str(run), "--steps", "1"]
    text = ["--task.options", f"path={tmp_path / 'text'}", "held_out=100", "--task.length", "4"]
    assert cli.main([*words, *text, "--task.batch", "2"]) == 0
    shutil.rmtree(theirs)
    capsys.readouterr()
    assert cli.main(["generate", str(run), "--prompt", "the", "--length", "9"]) == 0
    assert capsys.readouterr().out.startswith("the")


@pytest.mark.thorough
def test_a_run_goes_on_with_another(tmp_path):
    """With its best checkpoint, its layers and more tokens than the task has."""
    lru = ModelConfig(layer=(LayerConfig("lru"), LayerConfig("esn")), features=4, depth=3)
    wide = replace(TUNE, task=replace(PARITY, options={"group": "S3"}), model=lru)
    first = train(wide, tmp_path / "first")
    again = replace(TUNE, train=replace(STEPS, steps=1, freeze=("head.*",)))
    second = train(again, tmp_path / "second", origin=tmp_path / "first")
    assert second.model.inputs == first.model.inputs
    best = load(tmp_path / "first")[0]
    changed = differ(second.model, best)
    assert changed and "head.kernel" not in changed and "blocks.1.layer.W_h" not in changed
    config = read_config(tmp_path / "second")
    assert "state" in config.model.layer[0].options and config.model.vocabulary == 6
    shutil.rmtree(tmp_path / "first")
    assert not differ(load(tmp_path / "second", 1)[0], second.model)
    assert train(again, tmp_path / "second", origin=tmp_path / "first").step == 1


SMALL = ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1, mlp="none")
STEADY = OptimiserConfig(warmup=1, schedule="constant", average=Choice("ema", {"decay": 0.5}))
TWO = replace(TUNE, model=SMALL, optimiser=STEADY, train=replace(STEPS, steps=2))
TASK = make("state_tracking", group="parity")
ALWAYS = replace(TASK, sample=lambda key, *sizes: TASK.sample(jax.random.key(0), *sizes))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of two steps, with an average, on one batch."""
    run = tmp_path_factory.mktemp("first") / "run"
    return run, train(TWO, run, task=ALWAYS)


@pytest.mark.thorough
def test_a_run_goes_on_with_another_batch_rate_and_data(first, tmp_path):
    """Its averaged weights do, and nothing of its optimiser."""
    run, result = first
    still = OptimiserConfig("lion", learning_rate=0.0, weight_decay=0.0)
    task = replace(PARITY, batch=5, length=3)
    onward = replace(TUNE, task=task, optimiser=still, train=replace(STEPS, seed=3, steps=1))
    assert not differ(train(onward, tmp_path, origin=run).model, result.model)
    with pytest.raises(ValueError, match=f"differs in task.batch.*: give the same .*--from {run}"):
        train(replace(TWO, task=task), run, task=ALWAYS)


def test_moments_and_average_go_on(first, tmp_path):
    """The step after them is the next step of a run that never ended."""
    run, _ = first
    one, three = (replace(TWO, train=replace(TWO.train, steps=n)) for n in (1, 3))
    whole = train(three, task=ALWAYS)
    result = train(one, tmp_path / "run", origin=run, moments=True, task=ALWAYS)
    assert not differ(result.model, whole.model)
    again = train(one, tmp_path / "run", origin=run, moments=True, task=ALWAYS)
    assert again.step == 1 and not differ(again.model, whole.model)
    assert differ(train(one, origin=run, task=ALWAYS).model, whole.model)


@pytest.mark.parametrize("changes, message", [
    (dict(optimiser=replace(STEADY, name="lion")), "optimiser.name must be that of .*adamw, got"),
    (dict(optimiser=replace(STEADY, average=None)), "average must be .*ema decay=0.5, got None"),
    (dict(optimiser=replace(STEADY, clip_value=1.0)), "from_moments needs the same optimiser and"),
])  # fmt: skip
def test_moments_of_something_else_are_refused(first, changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(replace(TWO, **changes), tmp_path / "run", origin=first[0], moments=True, task=ALWAYS)
    assert not (tmp_path / "run").exists()


def test_frozen_parameters_have_no_moments():
    model = Model(ModelConfig(features=4), make("state_tracking").spec, rngs=nnx.Rngs(0))
    params, frozen, decays, rebuild = take_apart(model, ["embed*", "blocks.*.norm.*"])
    assert set(frozen) == {"embed.table", "blocks.0.norm.weight"}
    assert decays.keys() == params.keys() and not differ(rebuild(params, frozen), model)


@pytest.mark.parametrize("changes, message", [
    (dict(model=ModelConfig(features=12)), r"model.features must be that of .*, 4, or be left out"),
    (dict(model=ModelConfig(layer=(LayerConfig("lru"),))), "model.layer must be that of"),
    (dict(task=replace(PARITY, options={"group": "S5"})), "must be at least 120, the tokens of"),
    (dict(task=TaskConfig("adding")), "must be None for features, which are no tokens"),
    (dict(train=replace(STEPS, freeze=("embd*",))), "freeze 'embd.'; did you mean 'embed.table'"),
    (dict(train=replace(STEPS, freeze=("*",))), "freeze must leave a parameter to train"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_any_work(changes, message, tmp_path):
    theirs = checkpoint(tmp_path / "theirs", MAMBA)
    with pytest.raises(ValueError, match=message):
        train(replace(TUNE, **changes), tmp_path / "run", origin=theirs)
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_folders_that_are_no_origins(tmp_path):
    with pytest.raises(ValueError, match="from must be the folder of a run or a checkpoint"):
        train(TUNE, tmp_path / "run", origin=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no config.json"):
        train(TUNE, tmp_path / "run", origin=tmp_path)
    with pytest.raises(ValueError, match="from_moments goes with from"):
        train(TUNE, moments=True)
    first = checkpoint(tmp_path / "first")
    with pytest.raises(ValueError, match="from_moments is for runs"):
        train(TUNE, origin=first, moments=True)
    train(replace(TUNE, train=replace(STEPS, steps=1)), tmp_path / "run", origin=first)
    with pytest.raises(ValueError, match="holds another run, which differs in .*from"):
        train(TUNE, tmp_path / "run")


@pytest.mark.thorough
def test_a_run_killed_before_it_saved_does_without_its_origin(interrupt, tmp_path):  # noqa: F811
    theirs, run = checkpoint(tmp_path / "theirs"), tmp_path / "run"
    interrupt(2 + 2, Killed)  # two batches are traced
    with pytest.raises(Killed):
        train(TUNE, run, origin=theirs)
    shutil.rmtree(theirs)
    assert train(TUNE, run, origin=theirs).step == 4


def test_a_run_that_was_killed_at_once_goes_on(tmp_path, monkeypatch):
    """Before anything of it was whole: what was begun is removed, and written again."""
    theirs, run = checkpoint(tmp_path / "theirs"), tmp_path / "run"
    monkeypatch.setattr("seqjax.train.origin.imported.store", killed)
    with pytest.raises(KeyboardInterrupt):
        train(TUNE, run, origin=theirs)
    assert list(run.glob(".partial-*"))
    monkeypatch.undo()
    assert train(TUNE, run, origin=theirs).step == 4
    assert not list(run.glob(".partial-*")) and (run / "origin" / "config.json").exists()


def killed(checkpoint, folder, **options):
    (folder.parent / ".partial-x").mkdir()
    raise KeyboardInterrupt
