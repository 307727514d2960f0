"""The compiled step: a model taken apart into arrays by name, one update, one evaluation."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from seqjax.core.common import accumulation_dtype, unknown
from seqjax.core.ranges import LARGEST
from seqjax.stacks.config import show_pattern
from seqjax.stacks.model import BATCH_AXES, Model
from seqjax.stacks.summary import Size
from seqjax.tasks import Batch, Task
from seqjax.train.average import Arrays, Mean, averaging
from seqjax.train.config import Config, GroupConfig, check_config, task_of
from seqjax.train.evaluation import Evaluation, make_evaluate
from seqjax.train.guard import Guard
from seqjax.train.imported import build
from seqjax.train.layout import ONE_DEVICE, Layout
from seqjax.train.learning import Streams
from seqjax.train.optimiser import (
    build as build_optimiser,
    decays,
    groups_of_papers,
    learning_rate,
    moved,
    orthogonal,
)

if TYPE_CHECKING:
    from seqjax.train.origin import Origin

Rebuild = Callable[[Arrays, Arrays], Model]


class TrainState(NamedTuple):
    """Everything a step changes, and everything a checkpoint holds."""

    step: jax.Array  # int32, steps taken
    params: Arrays  # trained, float32, by name
    frozen: Arrays  # drawn once, or not trained any more
    moments: optax.OptState
    key: jax.Array  # raw data of the key of dropout and noise
    carry: Any  # state of the recurrences, where batch n + 1 continues batch n; else None
    average: Mean | None = None  # of the parameters, where there is one
    learner: Any = None  # its state, where there is one that goes on as the carry does
    recent: jax.Array | None = None  # of the last steps, where spikes are looked for


def take_apart(
    model: Model, freeze: Sequence[str] = ()
) -> tuple[Arrays, Arrays, dict[str, bool], Rebuild]:
    """Trained and frozen arrays by name, which of them decay, and the way back to a model.

    A flat dict of arrays is what `jax.jit` passes on fastest, and what a checkpoint can name.
    freeze: patterns of names, as of files, of what is frozen too. Raises ValueError for one that
    is the name of nothing.
    """
    graph, *states = nnx.split(model, nnx.Param, ...)
    flat = [{".".join(map(str, path)): (path, variable) for path, variable in nnx.to_flat_state(s)}
            for s in states]  # fmt: skip
    for pattern in freeze:
        if not fnmatch.filter([*flat[0], *flat[1]], pattern):
            raise ValueError(unknown("parameter to freeze", pattern, flat[0]))
        flat[1] |= {name: flat[0].pop(name) for name in fnmatch.filter(flat[0], pattern)}
    if freeze and not flat[0]:
        raise ValueError(f"freeze must leave a parameter to train, got {' '.join(freeze)}")
    dtype = accumulation_dtype(model.compute)

    def array(variable):
        value = variable.get_value()
        to = dtype if jnp.issubdtype(value.dtype, jnp.floating) else value.dtype
        if isinstance(value, jax.ShapeDtypeStruct):  # the shape of a model
            return jax.ShapeDtypeStruct(value.shape, to)
        return value.astype(to)

    def rebuild(params: Arrays, frozen: Arrays) -> Model:
        pairs = [
            (path, variable.replace(values[name]))
            for part, values in zip(flat, (params, frozen), strict=True)
            for name, (path, variable) in part.items()
        ]
        return nnx.merge(graph, nnx.from_flat_state(pairs))

    params: Any
    frozen: Any
    params, frozen = ({name: array(v) for name, (_, v) in part.items()} for part in flat)
    return params, frozen, {name: decays(*found) for name, found in flat[0].items()}, rebuild


def make_update(
    config: Config,
    task: Task,
    rebuild: Rebuild,
    optimiser,
    *,
    complete: bool = False,
    streams: Streams | None = None,
    layout: Layout = ONE_DEVICE,
) -> Callable:
    """update(state, batch, share of the run) -> (state, metrics); the state given is used up.

    complete: whether the optimiser returns what is added to the parameters, its learning rate and
    schedule included, and not only the direction. streams: what a learner makes of a batch, in
    place of backpropagation through it.
    """
    average, guard = averaging(config.optimiser, complete), Guard.of(config.train)
    optimiser = optax.with_extra_args_support(optimiser)
    gradient: Any = _backpropagation(config, task, rebuild) if streams is None else streams.gradient

    def point_of(state: TrainState) -> Arrays:
        """Where the gradient is taken."""
        if average is None or state.average is None:
            return state.params
        return average.point(state.params, state.average)

    def descend(state: TrainState, batch: Batch, share: jax.Array, number: Any = 0):
        """One update of the parameters; what was scored, or answered, before it; measures of it."""
        grads, seen, state = gradient(state, point := point_of(state), batch)
        noise = jax.random.fold_in(jax.random.wrap_key_data(state.key), LARGEST)  # no step is it
        noise = jax.random.fold_in(jax.random.fold_in(noise, state.step), number)
        with jax.numpy_dtype_promotion("standard"):  # optax divides by counts
            beside = {"key": noise, "step": state.step}
            direction, moments = optimiser.update(grads, state.moments, point, **beside)
        others, rate = {"gradient_norm": optax.tree.norm(grads)}, None
        changes = direction
        if not complete:
            rate = learning_rate(config.optimiser, state.step, share)
            changes = jax.tree.map(lambda d: -rate * d, direction)
            others["learning_rate"] = rate
        params = moved(state.params, changes, orthogonal(rebuild(state.params, state.frozen)))
        new = state._replace(params=params, moments=moments)
        if average is not None and new.average is not None:
            new = new._replace(average=average.update(new.average, params, share, rate))
        return new, seen, others

    @partial(jax.jit, donate_argnums=0, compiler_options=compiler_options(layout.platform))
    def update(state: TrainState, batch: Batch, share: jax.Array):
        share, heard = layout.agreed(share)
        with layout.inside():
            state, metrics = whole(state, batch, share)
        return layout.put(state), {**metrics, **heard}

    def whole(state: TrainState, batch: Batch, share: jax.Array):
        before = state
        batch = jax.tree.map(jnp.asarray, batch)
        batch = task.collect(rebuild(point_of(state), state.frozen), batch)
        along = descend if streams is None else partial(streams.along, descend)

        def epoch(state: TrainState, number: jax.Array):
            state, scores, others = along(state, batch, share, number)
            return state, (scores, others)

        if task.epochs == 1:
            state, scores, others = along(state, batch, share)
        else:  # means over the epochs
            numbers = jnp.arange(task.epochs, dtype=jnp.int32)
            state, found = lax.scan(epoch, state, numbers)
            scores, others = jax.tree.map(partial(jnp.mean, axis=0), found)
        after = state._replace(step=state.step + 1)
        return guard(before, after, {**task.summary(scores), **others})

    return update


def _backpropagation(config: Config, task: Task, rebuild: Rebuild) -> Callable:
    """gradient(state, parameters, batch) -> (gradient, scores, state with its new carry)."""
    micro = config.optimiser.accumulate

    def objective(params, frozen, total, batch, carry, key):
        """A micro-batch's part of the mean over all targets of the batch."""
        model = rebuild(params, frozen)
        answer, carry, own = model.with_losses(batch.x, carry, **batch.beside, key=key)
        part = jnp.sum(batch.mask) / total
        scores = {name: value * part for name, value in task.score(answer, batch).items()}
        own = {name: jnp.mean(value) / micro for name, value in own.items()}
        loss = sum(own.values(), scores["loss"])
        return loss, (scores | own, carry if task.carries_state else None)

    def gradient(state: TrainState, point: Arrays, batch: Batch):
        key = None
        if rebuild(point, state.frozen).noisy:
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        total = jnp.sum(batch.mask)
        total = jnp.where(total > 0, total, 1)

        def of(*part):
            return jax.grad(objective, has_aux=True)(point, state.frozen, total, *part)

        def add(grads, part):
            new, scores = of(*part)
            return jax.tree.map(jnp.add, grads, new), scores

        if micro == 1:
            grads, (scores, carry) = of(batch, state.carry, key)
            return grads, scores, state._replace(carry=carry)
        carry = state.carry and jax.tree.map(partial(_cut, micro), BATCH_AXES, state.carry)
        keys = None if key is None else jax.random.split(key, micro)
        parts = _cut(micro, 0, batch), carry, keys
        grads, (scores, carry) = lax.scan(add, jax.tree.map(jnp.zeros_like, point), parts)
        scores = {name: jnp.sum(value) for name, value in scores.items()}
        carry = carry and jax.tree.map(_join, BATCH_AXES, carry)
        return grads, scores, state._replace(carry=carry)

    return gradient


class Programs(NamedTuple):
    """What a config becomes before there is an array."""

    size: Size
    groups: tuple[GroupConfig, ...]  # of the papers of the layers, with `optimiser.paper`
    task: Task
    start: Callable[[Arrays, Arrays], TrainState]  # of parameters and frozen arrays
    layout: Layout  # where all of it lies
    update: Callable
    traced: Any  # the update at its shapes, where they lie: what is lowered next
    evaluate: Evaluation
    rebuild: Rebuild  # a model of parameters and frozen arrays


def prepare(
    config: Config,
    origin: Origin | None = None,
    *,
    task: Task | None = None,
    optimiser: optax.GradientTransformation | None = None,
    devices: Sequence[Any] | None = None,
) -> Programs:
    """The programs of a run, traced at their shapes: what cannot run is one error here.

    origin: of its first numbers. task, optimiser: in place of those of the config. devices: in
    place of those of this machine, where a run elsewhere is planned.
    Nothing is computed but the first batches, and nothing is written. Raises ValueError naming the
    field, the layer or the task, or how much memory is missing.
    """
    check_config(config, task)
    c, pattern = config.task, " ".join(show_pattern(config.model.layer))
    named = f"model.layer {pattern}" if origin is None else f"the model of {origin.path}"
    longest, width = max(c.length, c.evaluation_length or 0), config.model.features
    steps = f"task.{'length' if longest == c.length else 'evaluation_length'}={longest}"
    sizes = f"task.batch={c.batch}, {steps} and model.features={width}"
    check_memory = _check_memory if devices is None else lambda least, what: None
    check_memory(4 * c.batch * longest * width, sizes)
    task, layout = task_of(config, task), Layout.of(config, devices)
    described = None if origin is None else origin.description
    if origin is not None:
        origin.answers(task.spec)
    batch = next(task.batches(config.train.seed, c.batch, c.length))
    with _named(named):
        model = nnx.eval_shape(lambda: build(config.model, task.spec, described, rngs=nnx.Rngs(0)))
    params, frozen, decayed, rebuild = take_apart(model, config.train.freeze)
    count = sum(leaf.size for leaf in params.values())
    sizes = f"{named}, model.depth={config.model.depth}, model.features={width}"
    check_memory(16 * count, f"{count} parameters of {sizes}")
    complete = optimiser is not None
    if config.optimiser.average is not None and (turned := orthogonal(model) & params.keys()):
        raise ValueError(
            "optimiser.average must be none: the mean of orthogonal matrices, "
            f"{' '.join(sorted(turned))}, is not orthogonal"
        )
    groups = ()
    if config.optimiser.paper and not complete:
        groups = groups_of_papers(model, decayed)
    optimiser = optimiser or build_optimiser(config.optimiser, decayed, groups)
    streams = None
    if config.train.learner is not None:
        with _named(f"learner {config.train.learner.name}"):
            streams = Streams.of(config, task, model, rebuild, params, frozen, batch)
            kept = jax.eval_shape(streams.learner.init, params, jax.random.key(0))
            least = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
            check_memory(least, f"the state of task.batch={c.batch} streams")
    update = make_update(
        config, task, rebuild, optimiser, complete=complete, streams=streams, layout=layout
    )
    evaluate = make_evaluate(config, task, rebuild, layout=layout)
    start = partial(start_state, config, task, rebuild, optimiser, streams)
    with _named(f"{named}, task.batch={c.batch}, task.length={c.length}"):
        state = jax.eval_shape(start, params, frozen)
        traced = update.trace(*layout.shapes(state, batch), np.float32(0))
    size = Size.of(model, traced.jaxpr.jaxpr, c.batch * c.length, trained=count)
    lengths = f"task.evaluation_length={c.evaluation_length or c.length}"
    with _named(f"task.evaluation_batches={c.evaluation_batches}, {lengths}"):
        held_out = next(evaluate.batches())
    with _named(f"{named}, {lengths}"):
        known = evaluate.trace(params, frozen, held_out)
    if config.train.best_by not in known:
        raise ValueError(unknown("metric train.best_by", config.train.best_by, known))
    return Programs(size, groups, task, start, layout, update, traced, evaluate, rebuild)


def start_state(
    config: Config,
    task: Task,
    rebuild: Rebuild,
    optimiser,
    streams: Streams | None,
    params: Arrays,
    frozen: Arrays,
) -> TrainState:
    """The state before the first step."""
    key = jax.random.key_data(jax.random.split(jax.random.key(config.train.seed))[1])
    average = averaging(config.optimiser)
    mean = None if average is None else average.init(params)
    state = TrainState(jnp.int32(0), params, frozen, optimiser.init(params), key, None, mean)
    state = state._replace(recent=Guard.of(config.train).start())
    if not task.carries_state:
        return state
    if streams is not None:
        return streams.begin(state)
    return state._replace(carry=rebuild(params, frozen).start(config.task.batch))


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever impossible options break in here is one line that names them."""
    try:
        yield
    except Exception as error:
        line = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{what}: {line}") from error


def _check_memory(least: int, what: str) -> None:
    device = jax.local_devices()[0].memory_stats() or {}
    memory = device.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if least > memory:
        raise ValueError(
            f"{what} take {least / 2**30:.3g} GiB at least, and there are {memory / 2**30:.3g} GiB"
        )


def compiler_options(platform: str) -> dict[str, Any] | None:
    """What makes a training step faster on these devices.

    On CPU, XLA's default order of operations runs many at a time, which on few cores takes
    the cache from each other: a step took 15 to 30 % longer (2 cores, jax 0.10.2).
    """
    if platform != "cpu":
        return None
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False}


def _cut(parts: int, axis: int, tree: Any) -> Any:
    """The batch axis of every leaf cut into `parts`, which come first."""

    def leaf(v):
        v = v.reshape(*v.shape[:axis], parts, v.shape[axis] // parts, *v.shape[axis + 1 :])
        return jnp.moveaxis(v, axis, 0)

    return jax.tree.map(leaf, tree)


def _join(axis: int, tree: Any) -> Any:
    """What `_cut` cut."""

    def leaf(v):
        v = jnp.moveaxis(v, 0, axis)
        return v.reshape(*v.shape[:axis], -1, *v.shape[axis + 2 :])

    return jax.tree.map(leaf, tree)
