"""The one model: embedding, a stream of residual blocks around any layer, head.

    x   = embed(x)                                               [B, T, features]
    x  += dropout(mixer(norm(x)))                                depth times, the layers a pattern
    x  += dropout(mlp(norm(x)))                                  GLU: arXiv:2002.05202
    y   = W norm(x)                                              what the answer is read from

A layer that is a block already, with norms and residuals of its own (`Layer.block`), stands in
place of both lines as x = block(x). Models that are imported (`seqjax.hf`) have the same parts with
other scales and norms: `seqjax.stacks.blocks` has the formula.

What goes in and out is the task's `Spec` (`seqjax.answers`), so one class is the language model and
the per-step tagger (classes per step), the sequence classifier (classes, pooled over time) and the
regressor (values). The pattern of blocks is repeated by one `lax.scan` over stacked parameters, so
that compile time does not grow with depth. Like a layer, a model is called

    y, h = model(x, h, resets=..., mask=..., key=...)

with the state returned being the state accepted; `key` turns dropout on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.common import Notice, accumulation_dtype, unknown
from seqjax.core.flow import Flow
from seqjax.core.ranges import check
from seqjax.nn.base import Layer, cast_parameters, reads_time
from seqjax.nn.norms import Norm
from seqjax.stacks.blocks import Block, Head, norm
from seqjax.stacks.config import ModelConfig
from seqjax.tasks.task import Spec


class ModelState(NamedTuple):
    """The state of a model: a pytree, batch axis B after the axis of repetitions."""

    blocks: Any  # tuple: per layer of the pattern, leaves [repetitions, B, ...]
    tail: Any  # tuple: per block after the last whole pattern, leaves [B, ...]
    pooled: Any  # (sum or last [B, features], count [B]) of a sequence model, else None


BATCH_AXES = ModelState(1, 0, 0)
UNTIMED = "the model takes no dt: none of its layers reads the time between steps"


class Model(nnx.Module):
    """The model of `config` for inputs and outputs `spec`.

    >>> model = Model(ModelConfig(features=32), task.spec, rngs=nnx.Rngs(0))
    >>> y, h = model(batch.x)                     # y [B, T, classes], h the state after it
    """

    def __init__(self, config: ModelConfig, spec: Spec, *, rngs: nnx.Rngs):
        check(config, ModelConfig, "model")
        if config.parameters is not None:
            raise ValueError(
                f"model.parameters must be None, got {config.parameters}: "
                "seqjax.stacks.summary.fitted finds the features for it"
            )
        pattern, features, depth = config.layer, config.features, config.depth
        if not pattern or depth < len(pattern):
            raise ValueError(f"depth must be at least the pattern's {len(pattern)}, got {depth}")
        spec = spec.widened(config.vocabulary)
        embed = spec.inputs.embedding(features, rngs=rngs)

        def blocks(layers):
            return [Block.of(layer, config, rngs=rngs) for layer in layers]

        repetitions, rest = divmod(depth, len(pattern))
        repeated = [blocks(pattern) for _ in range(repetitions)]
        layers = [block.layer for block in repeated[0]]
        check_evaluator(config.evaluator, layers, [layer.name for layer in pattern])
        self._put(
            config, spec, embed=embed, repeated=repeated, tail=blocks(pattern[:rest]),
            norm=norm(config), head=Head(features, spec.outputs.size, rngs=rngs),
            features=features,
        )  # fmt: skip

    def _put(
        self,
        config: ModelConfig,
        spec: Spec,
        *,
        embed: Any,
        repeated: Sequence[list[Block]] = (),
        tail: list[Block],
        norm: Norm,
        head: Head,
        features: int,
        shared: Sequence[nnx.Module] = (),
        context: int | None = None,
    ) -> None:
        """Make the model of these parts; of the config only how it runs is looked at.

        repeated: the blocks of every repetition of a pattern, the same each time; tail: those that
        come after them. shared: modules that several blocks are called with. context: how many
        steps at once its attention can see.
        """
        self.features, self.remat, self.unroll = features, config.remat, config.unroll
        self.pool, self.context = config.pool, context
        self.compute = jnp.dtype(config.compute)
        self.inputs, self.outputs = spec.inputs, spec.outputs
        self.embed, self.norm, self.head = embed, norm, head
        self.blocks = _stack([nnx.List(blocks) for blocks in repeated])
        self.tail, self.shared = nnx.List(tail), nnx.List(list(shared))
        blocks = [*self.blocks, *self.tail]
        layers = [block.whole(self.shared) for block in blocks]
        self.timed = any(reads_time(one) for one in layers if isinstance(one, Layer))
        if spec.timed and not self.timed:
            raise ValueError(UNTIMED)

    def start(self, batch: int) -> ModelState:
        """The state before anything was seen."""
        graph, stacked = nnx.split(self.blocks)

        def states(blocks):
            return tuple(block.start(batch, self.compute, self.shared) for block in blocks)

        state_dtype = accumulation_dtype(self.compute)
        pooled, repeated = None, ()
        if not self.outputs.per_step:
            pooled = jnp.zeros((batch, self.features), state_dtype), jnp.zeros(batch, state_dtype)
        if self.blocks:
            repeated = jax.vmap(lambda state: states(nnx.merge(graph, state)))(stacked)
        return ModelState(repeated, states(self.tail), pooled)

    def __call__(
        self,
        x: jax.Array,
        h: ModelState | None = None,
        *,
        resets: jax.Array | None = None,
        mask: jax.Array | None = None,
        dt: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, ModelState]:
        """Answers in float32 and the state after the last step.

        x: what `inputs` takes: tokens int [B, T], features [B, T, D]. The answer is [B, T, size]
            or, once per sequence, [B, size]: what was seen since the last reset, pooled.
        h, resets, mask: as for a layer. A masked step is left out; its answer is zero.
        dt: float [B, T], the time before each step, for the layers that read it.
        key: randomness of dropout; None: no dropout, as in evaluation.
        Raises ValueError for other inputs than `inputs`, and for dt if no layer reads it.
        """
        self.inputs.check(x)
        if dt is not None and not self.timed:
            raise ValueError(UNTIMED)
        if self.context is not None and x.shape[1] > self.context:
            raise ValueError(
                f"{x.shape[1]} steps at once, but attention sees {self.context}: "
                "read the checkpoint with a larger context"
            )
        model = cast_parameters(self, self.compute)
        h = model.start(x.shape[0]) if h is None else h
        if mask is not None:
            x = self.inputs.masked(x, mask)
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.compute)
        flow = Flow(resets, mask, dt=dt)
        first, last = (None, None) if key is None else jax.random.split(key)
        y = embedding = model.embed(x)
        y, blocks = model._repeat(y, h.blocks, flow, first)
        y, tail = model._apply(model.tail, y, h.tail, flow, last, embedding)
        y, pooled = model.norm(y), None
        if not self.outputs.per_step:
            y, pooled = self._pooled(y, h.pooled, resets, mask)
        y = model.head(y, model.embed)
        if mask is not None and self.outputs.per_step:
            y = jnp.where(mask[:, :, None], y, 0)
        return y, ModelState(blocks, tail, pooled)

    @property
    def causal(self) -> bool:
        """Whether no layer sees the future."""
        return all(getattr(block.layer, "causal", True) for block in (*self.blocks, *self.tail))

    def _repeat(self, x, h, flow, key):
        """The pattern, as often as it is repeated."""
        if not self.blocks:
            return x, ()
        graph, stacked = nnx.split(self.blocks)
        repetitions = len(jax.tree.leaves(stacked)[0])
        keys = None if key is None else jax.random.split(key, repetitions)

        def group(x, now):
            state, h, key = now
            return self._apply(nnx.merge(graph, state), x, h, flow, key)

        return lax.scan(group, x, (stacked, h, keys), unroll=self.unroll)

    def _apply(self, blocks, x, h, flow, key, embedding=None):
        """One block after the other."""
        call = jax.checkpoint(Block.__call__) if self.remat else Block.__call__
        keys = [None] * len(blocks) if key is None else jax.random.split(key, max(1, len(blocks)))
        new = []
        for block, state, k in zip(blocks, h, keys, strict=False):
            x, state = call(block, x, state, flow, k, embedding, self.shared)
            new.append(state)
        return x, tuple(new)

    def _pooled(self, y, pooled, resets, mask):
        """The last or mean step since the last reset, and what the next window needs of it."""
        before, count = pooled
        keep = jnp.ones(y.shape[:2], bool) if mask is None else mask
        fresh = jnp.zeros(y.shape[0], bool)
        if resets is not None:
            starts = (resets & keep).astype(jnp.int32)
            fresh = jnp.any(starts > 0, axis=1)
            later = lax.cumsum(starts, axis=1, reverse=True) - starts
            keep = keep & (later == 0)
        total = y.astype(before.dtype)
        if self.pool == "last" and not y.shape[1]:
            return before.astype(y.dtype), pooled
        if self.pool == "last":
            place = jnp.arange(1, y.shape[1] + 1, dtype=jnp.int32)[None]
            last = jnp.argmax(jnp.where(keep, place, 0), axis=1)
            new = jnp.take_along_axis(total, last[:, None, None], axis=1)[:, 0]
            before = jnp.where(jnp.any(keep, axis=1)[:, None], new, before)
            return before.astype(y.dtype), (before, count)
        before = jnp.where(fresh[:, None], 0, before)
        count = jnp.where(fresh, 0, count) + jnp.sum(keep, axis=1, dtype=count.dtype)
        before = before + jnp.sum(jnp.where(keep[:, :, None], total, 0), axis=1)
        return (before / jnp.maximum(count, 1)[:, None]).astype(y.dtype), (before, count)


def check_evaluator(name: str | None, layers: Sequence[Any], names: Sequence[str]) -> None:
    """An evaluator that was requested is run by the layers that have it: one error if none has, a
    notice of those that have not, which choose for themselves."""
    have = [getattr(layer, "evaluators", ()) for layer in layers]
    without = dict.fromkeys(
        one for one, known in zip(names, have, strict=True) if name not in known
    )
    if name is None or not without:
        return
    if not any(name in known for known in have):
        known = dict.fromkeys(one for some in have for one in some)
        raise ValueError(unknown(f"evaluator of {', '.join(without)}", name, known))
    warnings.warn(
        f"model.evaluator {name}: {', '.join(without)} have none of that name and "
        "choose for themselves",
        Notice,
        stacklevel=3,
    )


def _stack(modules: list[nnx.List]) -> nnx.List:
    """One module whose parameters are those of `modules`, stacked on a new first axis."""
    if not modules:
        return nnx.List([])
    graph, first = nnx.split(modules[0])
    states = [first, *(nnx.state(module) for module in modules[1:])]
    return nnx.merge(graph, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
