"""The compiled step: a model taken apart into arrays by name, one update, one evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from seqjax.common import accumulation_dtype
from seqjax.config import Config
from seqjax.models import BATCH_AXES, Model
from seqjax.optimiser import decays, learning_rate
from seqjax.tasks import Batch, Task

Arrays = dict[str, jax.Array]
Rebuild = Callable[[Arrays, Arrays], Model]


class TrainState(NamedTuple):
    """Everything a step changes, and everything a checkpoint holds."""

    step: jax.Array  # int32, steps taken
    params: Arrays  # trained, float32, by name
    frozen: Arrays  # drawn once
    moments: optax.OptState
    key: jax.Array  # raw data of the dropout key
    carry: Any  # state of the recurrences, where batch n + 1 continues batch n; else None


def take_apart(model: Model) -> tuple[Arrays, Arrays, dict[str, bool], Rebuild]:
    """Trained and frozen arrays by name, which of them decay, and the way back to a model.

    A flat dict of arrays is what `jax.jit` passes on fastest, and what a checkpoint can name.
    """
    graph, *states = nnx.split(model, nnx.Param, ...)
    flat = [{".".join(map(str, path)): (path, variable) for path, variable in nnx.to_flat_state(s)}
            for s in states]  # fmt: skip
    dtype = accumulation_dtype(model.compute)

    def array(variable):
        value = variable.get_value()
        return value.astype(dtype) if jnp.issubdtype(value.dtype, jnp.floating) else value

    def rebuild(params: Arrays, frozen: Arrays) -> Model:
        pairs = [
            (path, variable.replace(values[name]))
            for part, values in zip(flat, (params, frozen), strict=True)
            for name, (path, variable) in part.items()
        ]
        return nnx.merge(graph, nnx.from_flat_state(pairs))

    params, frozen = ({name: array(v) for name, (_, v) in part.items()} for part in flat)
    return params, frozen, {name: decays(*told) for name, told in flat[0].items()}, rebuild


def make_update(config: Config, task: Task, rebuild: Rebuild, optimiser) -> Callable:
    """update(state, batch, share of the run) -> (state, metrics); the state given is used up."""
    micro = config.optimiser.accumulate
    if config.task.batch % micro:
        raise ValueError(f"accumulate={micro} does not divide the batch of {config.task.batch}")

    def objective(params, frozen, total, batch, carry, key):
        """A micro-batch's part of the mean over all targets of the batch."""
        answer, carry = rebuild(params, frozen)(batch.x, carry, resets=batch.resets, key=key)
        part = jnp.sum(batch.mask) / total
        metrics = {name: value * part for name, value in task.score(answer, batch).items()}
        return metrics["loss"], (metrics, carry if task.carries_state else None)

    @partial(jax.jit, donate_argnums=0, compiler_options=compiler_options())
    def update(state: TrainState, batch: Batch, share: jax.Array):
        batch = jax.tree.map(jnp.asarray, batch)
        key = None
        if config.model.dropout:
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        total = jnp.sum(batch.mask)
        total = jnp.where(total > 0, total, 1)

        def gradient(*part):
            return jax.grad(objective, has_aux=True)(state.params, state.frozen, total, *part)

        def add(grads, part):
            new, told = gradient(*part)
            return jax.tree.map(jnp.add, grads, new), told

        if micro == 1:
            grads, (metrics, carry) = gradient(batch, state.carry, key)
        else:
            carry = state.carry and jax.tree.map(partial(_cut, micro), BATCH_AXES, state.carry)
            keys = None if key is None else jax.random.split(key, micro)
            parts = _cut(micro, 0, batch), carry, keys
            zeros = jax.tree.map(jnp.zeros_like, state.params)
            grads, (metrics, carry) = lax.scan(add, zeros, parts)
            metrics = {name: jnp.sum(value) for name, value in metrics.items()}
            carry = carry and jax.tree.map(_join, BATCH_AXES, carry)

        with jax.numpy_dtype_promotion("standard"):  # optax divides by counts
            direction, moments = optimiser.update(grads, state.moments, state.params)
        rate = learning_rate(config.optimiser, state.step, share)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
        metrics |= {"gradient_norm": optax.tree.norm(grads), "learning_rate": rate}
        new = state._replace(step=state.step + 1, params=params, moments=moments, carry=carry)
        return new, metrics

    return update


def make_evaluate(config: Config, task: Task, rebuild: Rebuild) -> Callable:
    """evaluate(params, frozen, stop=None) -> mean metrics of the validation batches.

    stop: where its `asked` is set the evaluation is left, with nothing.
    """
    c = config.task

    @jax.jit
    def start(params, frozen):
        return rebuild(params, frozen).start(c.batch)

    @jax.jit
    def measure(params, frozen, batch, carry):
        answer, carry = rebuild(params, frozen)(batch.x, carry, resets=batch.resets)
        return task.score(answer, batch), jnp.sum(batch.mask), carry

    def evaluate(params: Arrays, frozen: Arrays, stop: Any = None) -> dict[str, float]:
        carry = first = start(params, frozen)
        sums, total = Counter(), 0.0
        length = c.evaluation_length or c.length
        for batch in task.validation(c.batch, length, c.evaluation_batches):
            if stop is not None and stop.asked:
                return {}
            metrics, weight, after = measure(params, frozen, batch, carry)
            carry = after if task.validation_carries_state else first
            total += float(weight)
            sums.update({name: float(v) * float(weight) for name, v in metrics.items()})
        return {name: value / max(total, 1) for name, value in sums.items()}

    return evaluate


def compiler_options() -> dict[str, Any] | None:
    """What makes a training step faster on this device.

    On CPU, XLA's default order of operations runs many at a time, which on few cores takes
    the cache from each other: a step took 15 to 30 % longer (2 cores, jax 0.10.2).
    """
    if jax.default_backend() != "cpu":
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
