"""Optimisers by name are those of optax; groups have rates and decays of their own."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from seqjax.nn.base import Orthogonal
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import make as task
from seqjax.tools import cli
from seqjax.train.config import (
    Choice,
    Config,
    GroupConfig,
    OptimiserConfig,
    TaskConfig,
    TrainConfig,
)
from seqjax.train.loop import train
from seqjax.train.optimiser import OPTIMISERS, build, groups_of_papers, moved
from seqjax.train.record import read_config
from seqjax.train.step import take_apart
from seqjax.zoo import LAYERS, make


@pytest.fixture(autouse=True)
def promotion():
    """As in the step: optax divides by counts."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


draw = np.random.default_rng(0)
SHAPES = {
    "embed.table": (5, 3),
    "blocks.0.layer.W.kernel": (2, 4, 3),  # of two blocks
    "blocks.0.layer.log_dt": (2, 3),
    "blocks.0.norm.weight": (2, 3),
    "norm.weight": (3,),
}
PARAMS = {name: jnp.asarray(draw.normal(size=shape)) for name, shape in SHAPES.items()}
DECAYS = {name: name.endswith(("table", "kernel")) for name in SHAPES}
PLAIN = OptimiserConfig(clip=1e9)
RATE = 0.05


def steps(config, count=3):
    """The parameters after steps on sum(p^4): gradients that change."""
    return descend(build(config, DECAYS), lambda p, d: p - RATE * d, count)


def descend(optimiser, move, count=3):
    @jax.jit
    def step(params, state):
        grads = jax.tree.map(lambda p: 4 * p**3, params)
        direction, state = optimiser.update(grads, state, params)
        return jax.tree.map(move, params, direction), state

    params, state = PARAMS, optimiser.init(PARAMS)
    for _ in range(count):
        params, state = step(params, state)
    return params


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9), a, b)


@pytest.mark.parametrize(
    "name, options, official",
    [
        ("adamw", {}, optax.adamw(RATE, 0.9, 0.99, weight_decay=0.1, mask=DECAYS)),
        ("sgd", dict(momentum=0.9, nesterov=True), optax.sgd(RATE, 0.9, nesterov=True)),
        ("sgd", {}, optax.sgd(RATE)),
        ("lion", {}, optax.lion(RATE, weight_decay=0.1, mask=DECAYS)),
        ("rmsprop", {}, optax.rmsprop(RATE)),
        ("adafactor", {}, optax.adafactor(RATE)),
        ("radam", dict(threshold=1.0), optax.radam(RATE, threshold=1.0)),
    ],
)
def test_a_name_is_the_optimiser_of_optax(name, options, official):
    decay = 0.1 if name in ("adamw", "lion") else 0.0
    config = replace(PLAIN, name=name, options=options, weight_decay=decay)
    close(steps(config), descend(official, lambda p, u: p + u))


def test_muon_is_for_the_matrices_of_the_blocks():
    found = steps(replace(PLAIN, name="muon", weight_decay=0.0))
    for n in range(2):
        matrix = {"W": PARAMS["blocks.0.layer.W.kernel"][n]}
        muon = optax.contrib.muon(RATE)
        state = muon.init(matrix)
        for _ in range(3):
            updates, state = muon.update({"W": 4 * matrix["W"] ** 3}, state, matrix)
            matrix = optax.apply_updates(matrix, updates)
        close(found["blocks.0.layer.W.kernel"][n], matrix["W"])
    adam = steps(replace(PLAIN, name="nadam", weight_decay=0.0))
    close({**found, "blocks.0.layer.W.kernel": 0}, {**adam, "blocks.0.layer.W.kernel": 0})


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_descends(name):
    before, after = (
        sum(float(jnp.sum(p**4)) for p in params.values())
        for params in (PARAMS, steps(replace(PLAIN, name=name, weight_decay=0.0), 10))
    )
    assert after < before


def test_groups_have_rates_and_decays_of_their_own():
    groups = (
        GroupConfig("*", decay=0.5),
        GroupConfig("*.log_dt", rate=0.1, decay=0.0),
        GroupConfig("norm.*", rate=0.0),
    )
    config = replace(PLAIN, name="sgd", weight_decay=0.1, groups=groups)
    one = steps(config, 1)
    for name, p in PARAMS.items():
        rate, decay = {"blocks.0.layer.log_dt": (0.1, 0.0), "norm.weight": (0.0, 0.5)}.get(
            name, (1.0, 0.5)
        )
        close(one[name], p - RATE * rate * (4 * p**3 + decay * p))


def test_clipping_by_value_comes_before_the_norm():
    config = replace(PLAIN, name="sgd", weight_decay=0.0, clip_value=0.01)
    one = steps(config, 1)
    for name, p in PARAMS.items():
        close(one[name], p - RATE * jnp.clip(4 * p**3, -0.01, 0.01))


def test_noise_has_the_variance_of_the_paper_and_is_drawn_anew():
    """eta / (1 + t)^0.55, after the clipping."""
    params = {"a": jnp.zeros((100, 50)), "b": jnp.zeros(5000)}
    config = OptimiserConfig(name="sgd", clip=1e-9, noise=0.3, weight_decay=0.0)
    optimiser = build(config, dict.fromkeys(params, False))
    state, drawn = optimiser.init(params), []
    for step in (0, 0, 3):
        key = jax.random.fold_in(jax.random.key(0), len(drawn))
        update, _ = optimiser.update(params, state, params, key=key, step=jnp.int32(step))
        drawn.append(np.concatenate([np.ravel(update["a"]), update["b"]]))
        assert np.var(drawn[-1]) == pytest.approx(0.3 / (1 + step) ** 0.55, rel=0.05)
        assert abs(drawn[-1].mean()) < 0.02
    assert not (drawn[0] == drawn[1]).any()
    assert not (drawn[0][:5000] == drawn[0][5000:]).any()


DECLARE = [name for name, entry in LAYERS.items() if "trained" in vars(entry.make)]


@pytest.mark.parametrize("name", DECLARE)
def test_what_layers_declare_are_parameters(name):
    """Each in one of the layer's variants."""
    entry, found = LAYERS[name], set()
    for options in (entry.smoke, *({**entry.smoke, **more} for more in entry.variants.values())):
        layer = nnx.eval_shape(lambda o=options: make(name, 4, rngs=nnx.Rngs(0), **o))
        found |= {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(layer))}
    assert set(entry.make.trained) <= found
    assert {"lru", "s4", "s4d", "s5", "rwkv4", "rwkv7"} <= set(DECLARE)


def test_rates_and_decays_of_papers():
    """LRU's and RWKV-7's in a model, repeated and inside a wrapper; groups of the user win."""
    lru = LayerConfig("bidirectional", {"layer": "lru"})
    layers = ModelConfig((lru, LayerConfig("rwkv7", {"heads": 1})), features=4, depth=4)
    spec = task("state_tracking").spec
    model = nnx.eval_shape(lambda: Model(layers, spec, rngs=nnx.Rngs(0)))
    shapes, _, decays, _ = take_apart(model)
    params = {name: jnp.full(p.shape, 0.3) for name, p in shapes.items()}
    found = groups_of_papers(model, decays)
    nu = "blocks.0.layer.forward.nu_log"
    given = OptimiserConfig(name="sgd", clip=1e9, groups=(GroupConfig(nu, 0.125),))
    optimiser = build(given, decays, found)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimiser.update(ones, optimiser.init(params), params)
    theirs = re.compile(r".*layer.(forward|backward).(nu_log|theta_log|gamma_log|B)")
    for name, p in params.items():
        rate = 0.125 if name == nu else 0.5 if theirs.fullmatch(name) else 1
        rate = 2 if name == "blocks.1.layer.w.bias" else rate
        close(updates[name], rate * (1 + (0.1 * p if decays[name] and rate == 1 else 0 * p)))
    assert len(found) == 9 and sum(decays[group.name] for group in found) == 2  # both B
    plain = nnx.eval_shape(lambda: Model(ModelConfig(features=4), spec, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="no layer of the model declares"):
        groups_of_papers(plain, take_apart(plain)[2])


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_orthogonal_matrices_are_turned(name):
    """10^4 updates towards a rotation arrive there, orthogonal to 1e-6 in float32, and the first
    is what Q - G has along the orthogonal matrices; other parameters move as they do without."""
    start, target = (
        np.stack([np.linalg.qr(one)[0] for one in draw.normal(size=(2, 6, 6))]) for _ in range(2)
    )
    target[:, 0] *= np.linalg.det(start @ target.swapaxes(1, 2))[:, None]  # of one component
    start, target = jnp.asarray(start, jnp.float32), jnp.asarray(target, jnp.float32)
    params = {"blocks.0.layer.Q": start, "w": start}
    optimiser = build(OptimiserConfig(name=name, clip=1e9), dict.fromkeys(params, False))

    def update(n, carry):
        params, moments = carry
        grads = {of: p - target for of, p in params.items()}
        direction, moments = optimiser.update(grads, moments, params)
        rate = jnp.where(n < 8_000, 0.01, 0.001).astype(jnp.float32)
        changes = jax.tree.map(lambda d: -rate * d, direction)
        return moved(params, changes, {"blocks.0.layer.Q"}), moments

    def after(steps):
        run = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, update, carry)[0])
        return run((params, optimiser.init(params)))

    first, last = after(1), after(10_000)
    Q, w = (np.asarray(last[of], float) for of in params)
    np.testing.assert_allclose(Q.swapaxes(1, 2) @ Q, np.stack([np.eye(6)] * 2), atol=1e-6)
    np.testing.assert_allclose(Q, target, atol=5e-3)
    np.testing.assert_allclose(w, target, atol=5e-3)
    G = np.asarray(start - first["w"], float)
    X = np.asarray(start, float)
    along = G - X @ G.swapaxes(1, 2) @ X
    size = np.max(np.abs(along))
    assert size > 0.004
    np.testing.assert_allclose(first["blocks.0.layer.Q"] - X, -along, atol=0.15 * size)


def test_a_model_with_orthogonal_matrices_trains(tmp_path):
    """Two stacked blocks, by the config's optimiser and by one handed in; not with averages."""
    layer = LayerConfig("orthogonal_rnn", {"parametrisation": "stiefel"})
    config = Config(
        TaskConfig("majority", batch=4, length=12, evaluation_batches=1),
        ModelConfig((layer,), features=8, depth=2),
        OptimiserConfig(learning_rate=0.05, warmup=0),
        TrainConfig(steps=20),
    )
    for optimiser in (None, optax.adam(0.05)):
        trained = train(config, optimiser=optimiser).model
        before = Model(config.model, task("majority").spec, rngs=nnx.Rngs(0))
        (Q,), (start,) = (
            [p.get_value() for _, p in nnx.to_flat_state(nnx.state(m, Orthogonal))]
            for m in (trained, before)
        )
        Q = np.asarray(Q, float)
        np.testing.assert_allclose(Q.swapaxes(1, 2) @ Q, np.stack([np.eye(8)] * 2), atol=1e-6)
        assert np.max(np.abs(Q - start)) > 0.1
    averaged = replace(config.optimiser, average=Choice("ema"))
    with pytest.raises(ValueError, match="average must be none: .* blocks.0.layer.Q, is not ortho"):
        train(replace(config, optimiser=averaged))


@pytest.mark.parametrize(
    "config, message",
    [
        (OptimiserConfig(name="adamv"), "unknown optimiser 'adamv'; did you mean .*'adamw'"),
        (OptimiserConfig(name="sgd", options={"moment": 1}), "option of optimiser 'sgd': 'moment'"),
        (OptimiserConfig(name="lion", beta2=0.5), "beta1 and beta2 are of adamw; lion has options"),
        (OptimiserConfig(groups=(GroupConfig("*.dt"),)), "optimiser.groups '.*dt'"),
        (OptimiserConfig(groups=(GroupConfig("*"),)), "no rate and no decay of its own"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        build(config, DECAYS)


def test_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    argv = ["train", "copy", "--tiny", "--run", str(run), "--optimiser.name", "sgd"]
    argv += ["--optimiser.options", "momentum=0.9", "--optimiser.clip-value", "0.5"]
    argv += ["--model.layer", "s4d", "--optimiser.paper", "--optimiser.noise", "0.1"]
    argv += ["--optimiser.groups", "*.bias", "rate=0.5", "decay=0.1", "norm*", "decay=0"]
    assert cli.main(argv) == 0
    kept = read_config(run).optimiser
    assert kept.groups == (GroupConfig("*.bias", 0.5, 0.1), GroupConfig("norm*", decay=0))
    assert (kept.name, kept.options, kept.clip_value) == ("sgd", {"momentum": 0.9}, 0.5)
    assert "layer.log_dt: 0.1 of the learning rate, no decay" in capsys.readouterr().out
    for wrong, message in (
        (
            ["--model.layer", "gru", "--optimiser.paper"],
            "optimiser.paper: no layer of the model declares",
        ),
        (["--optimiser.noise", "-1"], "optimiser.noise must be a number at least 0, got -1"),
        (["--optimiser.groups", "*", "rat=1"], "a group has rate and decay, got 'rat'"),
        (["--optimiser.groups", "*", "rate=fast"], "groups[0].rate must be a number at least 0"),
        (["--optimiser.groups", "nothing*"], "nothing"),
        (["--optimiser.name", "adamwx"], "'adamw'"),
    ):
        assert cli.main(["train", "copy", "--run", str(tmp_path / "other"), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
