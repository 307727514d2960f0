"""Own layers, tasks and optimisers, from files, modules, installed packages and as objects."""

import json
import re
import sys
import textwrap
from dataclasses import replace

import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from seqjax.tasks import TASKS, make as make_task
from seqjax.testing import distance
from seqjax.tools import cli
from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig, TrainConfig
from seqjax.train.loop import train
from seqjax.train.record import read_metrics
from seqjax.train.trained import load
from seqjax.zoo import LAYERS, own

FILE = '''
    """Parity with a leaky unit."""
    import jax.numpy as jnp
    from flax import nnx
    from seqjax.core.monoid import diagonal
    from seqjax.nn import Associative
    from seqjax.tasks import Task, make
    from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig, TrainConfig

    class LeakyUnit(Associative):
        """h_t = a h_{t-1} + W x_t."""
        monoid = diagonal

        def __init__(self, features, *, a: float = 0.5, rngs):
            self.features = self.out_features = features
            self.a, self.W = a, nnx.Linear(features, features, rngs=rngs)

        def initial(self):
            return jnp.zeros(self.features)

        def lift(self, x):
            return jnp.full(self.features, self.a, x.dtype), self.W(x)

    def even_or_odd(group: str = "parity") -> Task:
        """Parity, under a name of its own."""
        return make("state_tracking", group=group)

    CONFIG = Config(
        TaskConfig("even_or_odd", batch=2, length=4, evaluation_batches=1),
        ModelConfig(layer=(LayerConfig("leaky_unit"),), features=4, depth=1),
        train=TrainConfig(steps=2, evaluate_every=2, save_every=2, log_every=1),
    )
'''
SMALL = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=4, evaluation_batches=1),
    ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1),
    train=TrainConfig(steps=4, evaluate_every=2, save_every=2, log_every=1),
)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of one's own with the file; the tables and what is imported are put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(textwrap.dedent(FILE))
    before = {id(t): dict(t) for t in (LAYERS, TASKS, own.BROUGHT, sys.modules)}
    yield tmp_path
    for table in (LAYERS, TASKS, own.BROUGHT, sys.modules):
        for name in set(table) - set(before[id(table)]):
            del table[name]


def new_process():
    """What a new process does not know of."""
    own.BROUGHT.clear()
    LAYERS.pop("leaky_unit", None)
    TASKS.pop("even_or_odd", None)


@pytest.mark.filterwarnings("always::seqjax.core.common.Notice")
def test_a_file_is_trained_and_found_again(elsewhere, capsys):
    assert cli.main(["train", "mine.py", "--run", "run"]) == 0
    assert LAYERS["leaky_unit"].title == "h_t = a h_{t-1} + W x_t"
    assert TASKS["even_or_odd"].reference == "mine.py"
    recorded = json.loads((elsewhere / "run/config.json").read_text())
    assert [one["name"] for one in recorded["own"]] == [str(elsewhere / "mine.py")]
    assert recorded["config"]["model"]["layer"][0]["options"] == {"a": 0.5}  # filled in

    def score():
        new_process()
        capsys.readouterr()
        assert cli.main(["eval", "run"]) == 0
        return capsys.readouterr()

    first = score()
    assert "step 2" in first.out and not first.err
    (elsewhere / "mine.py").write_text(textwrap.dedent(FILE).replace("a: float = 0.5", "b=0.1"))
    changed = score()
    assert changed.out == first.out and "has changed since run" in changed.err
    (elsewhere / "mine.py").unlink()
    gone = score()
    assert gone.out == first.out and "is gone" in gone.err
    (copy,) = (elsewhere / "run/own").glob("*/mine.py")
    copy.unlink()
    new_process()
    assert cli.main(["eval", "run"]) == 2 and "as is" in capsys.readouterr().err


def test_every_command_knows_what_is_imported(elsewhere, capsys):
    assert cli.main(["explain", "leaky_unit", "--import", "mine.py"]) == 0
    assert "diagonal" in capsys.readouterr().out
    new_process()
    (elsewhere / "their_layers.py").write_text(textwrap.dedent(FILE))
    sys.path.insert(0, str(elsewhere))
    argv = ["train", "even_or_odd", "--import=their_layers", "--model.layer", "leaky_unit"]
    assert cli.main([*argv, "--tiny", "--run", "theirs"]) == 0
    recorded = json.loads((elsewhere / "theirs/config.json").read_text())["own"]
    assert [one["name"] for one in recorded] == ["their_layers"]
    assert not (elsewhere / "theirs/own").exists()


@pytest.mark.filterwarnings("always::seqjax.core.common.Notice")
def test_installed_packages_bring_theirs(elsewhere, capsys):
    (elsewhere / "package_of_theirs.py").write_text(textwrap.dedent(FILE))
    info = elsewhere / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    points = "[seqjax.layers]\nall = package_of_theirs\n[seqjax.tasks]\nlost = not_there_at_all\n"
    (info / "entry_points.txt").write_text(points)
    sys.path.insert(0, str(elsewhere))
    assert cli.main(["explain", "leaky_unit"]) == 0
    printed = capsys.readouterr()
    assert "diagonal" in printed.out and "not_there_at_all" in printed.err


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no file .*mine.py' to import"),
        ("class", r"mine.py, line 1: invalid syntax"),
        ("x = 1\ny = x.z", r"mine.py, line 2: AttributeError"),
        ("x = 1", "mine.py must define CONFIG, .* got None"),
        ("from seqjax.nn import Layer\nclass GRU(Layer):\n    pass", "brings 'gru', which stands"),
        ("from seqjax.train.loop import train\ntrain(None)", "trains where it is imported"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(elsewhere, capsys, text, message):
    path = elsewhere / "mine.py"
    path.unlink() if text is None else path.write_text(text)
    assert cli.main(["train", "mine.py"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert not (elsewhere / "runs").exists()


def test_objects_in_place_of_names(tmp_path):
    task = replace(make_task("state_tracking", group="S3"), name="of_mine")
    seen, visits = [], []

    def look(step, metrics, model):
        visits.append((step, metrics["loss"], model(jnp.zeros((1, 2), jnp.int32))[0].shape))
        return step == 2

    given = dict(task=task, optimiser=optax.sgd(0.1))
    result = train(
        SMALL, tmp_path, **given, logger=lambda *line: seen.append(line), callbacks=[look]
    )
    assert (result.step, result.reason) == (2, "callback")
    assert visits == [(2, result.metrics["loss"], (1, 2, 6))]
    assert [{"step": step, **metrics} for step, metrics in seen] == read_metrics(tmp_path)
    assert not any("learning_rate" in metrics for _, metrics in seen)
    with pytest.raises(ValueError, match="another run, which differs in optimiser"):
        train(SMALL, tmp_path, task=task)
    assert train(SMALL, tmp_path, **given).step == 4
    with pytest.raises(ValueError, match="'of_mine': give it"):
        load(tmp_path)
    assert load(tmp_path, task=task)[0].outputs.size == 6

    once = replace(SMALL, train=replace(SMALL.train, steps=1))
    still, moved = (
        nnx.state(train(once, optimiser=optimiser).model, nnx.Param)
        for optimiser in (optax.set_to_zero(), optax.sgd(0.1))
    )
    assert distance(still, moved) > 0
