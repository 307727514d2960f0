"""Learners in training: the exact ones make the ordinary update, all of them train and go on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_origin import differ
from test_train import StopAt, hash_of

from seqjax.learn import LEARNERS
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Classes, Features, Spec, Task, make
from seqjax.tasks.task import Batch
from seqjax.tools import cli
from seqjax.train.config import Choice, Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.loop import train
from seqjax.train.record import read_config, read_metrics
from seqjax.train.step import prepare, take_apart
from seqjax.train.trained import load

TINY = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=6, evaluation_batches=1),
    ModelConfig(layer=(LayerConfig("elman"),), features=3, depth=1, mlp="none"),
    OptimiserConfig("sgd", learning_rate=0.3, warmup=1, clip=1e9, weight_decay=0.0),
    TrainConfig(steps=4, evaluate_every=4, log_every=1),
)


def learning(config, words, window=None):
    name, *options = words.split()
    chosen = Choice(name, {k: int(v) for k, _, v in (word.partition("=") for word in options)})
    return replace(config, train=replace(config.train, learner=chosen, window=window))


def broken(key, batch, length):
    """Steps at which the past is forgotten, and steps that are left out, last ones among them."""
    keys = jax.random.split(key, 4)
    x = jax.random.normal(keys[0], (batch, length, 2))
    y = jax.random.randint(keys[1], (batch, length), 0, 3)
    there = jax.random.uniform(keys[2], (batch, length)) < 0.7
    there = there.at[0, -2:].set(False)
    resets = jax.random.uniform(keys[3], (batch, length)) < 0.3
    x, weights = x.astype(jnp.float32), there.astype(jnp.float32)
    return Batch(x, y.astype(jnp.int32), weights, resets, there)


BROKEN = Task("broken", Spec(Features(2), Classes(3, per_step=True)), broken, lambda length: {})


def updated(config, count=1, task=None):
    """Parameters and metrics after `count` updates, the task, and the batches."""
    programs = prepare(config, task=task)
    spec = programs.task.spec
    model = Model(config.model, spec, rngs=nnx.Rngs(0))
    params, frozen, *_ = take_apart(model, config.train.freeze)
    state, metrics = programs.start(params, frozen), {}
    data = programs.task.batches(0, config.task.batch, config.task.length)
    batches = [next(data) for _ in range(count)]
    for batch in batches:
        state, metrics = programs.update(state, batch, np.float32(0))
    return jax.device_get(state.params), jax.device_get(metrics), batches


def same(a, b, rtol=2e-5):
    size = max(float(np.abs(v).max()) for v in b.values())
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=rtol * size, err_msg=name)


STREAMS = replace(
    TINY, task=TaskConfig("char_lm", {"glob": "json/*.py", "held_out": 2000, "order": "streams"},
                          batch=3, length=4, evaluation_batches=1)
)  # fmt: skip
LSTMS = replace(STREAMS, model=replace(STREAMS.model, layer=(LayerConfig("lstm_1997"),)))
RESERVOIR = replace(
    TINY, model=ModelConfig((LayerConfig("lru", {"state": 2}), LayerConfig("esn", {"hidden": 3})),
                            features=2, depth=2, mlp="none"),
    train=replace(TINY.train, freeze=("blocks.0.layer.D",)),
)  # fmt: skip
ADDING = replace(TINY, task=TaskConfig("adding", batch=3, length=5, evaluation_batches=1))


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "words, config, count, task",
    [
        ("bptt", STREAMS, 2, None),
        pytest.param("rtrl_sparse", RESERVOIR, 1, None, marks=pytest.mark.thorough),
        ("rtrl", TINY, 1, BROKEN),
        ("bptt", ADDING, 2, None),
        pytest.param("predictive_coding", ADDING, 1, None, marks=pytest.mark.thorough),
        pytest.param("online_lru", ADDING, 1, None, marks=pytest.mark.thorough),
        pytest.param("bptt", TINY, 1, BROKEN, marks=pytest.mark.thorough),
        pytest.param("tbptt k1=6 k2=6", TINY, 2, None, marks=pytest.mark.thorough),
        pytest.param("rtrl_sparse", TINY, 2, BROKEN, marks=pytest.mark.thorough),
    ],
)
def test_exact_learners_make_the_ordinary_update(words, config, count, task):
    """With frozen arrays, resets, steps left out, one target at the end, streams that go on."""
    ours, metrics, _ = updated(learning(config, words), count, task)
    ordinary, expected, _ = updated(config, count, task)
    same(ours, ordinary)
    same(metrics, expected)


@pytest.mark.thorough
def test_a_window_is_an_update():
    """bptt of windows of 2, by hand: the gradient of the mean loss, the state a constant."""
    config = learning(TINY, "bptt", 2)
    ours, metrics, ((batch),) = updated(config)
    task = make("state_tracking", group="parity")
    model = Model(config.model, task.spec, rngs=nnx.Rngs(0))
    params, frozen, _, rebuild = take_apart(model)
    h, losses, answers = model.start(2), [], []
    for start in (0, 2, 4):
        window = jax.tree.map(lambda v, s=start: v[:, s : s + 2], batch)

        def loss(params, h=h, window=window):
            y, h = rebuild(params, frozen)(window.x, h)
            return task.score(y, window)["loss"], (h, y)

        (value, (h, y)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)
        losses.append(float(value))
        answers.append(y)
    same(ours, jax.device_get(params))
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    scores = task.score(jnp.concatenate(answers, axis=1), batch)  # also of whole sequences
    for name, value in scores.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-5)


# rtrl_elementwise has no use for a model, and bptt is above.
TRAINS = [n for n, e in LEARNERS.items() if not e.apart and n not in ("bptt", "rtrl_elementwise")]


@pytest.mark.share(1)
@pytest.mark.parametrize("name", TRAINS)
def test_every_learner_trains_on_a_stream(name):
    # the one that needs a carousel gets one
    of = LSTMS if name == "truncated_lstm_1997" else STREAMS
    params, metrics, _ = updated(learning(of, name, 2), 2)
    before = updated(learning(of, name, 2), 0)[0]
    assert all(np.isfinite(v).all() for v in (*params.values(), *metrics.values()))
    assert all((params[n] != before[n]).any() for n in params)


@pytest.mark.thorough
def test_a_run_with_a_learner_goes_on_bitwise(tmp_path):
    """The learner's state goes on with the stream, UORO's draws with its key."""
    config = learning(STREAMS, "uoro rank=2", 2)
    config = replace(config, train=replace(config.train, save_every=2, prequential=0.75))
    whole = train(config, tmp_path / "whole")
    assert train(config, tmp_path / "run", StopAt(2)).step < 4
    assert train(config, tmp_path / "run").metrics == whole.metrics
    assert hash_of(tmp_path / "run", 4) == hash_of(tmp_path / "whole", 4)
    assert not differ(load(tmp_path / "run", 4)[0], whole.model)
    for run in ("whole", "run"):
        rows = [row for row in read_metrics(tmp_path / run) if "loss" in row]
        losses = np.array([row["loss"] for row in rows])
        for n, row in enumerate(rows):  # the weight of a batch is 0.75 to the number after it
            weights = 0.75 ** np.arange(n + 1)[::-1]
            expected = weights @ losses[: n + 1] / weights.sum()
            assert row["prequential_loss"] == pytest.approx(expected, rel=1e-6)
        assert len(rows) == 4 and "prequential_gradient_norm" not in rows[0]


@pytest.mark.thorough
def test_prequential_means_of_ordinary_training(tmp_path):
    """Of the steps, not of the lines of two; without the option there are none."""
    config = replace(TINY, train=replace(TINY.train, log_every=2, prequential=1.0))
    train(config, tmp_path)
    rows = [row for row in read_metrics(tmp_path) if "loss" in row]
    assert rows[1]["prequential_loss"] == pytest.approx((rows[0]["loss"] + rows[1]["loss"]) / 2)
    lines = []
    train(TINY, logger=lambda step, metrics: lines.append(metrics))
    assert not [name for line in lines for name in line if "prequential" in name]


DROPOUT = replace(TINY, model=replace(TINY.model, dropout=0.1))
FUTURE = replace(TINY, model=replace(TINY.model, layer=(LayerConfig("bidirectional"),), features=4))
PAIRS = replace(TINY, task=TaskConfig("reverse", batch=2, length=4, evaluation_batches=1),
                model=replace(TINY.model, bridge_heads=1))  # fmt: skip
HALVES = replace(TINY, optimiser=replace(TINY.optimiser, accumulate=2))


@pytest.mark.parametrize("config, message", [
    (learning(TINY, "snapp"), "unknown learner 'snapp'; did you mean 'snap'"),
    (learning(TINY, "snap m=2"), r"option of learner 'snap': 'm' \(known: n\)"),
    (learning(TINY, "snap absent=2"), r"option of learner 'snap': 'absent' \(known: n\)"),
    (learning(TINY, "snap n=0"), "learner snap: SnAp-n needs n >= 1, got 0"),
    (learning(TINY, "rbp"), "learner rbp is not for train: it learns a cell that settles"),
    pytest.param(learning(TINY, "rtrl_elementwise"), "rtrl_elementwise: .* takes element-wise",
                 marks=pytest.mark.thorough),
    (learning(TINY, "bptt", 5), "window must divide task.length=6, got 5"),
    (replace(TINY, train=replace(TINY.train, window=2)), "window goes with learner"),
    (learning(HALVES, "bptt"), "optimiser.accumulate must be 1, .* got 2"),
    (learning(DROPOUT, "bptt"), "learner bptt: it takes no noise: model.dropout must be 0"),
    (learning(FUTURE, "bptt"), "learner bptt: .* a layer of the model reads the future"),
    (learning(PAIRS, "bptt"), "learner bptt: it goes along one stream, and the task gives pairs"),
    (learning(ADDING, "bptt", 1), "learner bptt: window must be left out, for a task with one"),
])  # fmt: skip
def test_what_no_learner_can_train(config, message):
    with pytest.raises(ValueError, match=message):
        prepare(config)


def test_what_memory_does_not_hold(monkeypatch):
    monkeypatch.setattr("seqjax.train.step.os.sysconf", lambda name: 150)  # 22 kB
    with pytest.raises(ValueError, match="learner rtrl: the state of task.batch=2 streams take"):
        prepare(learning(replace(TINY, model=replace(TINY.model, features=12)), "rtrl"))


def test_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "state_tracking", "--tiny", "--run", str(run), "--model.features", "4",
             "--task.batch", "2", "--task.length", "4"]  # fmt: skip
    words += ["--learner", "uoro", "rank=2", "--window", "4", "--prequential", "0.9"]
    assert cli.main(words) == 0
    kept = read_config(run).train
    assert (kept.learner, kept.window, kept.prequential) == (Choice("uoro", {"rank": 2}), 1, 0.9)
    assert cli.main([*words[:1], "parity", "--learner", "uoro", "rank=x"]) == 2
    assert "learner uoro: rank must be a whole number" in capsys.readouterr().err
