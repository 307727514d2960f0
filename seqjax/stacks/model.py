"""The one model: embedding, a stream of residual blocks around any layer, head.

    x   = embed(tokens)  or  W features                          [B, T, features]
    x  += dropout(mixer(norm(x)))                                depth times, the layers a pattern
    x  += dropout(mlp(norm(x)))                                  GLU: arXiv:2002.05202
    y   = W norm(x)                                              logits or values

A layer that is a block already, with norms and residuals of its own (`Layer.block`), stands in
place of both lines as x = block(x).

What goes in and out is the task's `Spec`, so one class is the language model and the per-step
tagger (classes per step), the sequence classifier (classes, pooled over time) and the regressor
(values). The pattern of blocks is repeated by one `lax.scan` over stacked parameters, so that
compile time does not grow with depth. Like a layer, a model is called

    y, h = model(x, h, resets=..., mask=..., key=...)

with the state returned being the state accepted; `key` turns dropout on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.ranges import check
from seqjax.nn.base import cast_parameters
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tasks.task import Classes, Spec, Tokens
from seqjax.zoo import make


class ModelState(NamedTuple):
    """The state of a model: a pytree, batch axis B after the axis of repetitions."""

    blocks: Any  # tuple: per layer of the pattern, leaves [repetitions, B, ...]
    tail: Any  # tuple: per block after the last whole pattern, leaves [B, ...]
    pooled: Any  # (sum or last [B, features], count [B]) of a sequence model, else None


BATCH_AXES = ModelState(1, 0, 0)


class Embedding(nnx.Module):
    """A vector for each token."""

    def __init__(self, vocabulary: int, features: int, *, rngs: nnx.Rngs):
        table = nnx.initializers.normal(0.02)(rngs.params(), (vocabulary, features), jnp.float32)
        self.table = nnx.Param(table)

    def __call__(self, tokens):
        return self.table[tokens]


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
        self.evaluator = config.evaluator

    def __call__(self, x, h, resets, mask, key):
        keys = (None, None) if key is None else jax.random.split(key)
        n = x if self.norm is None else self.norm(x)
        y, h = self.layer(n, h, resets, mask, evaluator=self.evaluator)
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
        if isinstance(spec.inputs, Tokens):
            self.embed = Embedding(spec.inputs.vocabulary, features, rngs=rngs)
        else:
            self.embed = _linear(spec.inputs.dimension, features, 1.0, rngs, bias=True)

        def blocks(layers):
            return nnx.List([Block(layer, config, rngs=rngs) for layer in layers])

        repetitions, rest = divmod(depth, len(pattern))
        self.blocks = _stack([blocks(pattern) for _ in range(repetitions)])
        self.tail = blocks(pattern[:rest])
        self.norm = _norm(config)
        out = spec.outputs
        width = out.count if isinstance(out, Classes) else out.dimension
        # Small, so that the first answers are near uniform, and the first loss near its baseline.
        self.head = _linear(features, width, 0.1, rngs, bias=True)

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
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, ModelState]:
        """Answers in float32 and the state after the last step.

        x: tokens int [B, T] or features [B, T, D]; the answer is [B, T, count] or, for one answer
            a sequence, [B, count]: what was seen since the last reset, pooled.
        h, resets, mask: as for a layer. A masked step is left out; its answer is zero.
        key: randomness of dropout; None: no dropout, as in evaluation.
        """
        self._check(x)
        model = cast_parameters(self, self.compute)
        h = model.start(x.shape[0]) if h is None else h
        if mask is not None:
            x = jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, 0)
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.compute)
        graph, stacked = nnx.split(model.blocks)

        def group(x, now):
            state, h, key = now
            return self._apply(nnx.merge(graph, state), x, h, resets, mask, key)

        repetitions = len(jax.tree.leaves(stacked)[0])
        first, last = (None, None) if key is None else jax.random.split(key)
        each = None if first is None else jax.random.split(first, repetitions)
        xs = (stacked, h.blocks, each)
        y, blocks = lax.scan(group, model.embed(x), xs, unroll=self.unroll)
        y, tail = self._apply(model.tail, y, h.tail, resets, mask, last)
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

    def _apply(self, blocks, x, h, resets, mask, key):
        """One block after the other."""
        call = jax.checkpoint(Block.__call__) if self.remat else Block.__call__
        keys = [None] * len(blocks) if key is None else jax.random.split(key, max(1, len(blocks)))
        new = []
        for block, state, k in zip(blocks, h, keys, strict=False):
            x, state = call(block, x, state, resets, mask, k)
            new.append(state)
        return x, tuple(new)

    def _check(self, x):
        if isinstance(self.inputs, Tokens):
            right = x.ndim == 2 and jnp.issubdtype(x.dtype, jnp.integer)
            what = "tokens, integers [B, T]"
        else:
            D = self.inputs.dimension
            right = x.ndim == 3 and x.shape[2] == D and jnp.issubdtype(x.dtype, jnp.floating)
            what = f"features, floats [B, T, {D}]"
        if not right:
            raise ValueError(f"the model takes {what}, got {x.dtype} {list(x.shape)}")

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
