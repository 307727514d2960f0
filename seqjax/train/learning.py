"""Training by a learner of `seqjax.learn`, in place of backpropagation through the batch.

    seqjax train parity --learner rtrl_sparse --window 1

Each row of a batch is a stream, along which the cell of the model goes one step after the other.
After each window of steps the parameters are updated with what the learner makes of the mean loss
of the targets in it, those of all streams. A window of the whole batch is one update, with "bptt"
the ordinary one. The scores are those of predictions made before the update. Where batch n + 1
continues batch n (`Task.carries_state`) the learner goes on too; else it begins anew with each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqjax.answers import Paired
from seqjax.core.common import unknown
from seqjax.learn import LEARNERS
from seqjax.learn.cell import behind, of_model
from seqjax.learn.learner import Learner, batched
from seqjax.tasks import Batch, Task
from seqjax.train.average import Arrays
from seqjax.train.config import Config, check_choice

if TYPE_CHECKING:
    from seqjax.train.step import Rebuild, TrainState

OBJECTS = ("own", "feedback", "absent")  # options of learners that are arrays or functions


class Streams(NamedTuple):
    """The learner of all rows of a batch, and what it trains."""

    learner: Learner
    frozen: dict[str, Arrays]  # "now": what the cell reads beside its parameters
    windows: int  # of a batch
    size: int  # rows
    task: Task
    rebuild: Rebuild

    @staticmethod
    def of(
        config: Config,
        task: Task,
        model: Any,
        rebuild: Rebuild,
        params: Any,
        frozen: Any,
        batch: Any,
    ) -> Streams:
        """For a model of these shapes and batches like this one.

        Raises ValueError for what no learner, or not this one, can train.
        """
        chosen, outputs = config.train.learner, task.spec.outputs
        assert chosen is not None
        window = config.train.window or config.task.length
        refused = {
            "it goes one step after the other, and a layer of the model reads the future":
                not model.causal,
            "it goes along one stream, and the task gives pairs of sequences":
                isinstance(batch.x, Paired),
            "it takes no noise: model.dropout must be 0, and layers draw none": model.noisy,
            "it takes the task's loss alone: model.ar and model.tar must be 0, layers have none":
                model.own_loss,
            "it needs a target for each answer, and the steps of this task share one":
                not outputs.aligned,
            "window must be left out, for a task with one target at the end of its steps":
                not outputs.per_step and window < config.task.length,
        }  # fmt: skip
        for reason, holds in refused.items():
            if holds:
                raise ValueError(reason)
        kept: dict[str, Arrays] = {"now": _drawn(frozen)}
        xs, entry = _examples(task, batch), LEARNERS[chosen.name]
        model_of = lambda params: rebuild(params, kept["now"])  # noqa: E731
        forward = entry.family == "forward"
        cell = behind(model_of, xs) if forward else of_model(model_of)

        def loss(y_hat, target):
            one = (None, None) if outputs.per_step else (None,)  # axes of a batch of one
            scored = outputs.score(*(v[one] for v in (y_hat, *target)))["loss"]
            return scored * target[1].astype(scored.dtype)

        learner = entry.make(cell, loss, _zeros(params), xs, **chosen.options)
        size = config.task.batch
        return Streams(
            batched(learner, size), kept, config.task.length // window, size, task, rebuild
        )

    def begin(self, state: TrainState) -> TrainState:
        """With the states in which streams begin, of the learner and of the model."""
        self.frozen["now"] = state.frozen
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        learner = jax.tree.map(jnp.copy, self.learner.init(state.params, key))
        carry = self.rebuild(state.params, state.frozen).start(self.size)
        return state._replace(learner=learner, carry=carry)

    def gradient(self, state: TrainState, point: Arrays, batch: Batch):
        """(gradient, answers, state) of a window."""
        self.frozen["now"] = state.frozen
        total = jnp.sum(batch.mask)
        xs = batch.x, {**batch.beside, "mask": _present(batch)}
        _, grads, learner = self.learner.grad(point, state.learner, xs, self._targets(batch))
        part = self.size / jnp.where(total > 0, total, 1)  # of a mean over the streams
        grads = jax.tree.map(lambda g: g * part.astype(g.dtype), grads)
        answer, carry = self.rebuild(point, state.frozen)(batch.x, state.carry, **batch.beside)
        return grads, answer, state._replace(learner=learner, carry=carry)

    def along(
        self, descend: Callable, state: TrainState, batch: Batch, share: jax.Array, epoch: Any = 0
    ):
        """(state, scores, others) of a batch: descend(state, window, share, number) along it.

        epoch: how often it went along this batch before. The scores are those of the whole batch,
        others means over the windows.
        """
        if not self.task.carries_state:
            state = self.begin(state)
        if self.windows == 1:
            state, answer, others = descend(state, batch, share, epoch)
        else:
            numbers = jnp.arange(self.windows, dtype=jnp.int32) + epoch * self.windows

            def body(state, now):
                state, answer, others = descend(state, now[0], share, now[1])
                return state, (answer, others)

            state, (answers, others) = lax.scan(body, state, (self._cut(batch), numbers))
            answer = jnp.moveaxis(answers, 0, 1).reshape(self.size, -1, *answers.shape[3:])
            others = {name: jnp.mean(value) for name, value in others.items()}
        if not self.task.carries_state:
            state = state._replace(learner=None, carry=None)
        return state, self.task.score(answer, batch), others

    def _cut(self, batch: Batch) -> Batch:
        """Windows [windows, B, steps, ...]."""

        def leaf(v):
            return jnp.moveaxis(v.reshape(len(v), self.windows, -1, *v.shape[2:]), 1, 0)

        return jax.tree.map(leaf, batch)

    def _targets(self, batch: Batch) -> tuple[Any, jax.Array]:
        """Targets and weights of every step; what is answered once is answered at the end."""
        y, weight = batch.y, batch.mask
        if self.task.spec.outputs.per_step:
            return y, weight
        steps = batch.x.shape[1]
        last = jnp.arange(steps, dtype=jnp.int32) == steps - 1
        y = jnp.broadcast_to(y[:, None], (len(y), steps, *y.shape[1:]))
        return y, jnp.where(last[None], weight[:, None], 0)


def check_learner(config: Config) -> None:
    """Raise ValueError for a learner, or a window, that cannot be what it is in `config`."""
    chosen, window = config.train.learner, config.train.window
    if chosen is None:
        if window is not None:
            raise ValueError("window goes with learner: backpropagation takes the whole batch")
        return
    table = {name: entry.make for name, entry in LEARNERS.items() if not entry.apart}
    if chosen.name not in LEARNERS:
        raise ValueError(unknown("learner", chosen.name, table))
    if reason := LEARNERS[chosen.name].apart:
        raise ValueError(f"learner {chosen.name} is not for train: {reason}")
    check_choice("learner", table, chosen, ("cell", "loss", "params", "xs", *OBJECTS))
    if config.task.length % (window or 1):
        raise ValueError(f"window must divide task.length={config.task.length}, got {window}")
    if config.model.loss_chunk is not None:
        raise ValueError("model.loss_chunk must be None: a learner goes step by step")
    if config.optimiser.accumulate > 1:
        raise ValueError(
            "optimiser.accumulate must be 1, for a learner takes no micro-batches, "
            f"got {config.optimiser.accumulate}"
        )


def _examples(task: Task, batch: Batch) -> Any:
    """Inputs among which is every token; nothing is reset, and nothing left out."""
    x = jnp.asarray(batch.x[0])
    if (vocabulary := getattr(task.spec.inputs, "vocabulary", None)) is not None:
        x = jnp.arange(vocabulary, dtype=x.dtype)
    plain = {"resets": jnp.zeros(len(x), bool), "mask": jnp.ones(len(x), bool),
             "dt": jnp.ones(len(x), jnp.float32)}  # fmt: skip
    return x, {name: plain[name] for name in (*batch.beside, "mask")}


def _present(batch: Batch) -> jax.Array:
    steps = jax.tree.leaves(batch.x)[0].shape[:2]
    return jnp.ones(steps, bool) if batch.present is None else batch.present


def _zeros(arrays: Any) -> Arrays:
    return {name: jnp.zeros(a.shape, a.dtype) for name, a in arrays.items()}


def _drawn(arrays: Any) -> Arrays:
    """Frozen arrays that are nowhere zero: which parameter reaches which unit may lie in them."""
    key = jax.random.key(0)

    def one(a):
        moves = jnp.issubdtype(a.dtype, jnp.inexact)
        return jax.random.normal(key, a.shape, a.dtype) if moves else jnp.zeros(a.shape, a.dtype)

    return {name: one(a) for name, a in arrays.items()}
