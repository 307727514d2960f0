"""Encoder and decoder: bridges, masks, streams, writing; and frames that convolutions read."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.answers import Pair, Paired
from seqjax.nn.base import cast_parameters
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.stacks.summary import TOLERANCE, fitted, parameters
from seqjax.tasks import Classes, Features, Spec, Tokens, Values, make
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.generate import generate
from seqjax.train.loop import train
from seqjax.zoo import make as make_layer

V, B, S, T = 5, 2, 7, 4
SPEC = Spec(Pair(Tokens(V), Tokens(V), V - 1), Classes(V, per_step=True))
GRU = (LayerConfig("gru"),)
CONFIG = ModelConfig(layer=GRU, features=8, depth=3, bridge_heads=2, compute="float64")
BRIDGES = ("state", "attention", "both")


def tokens(seed, *shape):
    return jax.random.randint(jax.random.key(seed), shape, 0, V, jnp.int32)


SOURCE, TARGET = tokens(0, B, S), tokens(1, B, T)


def built(bridge="attention", spec=SPEC, **changes):
    config = replace(CONFIG, bridge=bridge, **changes)
    return cast_parameters(Model(config, spec, rngs=nnx.Rngs(0)), jnp.float64)


@pytest.mark.share(1)
@pytest.mark.parametrize("bridge", BRIDGES)
def test_step_by_step_is_at_once(bridge):
    """Also after a source in which what stands at masked steps is anything."""
    model = built(bridge)
    call = jax.jit(lambda x, h: model(x, h))
    present = jnp.ones((B, S), bool).at[0, 5:].set(False).at[1, 0].set(False)
    whole, end = call(Paired(SOURCE, TARGET, present), None)
    other = jnp.where(present, SOURCE, (SOURCE + 1) % V)
    y, h = call(Paired(other, TARGET[:, :1], present), None)
    steps = [y]
    for t in range(1, T):
        y, h = call(TARGET[:, t : t + 1], h)
        steps.append(y)
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), whole, atol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), h, end)
    short, _ = call(Paired(SOURCE[:1, :5], TARGET[:1]), None)
    np.testing.assert_allclose(short, whole[:1], atol=1e-10)


@pytest.mark.share(1)
@pytest.mark.parametrize("bridge", BRIDGES)
def test_gradients_reach_the_encoder_and_dropout_both(bridge):
    graph, params, rest = nnx.split(built(bridge, dropout=0.3, remat=True), nnx.Param, ...)

    def loss(params, key):
        model = nnx.merge(graph, params, rest)
        return jnp.sum(model(Paired(SOURCE, TARGET), key=key)[0] ** 2)

    value = jax.jit(jax.value_and_grad(loss))
    off, grads = value(params, None)
    for path, grad in nnx.to_flat_state(grads):
        if "encoder" in path and "head" not in path:
            unused = bridge == "state" and path[1:] == ("norm", "weight")  # states do not pass it
            assert bool(jnp.any(grad.get_value() != 0)) is not unused, path
    assert value(params, jax.random.key(0))[0] != off


def test_16_bits():
    model = Model(replace(CONFIG, bridge="both", compute="bfloat16"), SPEC, rngs=nnx.Rngs(0))
    y, h = jax.eval_shape(lambda: model(Paired(SOURCE, TARGET)))
    assert y.dtype == jnp.float32 and h.source.y.dtype == jnp.bfloat16


def test_without_a_source_there_is_nothing_to_see():
    model = built()
    nothing = jnp.zeros((B, S), bool)
    one, _ = model(Paired(SOURCE, TARGET, nothing))
    two, _ = model(Paired(SOURCE[:, ::-1], TARGET, nothing))
    np.testing.assert_array_equal(one, two)
    assert float(jnp.abs(one - model(Paired(SOURCE, TARGET))[0]).max()) > 1e-4


@pytest.mark.thorough
def test_an_encoder_may_look_ahead_and_be_of_another_kind():
    both = (LayerConfig("bidirectional", {"layer": "gru"}),)
    spec = replace(SPEC, inputs=Pair(Features(3), Tokens(V), V - 1))
    model = built(spec=spec, encoder=both, encoder_depth=1)
    x = jax.random.normal(jax.random.key(0), (B, S, 3))
    first = model(Paired(x, TARGET))[0]
    assert float(jnp.abs(model(Paired(x.at[:, -1].add(1), TARGET))[0] - first).max()) > 1e-4
    assert model.causal and not model.encoder.causal
    out = generate(model, [np.zeros((4, 3)), np.ones((2, 3))], 5, temperature=0)
    assert out.shape == (2, 5)


def test_what_is_written_is_the_argmax_of_full_passes():
    """From sources of two lengths, as each alone."""
    model = built("both")
    model.head.kernel.set_value(30 * model.head.kernel.get_value())  # far from uniform
    call, written = jax.jit(model), np.full((1, 6), V - 1, np.int32)
    for t in range(5):
        y, _ = call(Paired(SOURCE[:1], jnp.asarray(written[:, :5])))
        written[0, t + 1] = np.argmax(y[0, t])
    sources = [np.asarray(SOURCE[0]), np.asarray(SOURCE[1, :2])]
    together = generate(model, sources, 5, temperature=0)
    assert together[0].tolist() == written[0, 1:].tolist()
    assert together[1].tolist() == generate(model, sources[1:], 5, temperature=0)[0].tolist()


@pytest.mark.parametrize("changes, message", [
    (dict(bridge="state", encoder=(LayerConfig("lru"),)), "model.bridge=state hands on states"),
    (dict(bridge="both", encoder_depth=1), "model.bridge=both hands on states"),
    (dict(encoder=2 * GRU, encoder_depth=1), "encoder_depth must be at least the 2 layers it"),
    (dict(bridge_heads=3), "model.bridge_heads: features = 8 cannot be split into 3 equal parts"),
    (dict(bridge="none"), "model.bridge must be 'state' or 'attention' or 'both'"),
])  # fmt: skip
def test_encoders_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        built(**changes)


def test_a_budget_of_parameters_counts_the_encoder():
    config = ModelConfig(layer=GRU, depth=3, encoder=(*GRU, LayerConfig("lru")), encoder_depth=5)
    config = fitted(replace(config, parameters=10_000_000), SPEC)
    model = nnx.eval_shape(lambda: Model(config, SPEC, rngs=nnx.Rngs(0)))
    assert abs(parameters(model) / 10_000_000 - 1) < TOLERANCE
    with pytest.raises(ValueError, match="model.encoder_depth are of tasks that give pairs"):
        Model(config, Spec(Tokens(V), Classes(V, True)), rngs=nnx.Rngs(0))


def test_wrong_pairs():
    model = built()
    pair = Paired(SOURCE, TARGET)
    for x, h, options, message in (
        (TARGET, None, {}, r"takes Paired\(source, target\), got"),
        (TARGET, model.start(B), {}, "a model of pairs begins with one"),
        (pair, None, {"resets": jnp.zeros((B, T), bool)}, "takes no resets"),
        (pair._replace(source=SOURCE.astype(float)), None, {}, "takes tokens"),
        (pair._replace(present=jnp.ones((B, T), bool)), None, {}, r"bool \[B, S\] = \[2, 7\]"),
        (pair._replace(target=TARGET[:1]), None, {}, "1 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            model(x, h, **options)


def test_what_is_reversed():
    """Sources of all lengths from half on; what is left of them and of the target is padding."""
    batch = jax.device_get(make("reverse", vocabulary=9).sample(jax.random.key(0), 64, 7))
    lengths = set()
    for source, target, y, there in zip(*batch.x[:2], batch.y, batch.present):
        n = int(there.sum())
        lengths.add(n)
        assert there[:n].all() and y[:n].tolist() == source[:n][::-1].tolist()
        assert target[:n].tolist() == [9, *y[: n - 1]]
    assert lengths == {4, 5, 6, 7}
    np.testing.assert_array_equal(batch.mask, batch.present)
    np.testing.assert_array_equal(batch.x.present, batch.present)
    turned = make("reverse", vocabulary=9, reversed_source=True)
    turned = jax.device_get(turned.sample(jax.random.key(0), 64, 7))
    np.testing.assert_array_equal(turned.x.source, batch.y)
    np.testing.assert_array_equal(turned.y, batch.y)


@pytest.mark.thorough
def test_reversing_is_learned_through_the_bridge(tmp_path):
    """And not by a decoder that is given no source."""
    task = TaskConfig("reverse", {"vocabulary": 4}, batch=32, length=6, evaluation_batches=2)
    config = Config(
        task, ModelConfig(layer=GRU, features=32, depth=1),
        OptimiserConfig(learning_rate=0.01, warmup=10),
        TrainConfig(steps=150, evaluate_every=150, log_every=150),
    )  # fmt: skip
    result = train(config, tmp_path)
    assert result.metrics["accuracy"] > 0.6 and {"sequence_accuracy"} <= result.metrics.keys()
    reverse = make("reverse", vocabulary=4)
    batch = reverse.sample(jax.random.key(5), 256, 6)

    def accuracy(batch):
        y, _ = result.model(batch.x, mask=batch.present)
        return float(reverse.score(y, batch)["accuracy"])

    blind = batch._replace(x=batch.x._replace(present=jnp.zeros_like(batch.present)))
    assert accuracy(batch) > accuracy(blind) + 0.2


# --- frames


FRAMES = Spec(Features(9, 6, 2), Values(1, per_step=True))


@pytest.mark.thorough
def test_a_convolution_sees_frames_one_by_one():
    model = Model(replace(CONFIG, depth=1, front="conv"), FRAMES, rngs=nnx.Rngs(0))
    embed = cast_parameters(model.embed, jnp.float64)
    x = jax.random.normal(jax.random.key(0), (B, T, 9, 6, 2))
    y = embed(x)
    assert y.shape == (B, T, 8)
    changed = jnp.abs(embed(x.at[0, 2].add(1.0)) - y).max(axis=2) > 1e-6
    np.testing.assert_array_equal(changed, jnp.zeros((B, T), bool).at[0, 2].set(True))
    np.testing.assert_allclose(embed(x[1:, 1:2])[0, 0], y[1, 1], atol=1e-12)
    low, _ = Model(
        replace(CONFIG, depth=1, front="conv", compute="bfloat16"), FRAMES, rngs=nnx.Rngs(0)
    )(x)
    assert low.dtype == jnp.float32
    with pytest.raises(ValueError, match="model.front must be flat but for frames"):
        Model(replace(CONFIG, front="conv"), Spec(Features(3), Values(1, True)), rngs=nnx.Rngs(0))


def test_places_of_frames_stay_where_they_are():
    """In front of a ConvLSTM, which so sees a place and its neighbours, one step further each."""
    options = dict(layer=(LayerConfig("convlstm", dict(shape=(9, 6))),), depth=1, mlp="none")
    config = replace(CONFIG, **options, features=9 * 6 * 3, front="places")
    embed = Model(config, FRAMES, rngs=nnx.Rngs(0)).embed
    layer = make_layer("convlstm", 9 * 6 * 3, shape=(9, 6))
    x = jax.random.normal(jax.random.key(0), (1, T, 9, 6, 2), jnp.float32).at[:, 1:].set(0)
    for t, row, column in ((0, 4, 3), (2, 8, 0)):
        each = x[0, t, row, column] @ embed.W.kernel[...] + embed.W.bias[...]
        at = (6 * row + column) * 3
        np.testing.assert_allclose(embed(x)[0, t, at : at + 3], each, atol=1e-6)
    run = jax.jit(lambda x: layer(embed(x))[0].reshape(T, 9, 6, 3))
    moved = jnp.any(run(x.at[0, 0, 4, 3].add(1.0)) != run(x), axis=3)
    rows, columns = np.mgrid[:9, :6]
    for t in range(T):
        away = np.maximum(abs(rows - 4), abs(columns - 3))
        np.testing.assert_array_equal(moved[t], away <= t + 1)
    with pytest.raises(ValueError, match="a multiple of the 54 places of Features"):
        Model(replace(config, features=8), FRAMES, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="flat but for Features, got places for Tokens"):
        Model(replace(config, features=6), Spec(Tokens(3), Values(1, True)), rngs=nnx.Rngs(0))


def convolved(frame, kernel, bias):
    """3 x 3, stride 2, as many rows and columns as half of them, rounded up."""
    rows, columns = (-(-n // 2) for n in frame.shape[:2])
    pads = [max(2 * (m - 1) + 3 - n, 0) for m, n in zip((rows, columns), frame.shape)]
    padded = np.pad(frame, [(p // 2, p - p // 2) for p in pads] + [(0, 0)])
    out = np.zeros((rows, columns, len(bias)))
    for i, j in np.ndindex(rows, columns):
        patch = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        out[i, j] = np.einsum("ijc,ijcd->d", patch, kernel) + bias
    return out


def test_lrcn_is_convolutions_and_then_an_lstm():
    """arXiv:1411.4389, by loops: each frame by itself, then over frames; their mean is read."""
    layer = (LayerConfig("lstm"),)
    spec = Spec(FRAMES.inputs, Classes(3, per_step=False))
    model = built(spec=spec, layer=layer, depth=1, mlp="none", front="conv", pool="mean")
    x = np.random.default_rng(0).normal(size=(B, T, 9, 6, 2))
    found = jax.jit(lambda x: model(x)[0])(x)
    p = {".".join(map(str, path)): np.asarray(value[...], np.float64)
         for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param))}  # fmt: skip

    def normed(z, weight):
        return z / np.sqrt(np.mean(z**2, axis=-1, keepdims=True) + 1e-6) * weight

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    W, b, U = (p[f"blocks.0.layer.{n}"][0] for n in ("W.kernel", "W.bias", "U"))
    for video, answer in zip(x, found):
        h, c, total = np.zeros(8), np.zeros(8), 0.0
        for frame in video:
            for n in range(2):
                kernel, bias = (p[f"embed.convolutions.{n}.{part}"] for part in ("kernel", "bias"))
                z = normed(convolved(frame, kernel, bias), p[f"embed.norms.{n}.weight"])
                frame = z * sigmoid(z)
            e = frame.reshape(-1) @ p["embed.W.kernel"] + p["embed.W.bias"]
            i, f, g, o = np.split(normed(e, p["blocks.0.norm.weight"][0]) @ W + b + U @ h, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            total = total + normed(e + h, p["norm.weight"])
        expected = total / T @ p["head.kernel"] + p["head.bias"]
        np.testing.assert_allclose(answer, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.thorough
def test_a_convolution_learns_where_the_light_is():
    """Whether a bright corner is at the left or at the right."""
    key = jax.random.key(0)
    side = jax.random.bernoulli(key, 0.5, (64, 3, 1))
    light = jnp.zeros((64, 3, 9, 6, 2)).at[..., 4, :3, 0].set(1.0)
    x = jnp.where(side[..., None, None], light, light[..., ::-1, :])
    x = x + 0.3 * jax.random.normal(jax.random.key(1), x.shape)
    graph, params, rest = nnx.split(built(spec=FRAMES, depth=1, front="conv"), nnx.Param, ...)

    def loss(params):
        y, _ = nnx.merge(graph, params, rest)(x)
        return jnp.mean((y - jnp.where(side, 1.0, -1.0)) ** 2)

    value = jax.jit(jax.value_and_grad(loss))
    before, _ = value(params)
    for _ in range(20):
        _, grads = value(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert value(params)[0] < 0.3 * before
