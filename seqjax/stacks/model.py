"""The one model: embedding, a stream of residual blocks around any layer, head.

    x   = embed(x)                                               [B, T, features]
    x  += dropout(mixer(norm(x)))                                depth times, the layers a pattern
    x  += dropout(mlp(norm(x)))                                  GLU: arXiv:2002.05202
    y   = W norm(x)                                              what the answer is read from

A layer that is a block already, with norms and residuals of its own (`Layer.block`), stands in
place of both lines as x = block(x).

What goes in and out is the task's `Spec` (`seqjax.answers`), so one class is the language model and
the per-step tagger (classes per step), the sequence classifier (classes, pooled over time) and the
regressor (values). The pattern of blocks is repeated by one `lax.scan` over stacked parameters, so
that compile time does not grow with depth. Like a layer, a model is called

    y, h = model(x, h, resets=..., mask=..., key=...)

with the state returned being the state accepted; `key` turns dropout on.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.common import Notice, accumulation_dtype, unknown
from seqjax.core.flow import Flow
from seqjax.core.ranges import check
from seqjax.nn.base import Layer, cast_parameters, reads_time
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tasks.task import Spec
from seqjax.zoo import make


class ModelState(NamedTuple):
    """The state of a model: a pytree, batch axis B after the axis of repetitions."""

    blocks: Any  # tuple: per layer of the pattern, leaves [repetitions, B, ...]
    tail: Any  # tuple: per block after the last whole pattern, leaves [B, ...]
    pooled: Any  # (sum or last [B, features], count [B]) of a sequence model, else None


BATCH_AXES = ModelState(1, 0, 0)
UNTIMED = "the model takes no dt: none of its layers reads the time between steps"


class MLP(nnx.Module):
    """W_2 gelu(W_1 x)."""

    def __init__(self, features: int, inner: int, *, scale: float, rngs: nnx.Rngs):
        self.W_1 = _linear(features, inner, 1.0, rngs)
        self.W_2 = _linear(inner, features, scale, rngs)

    def __call__(self, x):
        return self.W_2(jax.nn.gelu(self.W_1(x)))


class Block(nnx.Module):
    """A step of the stream: x += dropout(layer(norm(x))), then x += dropout(mlp(norm(x))).

    Of a layer that is a block itself nothing but the dropout, of what it adds to the stream.
    """

    def __init__(self, layer: LayerConfig, config: ModelConfig, *, rngs: nnx.Rngs):
        features = config.features
        # Branches that add up: their last matrices shrink with depth, so that their sum does not
        # grow (Radford et al. 2019). A layer's own output matrix is its paper's business.
        scale = (2 * config.depth) ** -0.5
        self.layer = make(layer.name, features, rngs=rngs, **layer.options)
        out, whole = self.layer.out_features, self.layer.block
        self.norm = None if whole else _norm(config)
        self.project = None if out == features else _linear(out, features, scale, rngs)
        second = config.mlp != "none" and not whole
        inner = max(1, round(config.expansion * features))
        kind = GLU if config.mlp == "glu" else MLP
        self.mlp_norm = _norm(config) if second else None
        self.mlp = kind(features, inner, scale=scale, rngs=rngs) if second else None
        self.rate, self.variational = config.dropout, config.variational
        known = config.evaluator in self.layer.evaluators
        self.evaluator = config.evaluator if known else None

    def __call__(self, x, h, flow, key):
        """flow: of the batch, [B, T]; its evaluator is not looked at, that of the config holds."""
        keys = (None, None) if key is None else jax.random.split(key)
        n = x if self.norm is None else self.norm(x)
        dt = flow.dt if reads_time(self.layer) else None
        y, h = self.layer(n, h, flow.resets, flow.mask, dt=dt, evaluator=self.evaluator)
        y = y if self.project is None else self.project(y)
        if self.norm is None:  # bitwise y where nothing is dropped
            return (x + self.drop(y - x, keys[0]) if self.rate and key is not None else y), h
        x = x + self.drop(y, keys[0])
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self.drop(self.mlp(self.mlp_norm(x)), keys[1])
        return x, h

    def drop(self, x, key):
        return dropout(x, self.rate, key, variational=self.variational)


def dropout(x: jax.Array, rate: float, key: jax.Array | None, *, variational: bool = False):
    """x [B, T, D] with a share `rate` of zeros, the rest scaled up; unchanged without a key.

    variational: the same channels are dropped at all time steps (arXiv:1512.05287).
    """
    if key is None or not rate:
        return x
    shape = (x.shape[0], 1, *x.shape[2:]) if variational else x.shape
    keep = jnp.broadcast_to(jax.random.bernoulli(key, 1 - rate, shape), x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


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
        self.features, self.remat, self.unroll = features, config.remat, config.unroll
        self.pool = config.pool
        self.compute = jnp.dtype(config.compute)
        self.inputs, self.outputs = spec.inputs, spec.outputs
        self.embed = spec.inputs.embedding(features, rngs=rngs)

        def blocks(layers):
            return nnx.List([Block(layer, config, rngs=rngs) for layer in layers])

        repetitions, rest = divmod(depth, len(pattern))
        self.blocks = _stack([blocks(pattern) for _ in range(repetitions)])
        self.tail = blocks(pattern[:rest])
        layers = [block.layer for block in self.blocks]
        self.timed = any(map(reads_time, layers))
        if spec.timed and not self.timed:
            raise ValueError(UNTIMED)
        check_evaluator(config, layers)
        self.norm = _norm(config)
        # Small, so that the first answers are near uniform, and the first loss near its baseline.
        self.head = _linear(features, spec.outputs.size, 0.1, rngs, bias=True)

    def start(self, batch: int) -> ModelState:
        """The state before anything was seen."""
        graph, stacked = nnx.split(self.blocks)

        def states(blocks):
            return tuple(block.layer.batch_state(batch, self.compute) for block in blocks)

        state_dtype = accumulation_dtype(self.compute)
        pooled = None
        if not self.outputs.per_step:
            pooled = jnp.zeros((batch, self.features), state_dtype), jnp.zeros(batch, state_dtype)
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
        model = cast_parameters(self, self.compute)
        h = model.start(x.shape[0]) if h is None else h
        if mask is not None:
            x = self.inputs.masked(x, mask)
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.compute)
        graph, stacked = nnx.split(model.blocks)
        flow = Flow(resets, mask, dt=dt)

        def group(x, now):
            state, h, key = now
            return self._apply(nnx.merge(graph, state), x, h, flow, key)

        repetitions = len(jax.tree.leaves(stacked)[0])
        first, last = (None, None) if key is None else jax.random.split(key)
        each = None if first is None else jax.random.split(first, repetitions)
        xs = (stacked, h.blocks, each)
        y, blocks = lax.scan(group, model.embed(x), xs, unroll=self.unroll)
        y, tail = self._apply(model.tail, y, h.tail, flow, last)
        y, pooled = model.norm(y), None
        if not self.outputs.per_step:
            y, pooled = self._pooled(y, h.pooled, resets, mask)
        y = model.head(y).astype(accumulation_dtype(self.compute))
        if mask is not None and self.outputs.per_step:
            y = jnp.where(mask[:, :, None], y, 0)
        return y, ModelState(blocks, tail, pooled)

    @property
    def causal(self) -> bool:
        """Whether no layer sees the future."""
        return all(block.layer.causal for block in (*self.blocks, *self.tail))

    def _apply(self, blocks, x, h, flow, key):
        """One block after the other."""
        call = jax.checkpoint(Block.__call__) if self.remat else Block.__call__
        keys = [None] * len(blocks) if key is None else jax.random.split(key, max(1, len(blocks)))
        new = []
        for block, state, k in zip(blocks, h, keys, strict=False):
            x, state = call(block, x, state, flow, k)
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


def check_evaluator(config: ModelConfig, layers: list[Layer]) -> None:
    """An evaluator that was requested is run by the layers that have it: one error if none has, a
    notice of those that have not, which choose for themselves."""
    name = config.evaluator
    without = [config.layer[n].name for n, one in enumerate(layers) if name not in one.evaluators]
    if name is None or not without:
        return
    if len(without) == len(layers):
        known = dict.fromkeys(one for layer in layers for one in layer.evaluators)
        raise ValueError(unknown(f"evaluator of {', '.join(dict.fromkeys(without))}", name, known))
    warnings.warn(
        f"model.evaluator {name}: {', '.join(dict.fromkeys(without))} have none of that name and "
        "choose for themselves",
        Notice,
        stacklevel=3,
    )


def _norm(config: ModelConfig) -> Norm:
    layer = config.norm == "layer"
    return Norm(config.features, centre=layer, bias=layer)


def _linear(inputs: int, outputs: int, scale: float, rngs: nnx.Rngs, bias: bool = False):
    init = nnx.initializers.variance_scaling(scale**2, "fan_in", "normal")
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=init, rngs=rngs)


def _stack(modules):
    """One module whose parameters are those of `modules`, stacked on a new first axis."""
    graph, first = nnx.split(modules[0])
    states = [first, *(nnx.state(module) for module in modules[1:])]
    return nnx.merge(graph, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
