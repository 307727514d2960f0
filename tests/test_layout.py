"""Training on a mesh: the numbers are those of one device, and what is split is split."""

import gc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec as P

from seqjax.learn import LEARNERS
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tasks import make as make_task
from seqjax.tools.hlo import Program, sent
from seqjax.tools.runs import evaluate, generate
from seqjax.train.config import Choice, Config, MeshConfig, TaskConfig, TrainConfig, check_config
from seqjax.train.imported import build
from seqjax.train.layout import Layout
from seqjax.train.loop import train
from seqjax.train.step import prepare, take_apart
from seqjax.train.trained import load
from seqjax.zoo import LAYERS, make

MESHES = {
    "fsdp and tensor": MeshConfig(fsdp=2, tensor=2),
    "data": MeshConfig(data=2),
    "data and fsdp": MeshConfig(data=2, fsdp=2),
    "tensor": MeshConfig(tensor=2, rules={"hidden": None, "features": "tensor"}),
    "sequence": MeshConfig(sequence=4),
    "fsdp and sequence": MeshConfig(fsdp=2, sequence=2),
}


def config(layer="min_gru", **mesh):
    return Config(
        TaskConfig("state_tracking", batch=4, length=8, evaluation_batches=1),
        ModelConfig(features=8, depth=3, layer=(LayerConfig(layer, {}),), dropout=0.2),
        train=TrainConfig(steps=3, evaluate_every=3, log_every=1, save_every=1),
        mesh=MeshConfig(**mesh),
    )


def losses(config, run=None):
    found = []
    train(
        config, run, logger=lambda _, row: found.append(row.get("loss", row.get("validation_loss")))
    )
    return found


@pytest.fixture(scope="module")
def alone():
    return losses(config())


@pytest.mark.share(1)
@pytest.mark.parametrize("name", MESHES)
def test_the_numbers_are_those_of_one_device(name, alone, capfd):
    """Dropout included; XLA reports nothing that it had to gather whole."""
    found = losses(replace(config(), mesh=MESHES[name]))
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


@pytest.mark.thorough
@pytest.mark.parametrize("layer", ["lstm", "mamba2", "gated_deltanet", "mlstm", "attention"])
def test_other_layers(layer):
    np.testing.assert_allclose(
        losses(config(layer, data=2, sequence=2)), losses(config(layer)), rtol=1e-4
    )


# No model is an element-wise recurrence: rtrl_elementwise is refused (tests/test_learning.py).
TRAINS = [n for n, entry in LEARNERS.items() if not entry.apart and n != "rtrl_elementwise"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", TRAINS)
def test_learners(name):
    """All of them, the noise of uoro included."""
    of = config("lstm" if name == "truncated_lstm_1997" else "elman")
    model = replace(of.model, features=3, depth=1, mlp="none", dropout=0.0)
    task = replace(of.task, options={"group": "parity"}, batch=2, length=4)
    of = replace(of, model=model, task=task, train=replace(of.train, learner=Choice(name, {})))
    alone, meshes = losses(of), (MeshConfig(data=2), MeshConfig(sequence=2))
    for mesh in meshes if FULL else meshes[:1]:
        np.testing.assert_allclose(losses(replace(of, mesh=mesh)), alone, rtol=1e-5)


@pytest.mark.thorough
def test_a_run_goes_on_with_another_mesh(alone, tmp_path):
    first = replace(config(fsdp=2), train=replace(config().train, steps=2))
    found = losses(first, tmp_path / "run")[:2]
    found += losses(config(data=2, tensor=2), tmp_path / "run")
    np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_no_device_has_a_whole_state(tmp_path):
    """Neither in the beginning, nor when a run goes on, nor of a model that is read."""
    of, found = config(fsdp=4), []
    of = replace(of, model=replace(of.model, features=24))
    before = jax.live_arrays()  # of other tests
    others = {id(x) for x in before}

    def look(*_):
        gc.collect()
        large = [x for x in jax.live_arrays() if 24 in x.shape[-2:] and x.size >= 24 * 24]
        large = [x for x in large if id(x) not in others]
        found.extend((x.shape, len(x.devices()), x.sharding.is_fully_replicated) for x in large)

    for steps in (2, 3):
        of = replace(of, train=replace(of.train, steps=steps))
        train(of, tmp_path / "run", logger=look)
    model = load(tmp_path / "run", mesh=MeshConfig(fsdp=4))[0]
    look(model)
    assert len(found) > 20
    assert {(devices, whole) for _, devices, whole in found} == {(4, False)}


@pytest.mark.thorough
def test_a_model_is_used_on_devices(tmp_path, capsys):
    """`seqjax eval` and `generate`: what one device prints."""
    of = replace(config(), task=TaskConfig("char_lm", batch=4, length=8, evaluation_batches=1))
    train(of, tmp_path)
    printed = []
    for mesh in (MeshConfig(), MeshConfig(fsdp=2, tensor=2)):
        capsys.readouterr()
        evaluate(tmp_path, mesh=mesh)
        generate(tmp_path, ("a", "bc"), 9, mesh=mesh)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "loss" in printed[0]
    with pytest.raises(ValueError, match="mesh.data .* must divide task.batch=4, got 3"):
        evaluate(tmp_path, mesh=MeshConfig(data=3))


def compiled(mesh, **model):
    wide = config(**mesh)
    wide = replace(
        wide, model=replace(wide.model, features=64, **model), task=replace(wide.task, batch=8)
    )
    _, _, task, start, layout, update, *_ = prepare(wide)
    params, frozen, *_ = take_apart(build(wide.model, task.spec, None, rngs=nnx.Rngs(0)))
    state = layout.put(start(params, frozen))
    batch = layout.batch(next(task.batches(0, 8, 8)))
    return state, update.lower(state, batch, np.float32(0)).compile()


def test_parameters_moments_and_memory_are_split():
    _, one = compiled({})
    state, four = compiled({"fsdp": 4})
    sizes = [c.memory_analysis().argument_size_in_bytes for c in (one, four)]
    assert sizes[1] < 0.3 * sizes[0]
    name, kernel = max(state.params.items(), key=lambda item: item[1].size)
    assert tuple(kernel.sharding.spec).count("fsdp") == 1
    for moments in jax.tree.leaves(state.moments, is_leaf=lambda m: isinstance(m, dict)):
        if isinstance(moments, dict):
            assert moments[name].sharding == kernel.sharding


@pytest.mark.thorough
def test_parameters_are_gathered_again_for_the_backward_pass():
    """Where blocks are computed again: what was gathered is not kept."""

    def gathered(remat):
        text = compiled({"fsdp": 4}, remat=remat)[1].as_text()
        work = Program(text).work()
        return sum(one.times * one.sent for one in work if one.collective == "all-gather")

    assert gathered("layer") > 1.8 * gathered("none") > 0


def test_a_batch_is_split_over_examples_and_steps():
    of = config(data=2, sequence=2)
    layout, batch = Layout.of(of), next(make_task("state_tracking").batches(0, 4, 8))
    assert layout.batch(batch).x.sharding.spec == P(("data",), ("sequence",))
    assert layout.place.steps == P(("data",), ("sequence",))


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["min_gru", "gated_deltanet", "mamba2", "mlstm", "rwkv7"])
def test_split_time_exchanges_states_however_many_steps_there_are(name):
    layer = make(name, 8, rngs=nnx.Rngs(0), **LAYERS[name].smoke)
    mesh = jax.make_mesh((4,), ("time",))

    def program(steps):
        x = jnp.zeros((2, steps, 8), jnp.float32)
        x = jax.device_put(x, NamedSharding(mesh, P(None, "time")))
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(layer(x)[0])))
        return jax.jit(gradient).lower(x).compile().as_text()

    short, long = (sent(program(steps)) for steps in (16, 32))
    assert 0 < short == long
    x = jax.random.normal(jax.random.key(0), (2, 16, 8), jnp.float32)
    split = jax.device_put(x, NamedSharding(mesh, P(None, "time")))
    found, expected = (jax.jit(lambda x: layer(x)[0])(x) for x in (split, x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_laid_out_is_one_error():
    for mesh, error in (
        (MeshConfig(data=3), r"mesh.data \* mesh.fsdp must divide task.batch=4, got 3"),
        (MeshConfig(rules={"feature": "fsdp"}), "mesh.rules: axis 'feature'.*'features'"),
        (MeshConfig(rules={"features": "fdsp"}), "features: mesh axis 'fdsp'.*'fsdp'"),
    ):
        with pytest.raises(ValueError, match=error):
            check_config(replace(config(), mesh=mesh))
    with pytest.raises(ValueError, match="takes 16 devices, and there are 4"):
        Layout.of(config(tensor=16))
