"""Answers that are scored some steps at a time: the same metrics and gradients, and less memory."""

from dataclasses import replace
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import memory
from seqjax.answers import Classes
from seqjax.answers.parts import InParts
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Spec, Tokens
from seqjax.train.config import (
    Choice,
    Config,
    MeshConfig,
    OptimiserConfig,
    TaskConfig,
    TrainConfig,
    check_config,
)
from seqjax.train.loop import train
from seqjax.train.step import prepare

B, T, F, V = 2, 7, 3, 5


def cross_entropy(W, stream, y, mask, there):
    """The mean loss and its gradients, one target after the other."""
    loss, dW, ds = 0.0, np.zeros_like(W), np.zeros_like(stream)
    for b, t in np.ndindex(B, T):
        logits = stream[b, t] @ W * there[b, t]
        p = np.exp(logits - logits.max())
        p /= p.sum()
        loss -= mask[b, t] * np.log(p[y[b, t]]) / mask.sum()
        p[y[b, t]] -= 1
        share = p * mask[b, t] / mask.sum() * there[b, t]
        dW += np.outer(stream[b, t], share)
        ds[b, t] += W @ share
    return loss, dW, ds


@pytest.mark.parametrize("part", [1, 3, 7, 20])
def test_the_cross_entropy_of_a_loop_in_float64(part):
    draw = np.random.default_rng(0)
    W, stream = draw.normal(size=(F, V)), draw.normal(size=(B, T, F))
    y, mask = draw.integers(V, size=(B, T)), draw.random((B, T)) * (draw.random((B, T)) < 0.7)
    there = draw.random((B, T)) < 0.8

    def loss(W, stream):
        answers = InParts(lambda W, x: x @ W, W, stream, jnp.asarray(there), V, part, W.dtype)
        return Classes(V, per_step=True).score(answers, y, mask)["loss"]

    with jax.enable_x64(True):
        found, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(*map(jnp.asarray, (W, stream)))
        for one, expected in zip((found, *grads), cross_entropy(W, stream, y, mask, there)):
            assert one.dtype == jnp.float64
            np.testing.assert_allclose(one, expected, rtol=1e-12, atol=1e-14)


def test_gradients_of_bfloat16_weights_are_summed_in_float32():
    """Over 512 parts: in bfloat16 a sum stops to grow."""
    T, spec = 2048, Spec(Tokens(V), Classes(V, per_step=True))
    x = jnp.zeros((1, T), jnp.int32)

    def loss(params):
        answers, _ = nnx.merge(graph, params).scored(x)
        return spec.outputs.score(answers, x, jnp.ones((1, T), jnp.float32))["loss"]

    found = []
    for more in ({"loss_chunk": 4, "compute": "bfloat16"}, {}):
        graph, params = nnx.split(
            Model(ModelConfig(features=F, depth=1, **more), spec, rngs=nnx.Rngs(0))
        )
        found.append(jax.jit(jax.grad(loss))(params)["head"]["bias"].get_value())
    np.testing.assert_allclose(*found, rtol=1e-2)


def config(task="state_tracking", **model):
    options = {"memorised": 2} if task == "copy" else {}
    return Config(
        TaskConfig(task, options, batch=4, length=8, evaluation_batches=1),
        ModelConfig(layer=(LayerConfig("min_gru"),), features=8, depth=2, **model),
        train=TrainConfig(steps=3, evaluate_every=3, log_every=1),
    )


def rows(config):
    found = []
    train(config, None, logger=lambda _, row: found.append(row))
    return found


def compare(config, **other):
    for one, expected in zip(rows(replace(config, **other)), rows(config), strict=True):
        names = {name for name in expected if "loss" in name or "accuracy" in name}
        assert names
        for name in names | {"gradient_norm"} & {*expected}:
            np.testing.assert_allclose(one[name], expected[name], rtol=2e-5, err_msg=name)


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "task, optimiser, mesh",
    [
        ("state_tracking", OptimiserConfig(accumulate=2), MeshConfig()),
        ("copy", OptimiserConfig(), MeshConfig()),  # steps without a target
        ("bit_copy", OptimiserConfig(), MeshConfig()),
        ("state_tracking", OptimiserConfig(), MeshConfig(data=2, sequence=2)),
        ("state_tracking", OptimiserConfig(), MeshConfig(fsdp=2, tensor=2)),
    ],
)
def test_training_has_the_numbers_of_the_whole(task, optimiser, mesh):
    whole = replace(config(task), optimiser=optimiser)
    compare(whole, model=replace(whole.model, loss_chunk=3), mesh=mesh)


def test_a_gradient_has_less_memory():
    sizes = [memory.answered(chunk, steps=256)[0] for chunk in (None, 64, 16)]
    assert all(1.5 * less < more for more, less in pairwise(sizes)), sizes


def test_what_is_not_scored_by_steps_is_one_error():
    with pytest.raises(ValueError, match="loss_chunk is of answers.*step by step, and Values of"):
        prepare(config("adding", loss_chunk=3))
    with pytest.raises(ValueError, match="loss_chunk must be None: a learner"):
        learner = TrainConfig(learner=Choice("rtrl"))
        check_config(replace(config(loss_chunk=3), train=learner))
