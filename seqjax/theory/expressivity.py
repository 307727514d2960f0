"""What a recurrence can track: parities, sums modulo 3 and words of a group, learned or given.

    h_t = A(x_t) h_{t-1} + b(x_t)

Parity of words of any length, in finite precision, is beyond a stack of such layers where all
eigenvalues of all A(x) are real and >= 0, and counting modulo m > 2 where products of them have
real eigenvalues only (arXiv:2411.12537, theorems 1 and 2): on an input that stays, the state of the
first goes one way, and of the second at most to and fro. Words of S_3 need transitions that do not
commute, those of A_5 and S_5 are beyond any fixed stack of diagonal ones unless TC0 = NC1
(arXiv:2404.08819). Steps that are nonlinear in the state are under no such law.

What a class can is shown by weights that are given (`seqjax.theory.constructions`), what is learned
by accuracy at positions beyond those trained on, where a rule goes on and a table does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.common import predicted
from seqjax.core.ranges import Count, NotNegative, Seed
from seqjax.nn.base import Layer
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Task, make as make_task
from seqjax.theory.constructions import CONSTRUCTIONS, right
from seqjax.theory.finding import Finding, Layers, each
from seqjax.theory.jacobians import jacobians, numbers, step_of
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

Group = Literal["parity", "modular_addition", "S3", "A5", "S5"]
MIXED = (
    LayerConfig("lstm"),
    LayerConfig("min_gru"),
    LayerConfig("min_gru", {"eigenvalues": "[-1,1]"}),
    LayerConfig("gated_deltanet", {"heads": 2}),
    LayerConfig("deltaproduct", {"heads": 2}),
)
MOST = 1500  # numbers of a state whose Jacobians are taken whole
REAL = 1e-3  # an imaginary part below so much of the largest modulus is rounding


class Eigenvalues(NamedTuple):
    """Of the Jacobians of a step along a sequence."""

    lowest: float  # real part
    highest: float  # real part
    complex: bool  # whether some are
    modulus: float  # the largest

    def __str__(self) -> str:
        span = f"{self.lowest:.2f} .. {self.highest:.2f}"
        return f"{span}, complex" if self.complex else span

    @property
    def turns(self) -> bool:
        """Whether some are no real numbers >= 0, as parity takes of a linear recurrence."""
        return self.complex or self.lowest < -REAL * self.modulus


def eigenvalues(layer: Layer, x: Array) -> Eigenvalues:
    """Of d h_t / d h_{t-1} on the steps of x [T, features] after the first."""
    J, _ = jax.jit(partial(jacobians, layer))(x)
    found = np.linalg.eigvals(np.asarray(J, np.float64)).ravel()
    modulus = float(np.max(np.abs(found)))
    imaginary = float(np.max(np.abs(found.imag)))
    real = float(np.min(found.real)), float(np.max(found.real))
    return Eigenvalues(*real, imaginary > REAL * modulus, modulus)


def settling(layer: Layer, x: Array, steps: int) -> Array:
    """h_t - h_{t-1} [steps, N] on the input x [features], the same on all steps.

    Of h_t = A(x) h_{t-1} + b(x) it is A(x)^(t - 1) times the first one: with real eigenvalues in
    [0, 1) no number of the state turns after the first steps, and the answers to words of t and of
    t + 1 ones are as near as the state is.
    """
    step = step_of(layer)

    def body(h: Any, _: None) -> tuple[Any, Array]:
        new = step(h, x)
        return new, numbers(new)[0] - numbers(h)[0]

    return lax.scan(body, layer.start(), length=steps)[1]


def learn(
    layer: LayerConfig, task: TaskConfig, *, features: int, steps: int, rate: float, seed: int
) -> Model:
    """A model of one block after so many steps of the training loop."""
    from rich.console import Console  # and a loop that not every command waits for

    from seqjax.train.loop import train
    from seqjax.train.progress import Progress

    config = Config(
        replace(task, evaluation_batches=1),
        ModelConfig((layer,), features=features, depth=1),
        OptimiserConfig(learning_rate=rate, warmup=min(20, steps), weight_decay=0.01),
        TrainConfig(steps=steps, evaluate_every=steps, log_every=steps, seed=seed),
    )
    return train(config, progress=Progress(steps, Console(quiet=True))).model


def by_position(model: Model, task: Task, batch: int, length: int) -> Array:
    """The share of right answers [length] on each step of `batch` words that are held out."""
    words = next(iter(task.validation(batch, length, 1)))
    y = jax.jit(lambda model, x: model(x)[0])(model, jnp.asarray(words.x))
    return jnp.mean(predicted(y).astype(words.y.dtype) == words.y, axis=0)


def expressivity(
    layer: Layers = MIXED,
    *,
    groups: Sequence[Group] = ("parity", "modular_addition", "S3"),
    modulus: Count = 3,
    features: Count = 32,
    length: Count = 20,
    beyond: Count = 8,
    steps: Count = 500,
    batch: Count = 64,
    rate: NotNegative = 1e-2,
    scale: NotNegative = 1.0,
    given: bool = False,
    seed: Seed = 0,
) -> Finding:
    """What each of several layers learns to track, at the lengths it is trained on and beyond.

    Args:
        layer: layers, each the mixer of a model of one block, with their options
        groups: whose words are tracked
        modulus: of modular_addition
        features: of the models
        length: of the words that are trained on
        beyond: times that length are the words that are tested
        steps: of training
        batch: words of a step, and of the test
        rate: learning rate
        scale: standard deviation of the inputs whose eigenvalues are shown
        given: rows whose weights are given in place of layers that learn
        seed: of weights and words
    """
    if given:
        return constructed(length * beyond, seed)
    x = scale * jax.random.normal(jax.random.key(seed), (20, features))
    longest, rows, curves = length * beyond, [], {}
    for one, (label, made) in zip(layer, each(layer, features, seed), strict=True):
        size = len(numbers(made.start())[0])
        row = [label, str(eigenvalues(made, x)) if size <= MOST else f"of {size} numbers"]
        for group in groups:
            options = {"group": group, "modulus": modulus}
            task = TaskConfig("state_tracking", options, batch, length)
            model = learn(one, task, features=features, steps=steps, rate=rate, seed=seed)
            found = by_position(model, make_task("state_tracking", **options), batch, longest)
            row += [f"{float(jnp.mean(part)):.2f}" for part in (found[:length], found[-length:])]
            spans = np.array_split(np.arange(longest), min(longest, 4 * beyond))
            accuracy = [float(jnp.mean(found[span])) for span in spans]
            curves[f"{label}, {group}"] = [float(span.mean()) + 1 for span in spans], accuracy
        rows.append(tuple(row))
    ends = f"1-{length}", f"{longest - length + 1}-{longest}"
    columns = ("layer", "eigenvalues", *(f"{group} {end}" for group in groups for end in ends))
    title = f"accuracy by position, trained on words of {length}, {features} features"
    return Finding(title, columns, rows, "position", "accuracy", curves)


def constructed(longest: int, seed: int) -> Finding:
    """The share of right answers of every construction, to a random word of that length."""
    rows = []
    for name, make in CONSTRUCTIONS.items():
        one = make()
        found = right(one, jax.random.key(seed), longest)
        rows.append((name, one.title, f"{found:.4f}"))
    columns = ("weights given", "transition", f"right of {longest} steps")
    return Finding("tracked by weights that are given", columns, rows)
