"""Averages of weights: by their definitions, in a run, in what goes on with it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_origin import arrays, differ
from test_train import StopAt, hash_of

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tools import cli
from seqjax.train.average import ema, nt_asgd, polyak, schedule_free
from seqjax.train.config import Choice, Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.loop import train
from seqjax.train.optimiser import build
from seqjax.train.record import read_config
from seqjax.train.trained import load

draw = np.random.default_rng(0)
STEPS = 7
PATH = {
    "a": draw.normal(size=(STEPS + 1, 3)),
    "b": draw.normal(size=(STEPS + 1, 2)) + 1j * draw.normal(size=(STEPS + 1, 2)),
}


def at(n):
    return {name: jnp.asarray(value[n]) for name, value in PATH.items()}


def along(average, losses=()):
    """The average after every step of PATH, with the validation losses, if there are some."""
    state, means = average.init(at(0)), []
    update = jax.jit(average.update)
    for n in range(STEPS):
        state = update(state, at(n + 1), jnp.float32(n / STEPS), jnp.float32(0.1))
        means.append(state.mean)
        if len(losses):
            state = average.evaluated(state, losses[n])
    return means


def uniform(n, first):
    """The mean of the weights after steps first .. n, counted from 0; the last without any."""
    first = min(first, n)
    return {name: value[first + 1 : n + 2].mean(axis=0) for name, value in PATH.items()}


def close(a, b, rtol=1e-9):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-12), a, b)


@pytest.mark.parametrize("start", [0.0, 0.4])
def test_ema_is_a_sum_with_falling_weights_over_their_sum(start):
    first = int(np.ceil(start * STEPS))
    for n, mean in enumerate(along(ema(decay=0.7, start=start))):
        weights = 0.7 ** np.arange(max(1, n + 1 - first))[::-1]
        for name, value in PATH.items():
            seen = value[1 : n + 2][-len(weights) :]
            close(mean[name], np.tensordot(weights, seen, 1) / weights.sum())


def test_polyak_is_uniform():
    for n, mean in enumerate(along(polyak(start=0.4))):
        close(mean, uniform(n, 3))


def test_nt_asgd_begins_where_algorithm_1_does():
    for seed in range(20):
        losses, n = np.random.default_rng(seed).normal(size=STEPS), 2
        logs, began = [], STEPS
        for t, loss in enumerate(losses):
            if began == STEPS and t > n and loss > min(logs[: t - n]):
                began = t  # with the weights of this step
            logs.append(loss)
        for t, mean in enumerate(along(nt_asgd(n=n), losses)):
            close(mean, uniform(t, began))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_schedule_free_is_that_of_optax(name):
    """The points of the gradients and the averages, with a warm-up, weight decay and groups off."""
    beta, warm = 0.8, 4
    config = OptimiserConfig(name=name, weight_decay=0.1, clip=1e9, schedule="constant")
    config = replace(config, beta1=0.0, beta2=0.95) if name == "adamw" else config
    params = {name: jnp.asarray(value[0].real) for name, value in PATH.items()}
    gradient = jax.grad(lambda p: sum(jnp.sum(v**4) for v in p.values()))

    def rate(n):
        return 0.05 * jnp.minimum((n + 1.0) / warm, 1)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        ours, average = build(config, dict.fromkeys(params, True)), schedule_free(beta)
        base = build(config, dict.fromkeys(params, True))
        base = optax.chain(base, optax.scale_by_learning_rate(rate))
        theirs = optax.contrib.schedule_free(base, lambda n: rate(n - 1.0), b1=beta)
        w, mean, moments = params, average.init(params), ours.init(params)
        y, state = params, theirs.init(params)

        @jax.jit
        def both(n, w, mean, moments, y, state):
            point = average.point(w, mean)
            direction, moments = ours.update(gradient(point), moments, point)
            w = jax.tree.map(lambda w, d: w - rate(n) * d, w, direction)
            mean = average.update(mean, w, jnp.float32(0), rate(n))
            updates, state = theirs.update(gradient(y), state, y)
            return w, mean, moments, optax.apply_updates(y, updates), state

        for n in range(STEPS):
            close(average.point(w, mean), y)
            w, mean, moments, y, state = both(n, w, mean, moments, y, state)
            close(mean.mean, optax.contrib.schedule_free_eval_params(state, y))


RUN = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=2, length=5, evaluation_batches=1),
    ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1, mlp="none"),
    OptimiserConfig(warmup=1, learning_rate=0.05, average=Choice("ema", {"decay": 0.6})),
    TrainConfig(steps=5, evaluate_every=1, save_every=1, log_every=1, freeze=("embed*",)),
)


@pytest.mark.thorough
def test_a_run_evaluates_keeps_and_hands_on_its_average(tmp_path, capsys):
    plain = replace(RUN, optimiser=replace(RUN.optimiser, average=None))
    weights, losses, shown = [], [], []
    train(plain, callbacks=[lambda n, metrics, model: weights.append(arrays(model))])
    once = replace(RUN, train=replace(RUN.train, evaluate_every=5))
    result = train(once, tmp_path / "run", callbacks=[
        lambda n, metrics, model: losses.append(metrics["loss"]),
        lambda n, metrics, model: shown.append(arrays(model)),
    ])  # fmt: skip
    share = 0.6 ** np.arange(5)[::-1]
    mean = {name: np.tensordot(share, [w[name] for w in weights], 1) / share.sum()
            for name in weights[0]}  # fmt: skip
    close(arrays(result.model), mean, 1e-5)
    close(shown[-1], mean, 1e-5)
    assert not differ(load(tmp_path / "run", 5)[0], result.model)
    last = arrays(load(tmp_path / "run", 5, weights="last")[0])
    assert all((last[name] == weights[-1][name]).all() for name in last)
    best = load(tmp_path / "run")[0]
    onward = replace(plain, optimiser=OptimiserConfig(learning_rate=0.0, weight_decay=0.0))
    assert not differ(train(onward, origin=tmp_path / "run").model, best)
    for words, expected in (([], losses[-1]), (["--weights", "average"], losses[-1])):
        assert cli.main(["eval", str(tmp_path / "run"), "--step", "5", *words]) == 0
        assert f"loss {expected:.4f}" in capsys.readouterr().out
    assert cli.main(["eval", str(tmp_path / "run"), "--step", "5", "--weights", "last"]) == 0
    assert f"loss {losses[-1]:.4f}" not in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("average", [Choice("nt_asgd", {"n": 1}), Choice("polyak")])
def test_a_run_with_an_average_goes_on_bitwise(average, tmp_path):
    """With noise on the gradient too, and NT-ASGD begins on the way."""
    optimiser = replace(RUN.optimiser, average=average, noise=0.1, schedule="constant")
    config = replace(RUN, optimiser=optimiser, train=replace(RUN.train, steps=8))
    whole = train(config, tmp_path / "whole")
    assert train(config, tmp_path / "run", StopAt(3)).step < 8
    assert train(config, tmp_path / "run").metrics == whole.metrics
    assert hash_of(tmp_path / "run", 8) == hash_of(tmp_path / "whole", 8)
    last = load(tmp_path / "run", 8, weights="last")[0]
    assert "head.kernel" in differ(whole.model, last)  # it has begun


@pytest.mark.thorough  # the words, beside those of tests/test_optimiser.py
def test_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["train", "parity", "--tiny", "--run", str(run), "--optimiser.average"]
    assert cli.main([*argv, "nt_asgd", "n=3"]) == 0
    assert read_config(run).optimiser.average == Choice("nt_asgd", {"n": 3})
    assert cli.main([*argv[:-1]]) == 2
    assert "differs in optimiser.average" in capsys.readouterr().err
    other = str(tmp_path / "other")
    for wrong, message in (
        (["emo"], "unknown optimiser.average 'emo'; did you mean 'ema'"),
        (["ema", "decy=1"], "option of optimiser.average 'ema': 'decy'; did you mean 'decay'"),
        (["ema", "decay=1"], "optimiser.average ema: decay must be a number at least 0 and below"),
        (["ema", "polyak"], "one name, followed by its options KEY=VALUE, got 'polyak' too"),
        (["schedule_free"], "optimiser.schedule must be constant, got 'cosine'"),
    ):
        assert cli.main(["train", "parity", "--run", other, *argv[5:], *wrong]) == 2
        assert message in capsys.readouterr().err
    free = replace(RUN.optimiser, average=Choice("schedule_free"), schedule="constant")
    with pytest.raises(ValueError, match="the optimiser that was given has its own"):
        train(replace(RUN, optimiser=free), optimiser=optax.sgd(0.1))
    plain = replace(RUN, optimiser=OptimiserConfig(), train=replace(RUN.train, steps=1))
    train(plain, tmp_path / "plain")
    assert cli.main(["eval", str(tmp_path / "plain"), "--weights", "average"]) == 2
    assert "has no average of weights" in capsys.readouterr().err
