"""Every kind of input, and of answer, in a model: embedding, training, generation."""

from dataclasses import dataclass, replace
from math import log, prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.answers import (
    Answer,
    Bernoullis,
    Classes,
    Features,
    Labels,
    Mixture,
    NegativeBinomial,
    Poisson,
    Quantiles,
    Spans,
    Strokes,
    Tokens,
    Values,
    Vector,
)
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import TASKS, Batch, Entry, Spec
from seqjax.tasks.task import Task
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.generate import generate
from seqjax.train.loop import train

B, T, F = 3, 6, 4
CONFIG = ModelConfig(layer=(LayerConfig("elman"),), features=F, depth=1, mlp="none")


def model(inputs, outputs=None, **config):
    spec = Spec(inputs, outputs or Classes(2, per_step=True))
    return Model(replace(CONFIG, **config), spec, rngs=nnx.Rngs(0))


def draw(kind, *lead, seed=0):
    """Values of a kind of input."""
    rng = np.random.default_rng(seed)
    shape = (*lead[: len(kind.axes)], *kind.shape)
    if kind.dtype == np.int32:
        return rng.integers(0, 3, shape).astype(np.int32)
    return rng.normal(size=shape).astype(kind.dtype)


# --- inputs


def test_frames_are_embedded_as_their_numbers_in_a_row():
    frames, row = model(Features(2, 3)), model(Features(6))
    assert frames.embed.kernel.shape == (6, F)
    x = draw(Features(2, 3), B, T)
    np.testing.assert_array_equal(frames(x)[0], row(x.reshape(B, T, 6))[0])


def test_a_vector_is_seen_at_every_step_or_at_the_first():
    x = draw(Vector(2, T), B)
    every, first = model(Vector(2, T)), model(Vector(2, T, first_only=True))
    one = every.embed.kernel[...].T @ x[0] + every.embed.bias[...]
    np.testing.assert_allclose(every.embed(x)[0], np.tile(one, (T, 1)), rtol=1e-6)
    np.testing.assert_allclose(first.embed(x)[0, 0], one, rtol=1e-6)
    assert not first.embed(x)[:, 1:].any()
    mask = np.arange(T)[None] < np.array([[T], [2], [0]])
    answers, _ = every(x, mask=mask)
    assert answers.shape == (B, T, 2) and ((np.abs(answers) > 0).all(axis=2) == mask).all()


@dataclass(frozen=True, init=False)
class Images(Features):
    """With a front end of its own."""

    def embedding(self, features, *, rngs):
        return nnx.Sequential(nnx.Conv(1, 2, (3, 3), rngs=rngs), _join, nnx.Linear(
            2 * prod(self.shape), features, rngs=rngs))  # fmt: skip


def _join(x):
    return x.reshape(*x.shape[:2], -1)


def test_a_front_end_is_a_subclass():
    x = draw(Images(5, 4, 1), B, T)
    y, h = model(Images(5, 4, 1))(x)
    parts = model(Images(5, 4, 1))(x[:, 4:], model(Images(5, 4, 1))(x[:, :4])[1])[0]
    np.testing.assert_allclose(parts, y[:, 4:], atol=1e-5)


@pytest.mark.parametrize("inputs, x, message", [
    (Tokens(3), np.zeros((B, T)), r"tokens, integers \[B, T\], got float64 \[3, 6\]"),
    (Features(2, 3), np.zeros((B, T, 6)), r"floats \[B, T, 2, 3\], got float64 \[3, 6, 6\]"),
    (Features(2), np.zeros((2,)), r"floats \[B, T, 2\], got float64 \[2\]"),
    (Vector(2, T), np.zeros((B, T, 2)), r"per sequence, floats \[B, 2\], got float64 \[3, 6, 2\]"),
])  # fmt: skip
def test_wrong_arrays_are_refused(inputs, x, message):
    with pytest.raises(ValueError, match=message):
        inputs.check(x)


def test_wrong_kinds_are_refused():
    with pytest.raises(ValueError, match="Tokens.vocabulary must be a whole number"):
        Tokens(0)
    with pytest.raises(ValueError, match="Features.shape must be a tuple"):
        Features(2, 0)


def test_time_stamps_are_refused_and_not_ignored():
    x = draw(Tokens(3), B, T)
    with pytest.raises(ValueError, match="the model takes no dt"):
        model(Tokens(3))(x, dt=np.ones((B, T), np.float32))
    with pytest.raises(ValueError, match="the model takes no dt"):
        Model(CONFIG, Spec(Tokens(3), Classes(2, per_step=True), timed=True), rngs=nnx.Rngs(0))


# --- training


@dataclass(frozen=True)
class Laplace(Answer):
    """A kind of this file only: p(y) = exp(-|y - y_hat|) / 2."""

    per_step: bool
    size = 1
    shape = (1,)

    def loss(self, y_hat, y):
        return jnp.abs(y_hat - y)[..., 0] + log(2)

    def predict(self, y_hat):
        return y_hat

    def sample(self, key, y_hat):
        return y_hat + jax.random.laplace(key, (1,), y_hat.dtype)


SPECS = {
    "classes": Spec(Features(2, 3), Classes(3, per_step=False)),
    "values": Spec(Vector(2, T), Values(2, per_step=True)),
    "bernoullis": Spec(Features(5), Bernoullis(5, per_step=True)),
    "mixture": Spec(Vector(2, T, first_only=True), Mixture(2, per_step=True)),
    "strokes": Spec(Features(3), Strokes(2, per_step=True)),
    "poisson": Spec(Tokens(3), Poisson(2, per_step=True)),
    "negative_binomial": Spec(Tokens(3), NegativeBinomial(2, per_step=False)),
    "quantiles": Spec(Features(1), Quantiles((0.1, 0.5, 0.9), per_step=True)),
    "labels": Spec(Features(2), Labels(2)),
    "spans": Spec(Tokens(3), Spans()),
    "its own": Spec(Images(4, 4, 1), Laplace(per_step=True)),
}


def one_batch(spec):
    """A task whose batches are all the same; the last step of some is padding."""
    inputs, outputs = spec.inputs, spec.outputs
    lead = (B, T) if outputs.per_step and outputs.aligned else (B,)
    shape = tuple(2 if n is None else n for n in outputs.shape)
    y = np.random.default_rng(1).integers(0, 2, (*lead, *shape)).astype(outputs.dtype)
    present = np.arange(T)[None] < np.array([[T], [T - 1], [T]])
    mask = present if len(lead) == 2 else np.ones(B)
    batch = Batch(draw(inputs, B, T), y, np.float32(mask), None, present)
    return Task("one_batch", spec, lambda key, batch_size, length: batch, lambda length: {})


@pytest.mark.share(1)
@pytest.mark.parametrize("name", SPECS)
def test_every_kind_trains_end_to_end(monkeypatch, name):
    task = one_batch(SPECS[name])
    monkeypatch.setitem(TASKS, "one_batch", Entry(lambda: task, "", "", T))
    config = Config(
        TaskConfig("one_batch", batch=B, length=T, evaluation_batches=1), CONFIG,
        OptimiserConfig(learning_rate=0.02, warmup=0, accumulate=3), TrainConfig(steps=2),
    )  # fmt: skip
    result = train(config)
    batch = task.sample(jax.random.key(0), B, T)
    before, after = (
        task.summary(task.score(m(batch.x, mask=batch.present)[0], batch))
        for m in (Model(CONFIG, task.spec, rngs=nnx.Rngs(_key(config))), result.model)
    )
    assert set(result.metrics) == set(after)
    for metric, value in result.metrics.items():
        np.testing.assert_allclose(value, after[metric], 1e-4, err_msg=metric)
    assert after["loss"] < before["loss"]


def _key(config):
    return jax.random.split(jax.random.key(config.train.seed))[0]


def test_a_batch_with_time_stamps_is_refused_before_any_work(monkeypatch):
    task = one_batch(SPECS["strokes"])
    timed = replace(
        task, sample=lambda *a: task.sample(*a)._replace(dt=np.ones((B, T), np.float32))
    )
    monkeypatch.setitem(TASKS, "one_batch", Entry(lambda: timed, "", "", T))
    with pytest.raises(ValueError, match="the model takes no dt"):
        train(Config(TaskConfig("one_batch", batch=B, length=T, evaluation_batches=1), CONFIG))


# --- generation


@pytest.mark.share(1)
@pytest.mark.parametrize("outputs", [Strokes(2, True), Bernoullis(3, True), Poisson(3, True)],
                         ids=["strokes", "bernoullis", "poisson"])  # fmt: skip
def test_whatever_answers_its_next_input_generates(outputs):
    writer = model(Features(3), outputs)
    writer.head.kernel.set_value(30 * writer.head.kernel[...])
    prompts = [draw(Features(3), 1, n, seed=n)[0] for n in (4, 2)]
    greedy = generate(writer, prompts, 3, temperature=0)
    assert greedy.shape == (2, 3, 3)
    for prompt, steps in zip(prompts, greedy):  # of full passes
        for step in steps:
            answer = writer(prompt[None])[0][0, -1]
            np.testing.assert_allclose(step, outputs.predict(answer), rtol=1e-4, atol=1e-5)
            prompt = np.concatenate([prompt, step[None]])
    draws = generate(writer, prompts, 50, key=jax.random.key(0))
    assert draws.shape == (2, 50, 3) and len(np.unique(draws[:, :, 0])) > 1
    whole = draws[..., 2:] if outputs == Strokes(2, True) else draws
    assert (whole == np.round(whole)).all()


def test_generation_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="Poisson is sampled without temperature, got 0.5"):
        generate(model(Features(1), Poisson(1, True)), [np.ones((2, 1))], 1,
                 key=jax.random.key(0), temperature=0.5)  # fmt: skip
    with pytest.raises(ValueError, match=r"a prompt is features \[T, 3\], T > 0, got \[2, 1\]"):
        generate(model(Features(3), Strokes(1, True)), [np.ones((2, 1))], 1, temperature=0)
    for inputs, outputs in [(Features(2), Strokes(1, True)), (Tokens(3), Classes(2, True)),
                            (Tokens(2), Classes(2, False)), (Features(2), Labels(2))]:  # fmt: skip
        with pytest.raises(ValueError, match="only a model whose answers are its next inputs"):
            generate(model(inputs, outputs), [[0]], 1, temperature=0)
