"""Losses of a model beside that of its task: of what its last layer returns, and of layers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.layers.segment.compressive_transformer import CompressiveTransformer
from seqjax.stacks.config import LayerConfig, ModelConfig, parse_layers
from seqjax.stacks.model import Model
from seqjax.tasks import make
from seqjax.train.config import Choice, Config, OptimiserConfig, TaskConfig
from seqjax.train.evaluation import make_evaluate
from seqjax.train.optimiser import build
from seqjax.train.step import TrainState, make_update, prepare, take_apart
from seqjax.zoo import make as make_layer

B, T = 4, 9
TASK = make("state_tracking", group="parity")
TINY = Config(
    TaskConfig("state_tracking", {"group": "parity"}, batch=B, length=T, evaluation_batches=1),
    ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=2, mlp="none"),
    OptimiserConfig(
        name="sgd", learning_rate=0.1, schedule="constant", warmup=0, weight_decay=0.0, clip=1e9
    ),
)
COMPRESSIVE = "compressive_transformer length=3 memory=3 compressed=2 ratio=3 heads=2"
PENALISED = dict(ar=2.0, tar=1.0)


def of(layers="elman", **fields):
    return replace(TINY, model=replace(TINY.model, layer=parse_layers(layers.split()), **fields))


def model_of(config):
    return Model(config.model, TASK.spec, rngs=nnx.Rngs(0))


def updated(config, batch=None, evaluate=False):
    """Parameters before and after one step, its metrics, and perhaps those of validation."""
    params, frozen, decays, rebuild = take_apart(model_of(config))
    optimiser, before = build(config.optimiser, decays), jax.tree.map(np.asarray, params)
    held_out = make_evaluate(config, TASK, rebuild)(params, frozen) if evaluate else {}
    key = jax.random.key_data(jax.random.key(0))
    state = TrainState(jnp.int32(0), params, frozen, optimiser.init(params), key, None)
    batch = next(TASK.batches(0, B, T)) if batch is None else batch
    new, metrics = make_update(config, TASK, rebuild, optimiser)(state, batch, np.float32(0))
    return before, new.params, metrics, held_out


def blocks_of(stack):
    """All of them, the repeated ones taken apart."""
    graph, stacked = nnx.split(stack.blocks)
    count = len(jax.tree.leaves(stacked)[0])
    parts = (jax.tree.map(lambda v, n=n: v[n], stacked) for n in range(count))
    return [*(block for part in parts for block in nnx.merge(graph, part)), *stack.tail]


def added_last(model, x, mask, resets, M):
    """What the last layer adds to the stream, one block after the other."""
    x = model.embed(x)
    for block in blocks_of(model):
        y, _ = block.layer(block.norm(x), None, resets, mask)
        x = x + M * y
    return np.asarray(y, np.float64)


def by_hand(y, M, present, resets, alpha, beta):
    """Means over the steps of each example, and over its pairs of neighbours."""
    ar, tar = np.zeros(len(y)), np.zeros(len(y))
    for n in range(len(y)):
        squares = [np.mean((M[n, t] * y[n, t]) ** 2) for t in range(T) if present[n, t]]
        moved = [np.mean((y[n, t] - y[n, t + 1]) ** 2) for t in range(T - 1)
                 if present[n, t] and present[n, t + 1] and not resets[n, t + 1]]  # fmt: skip
        ar[n], tar[n] = alpha * np.mean(squares), beta * np.mean(moved)
    return {"ar": ar, "tar": tar}


@pytest.mark.share(1)
@pytest.mark.parametrize("layers, depth", [("elman*2", 4), ("elman*2", 3)], ids=["scan", "tail"])
def test_the_last_layer_is_penalised(layers, depth, monkeypatch):
    """Against loops, among masked steps, resets and dropout; only where it is wanted."""
    config = of(layers, depth=depth, dropout=0.5, **PENALISED)
    model, rng = model_of(config), np.random.default_rng(0)
    M = np.where(rng.random((B, T, 4)) < 0.5, 2.0, 0.0).astype(np.float32)
    present, resets = rng.random((B, T)) < 0.8, rng.random((B, T)) < 0.2
    monkeypatch.setattr("seqjax.stacks.blocks.dropout", lambda x, *_, **__: M * x)
    x, beside = jnp.asarray(rng.integers(0, 2, (B, T))), dict(mask=jnp.asarray(present))
    beside["resets"] = jnp.asarray(resets)
    y, h, found = model.with_losses(x, **beside, key=jax.random.key(0))
    expected = by_hand(added_last(model, x, *beside.values(), M), M, present, resets, 2.0, 1.0)
    assert min(value.min() for value in expected.values()) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), found, expected)
    same, _ = model(x, **beside, key=jax.random.key(0))
    np.testing.assert_array_equal(y, same)


@pytest.mark.thorough
def test_a_block_is_penalised_for_what_it_adds():
    """And one step has no neighbour."""
    model = model_of(of("transformer_xl heads=2", depth=1, **PENALISED))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (B, 1)))
    stream = model.embed(x)
    (block,) = blocks_of(model)
    y = np.asarray(block.layer(stream)[0] - stream)
    found = model.with_losses(x)[2]
    np.testing.assert_allclose(found["ar"], 2 * np.mean(y**2, axis=(1, 2)), rtol=2e-5)
    assert not np.any(found["tar"])


def test_the_penalties_are_added_to_the_loss():
    """By a step of gradient descent: their gradient is added to that of the task."""
    before, plain, metrics, _ = updated(TINY)
    _, new, more, held_out = updated(of(**PENALISED), evaluate=True)
    assert set(held_out) == set(metrics) - {"gradient_norm", "learning_rate"}
    assert set(more) - set(metrics) == {"ar", "tar"}
    np.testing.assert_array_equal(metrics["loss"], more["loss"])

    model, batch = model_of(of(**PENALISED)), next(TASK.batches(0, B, T))
    _, _, _, rebuild = take_apart(model)
    penalty = jax.grad(
        lambda params: sum(map(jnp.mean, rebuild(params, {}).with_losses(batch.x)[2].values()))
    )(before)
    for name in before:
        np.testing.assert_allclose(
            new[name] - plain[name], -0.1 * penalty[name], rtol=1e-4, atol=1e-7, err_msg=name
        )
    assert all(np.any(penalty[name]) for name in before if not name.startswith(("head", "norm")))


def test_without_weights_a_model_computes_what_it_did():
    """Training traces the operations of a call, and no other one."""
    model, x = model_of(TINY), jnp.zeros((B, T), jnp.int32)
    of_call, of_training = (str(jax.make_jaxpr(run)(x)) for run in (model, model.with_losses))
    assert of_call == of_training
    other = model_of(of(**PENALISED))
    assert of_call == str(jax.make_jaxpr(other)(x)) != str(jax.make_jaxpr(other.with_losses)(x))


@pytest.mark.parametrize("config", [
    of(**PENALISED),
    pytest.param(of(COMPRESSIVE), marks=pytest.mark.thorough),
])  # fmt: skip
def test_micro_batches_add_up(config):
    """Where examples have unequal numbers of steps."""
    batch = next(TASK.batches(0, B, T))
    present = np.arange(T)[None] < np.array([9, 3, 6, 8])[:, None]
    batch = batch._replace(present=present, mask=np.asarray(batch.mask) * present)
    halves = replace(config, optimiser=replace(config.optimiser, accumulate=2))
    (_, whole, seen, _), (_, parts, same, _) = updated(config, batch), updated(halves, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
                 (whole, seen), (parts, same))  # fmt: skip


@pytest.mark.thorough
def test_a_layer_is_trained_by_its_own_loss(monkeypatch):
    """The compression by that of compression alone; everything else by the task alone."""
    config = of(COMPRESSIVE + " detach_memory=True", depth=1)
    before, new, metrics, _ = updated(config)
    model, x = model_of(config), next(TASK.batches(0, B, T)).x
    (block,) = blocks_of(model)
    lost = block.layer.compression_loss(block.norm(model.embed(x)))
    np.testing.assert_allclose(metrics["compression"], 3 * jnp.mean(lost), rtol=2e-5)
    assert metrics["compression"] > 1e-3

    monkeypatch.setattr(CompressiveTransformer, "losses", lambda *_: {})
    _, plain, _, _ = updated(config)
    for name in before:
        moved, alone = new[name] - before[name], plain[name] - before[name]
        if "f_c" in name:
            assert np.any(moved) and not np.any(alone)
        else:
            np.testing.assert_array_equal(moved, alone, err_msg=name)


@pytest.mark.thorough
def test_memories_are_balanced():
    """The loss of Switch Transformers over each sequence, by a loop; its slope is the router's."""
    options = dict(heads=1, key_size=2, memories=3, top=2, balance=0.1)
    layer, draw = make_layer("mom", 4, rngs=nnx.Rngs(0), **options), np.random.default_rng(0)
    x, mask = draw.normal(size=(2, 6, 4)).astype(np.float32), draw.random((2, 6)) < 0.7

    lost = jnp.where(mask[..., None], x, jnp.nan)

    def total(layer):
        return jnp.sum(layer.losses(lost, None, None, jnp.asarray(mask))["balance"])

    def by_loop(W, share=None):
        loss, shares = 0.0, []
        for n in range(2):
            p = np.exp(x[n][mask[n]] @ W)
            p /= p.sum(1, keepdims=True)
            best = np.argsort(p, axis=1)[:, -2:]
            shares.append([np.mean(np.any(best == m, axis=1)) for m in range(3)])
            loss += 0.1 * 3 * np.sum(p * np.array(shares[n] if share is None else share[n]))
        return loss, shares

    W = np.asarray(layer.W_r.kernel[...], np.float64)
    loss, share = by_loop(W)
    np.testing.assert_allclose(total(layer), loss, rtol=1e-5)
    slopes = nnx.grad(total)(layer)
    found = np.asarray(slopes.W_r.kernel[...])
    for at in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[at] = 1e-6
        gap = (by_loop(W + step, share)[0] - by_loop(W - step, share)[0]) / 2e-6
        np.testing.assert_allclose(found[at], gap, rtol=1e-3, atol=1e-6)
    assert not np.any(slopes.W_k[...]) and layer.own_loss


@pytest.mark.thorough
def test_a_model_of_pairs_has_those_of_its_encoder():
    """Of its layers; AR and TAR are of the decoder."""
    pairs = make("reverse")
    config = of(COMPRESSIVE + " detach_memory=True", depth=1, bridge_heads=2, ar=1.0).model
    model, batch = Model(config, pairs.spec, rngs=nnx.Rngs(0)), next(pairs.batches(0, B, T))
    found = model.with_losses(batch.x, **batch.beside)[2]
    (reads,), (writes,) = blocks_of(model.encoder), blocks_of(model)
    stack, x = model.encoder, batch.x
    lost = reads.layer.losses(reads.norm(stack.embed(x.source)), None, None, x.present)
    lost = jnp.sum(lost["compression"], 1) / np.sum(x.present, 1).astype(np.float32)
    own = writes.layer.losses(writes.norm(model.embed(x.target)), None, None, batch.present)
    own = jnp.sum(own["compression"], 1) / np.sum(batch.present, 1).astype(np.float32)
    np.testing.assert_allclose(found["compression"], lost + own, rtol=2e-5)
    assert set(found) == {"ar", "compression"} and lost.min() > 1e-3


@pytest.mark.parametrize("config", [of(ar=1.0), of(COMPRESSIVE + " detach_memory=True")])
def test_no_learner_takes_them(config):
    learner = replace(config.train, learner=Choice("bptt"))
    with pytest.raises(ValueError, match="learner bptt: it takes the task's loss alone: model.ar"):
        prepare(replace(config, train=learner))


@pytest.mark.parametrize("field", ["ar", "tar"])
def test_a_weight_is_not_negative(field):
    with pytest.raises(ValueError, match=f"model.{field} must be a number at least 0"):
        prepare(of(**{field: -1.0}))
