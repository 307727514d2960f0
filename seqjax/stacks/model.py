"""The one model: embedding, a stream of residual blocks around any layer, head.

    x   = embed(x)                                               [B, T, features]
    x  += dropout(mixer(norm(x)))                                depth times, the layers a pattern
    x  += dropout(cross(norm(x), source))                        of a pair: arXiv:1706.03762,
                                                                 if the mixer does not look at it
    x  += dropout(mlp(norm(x)))                                  GLU: arXiv:2002.05202
    y   = W norm(x)                                              what the answer is read from

A layer that is a block already, with norms and residuals of its own (`Layer.block`), stands in
place of the mixer's line and the last one as x = block(x). Models that are imported (`seqjax.hf`)
have the same parts with other scales and norms: `seqjax.stacks.blocks` has the formula.

What goes in and out is the task's `Spec` (`seqjax.answers`), so one class is the language model and
the per-step tagger (classes per step), the sequence classifier (classes, pooled over time), the
regressor (values), and of pairs of sequences the encoder and decoder. Like a layer, a model is
called

    y, h = model(x, h, resets=..., mask=..., key=...)

with the state returned being the state accepted; `key` turns dropout and the noise of layers on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from seqjax.answers import Paired
from seqjax.answers.parts import InParts
from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Flow, Source
from seqjax.core.mesh import Place, apart, placed, put
from seqjax.core.types import Array, Bool, Float, Int
from seqjax.nn.base import cast_parameters
from seqjax.nn.devices import gathered
from seqjax.stacks.blocks import Head, Losses
from seqjax.stacks.config import ModelConfig
from seqjax.stacks.stack import Stack, summed
from seqjax.tasks.task import Spec


class ModelState(NamedTuple):
    """The state of a model: a pytree, batch axis B after the axis of repetitions."""

    blocks: Any  # tuple: per layer of the pattern, leaves [repetitions, B, ...]
    tail: Any  # tuple: per block after the last whole pattern, leaves [B, ...]
    pooled: Any  # (sum or last [B, features], count [B]) of a sequence model, else None
    source: Source | None = None  # what the blocks look at in every step


BATCH_AXES: Any = ModelState(1, 0, 0, 0)  # pyright: ignore[reportArgumentType]
UNTIMED = "the model takes no dt: none of its layers reads the time between steps"


class Model(Stack):
    """The model of `config` for inputs and outputs `spec`.

    >>> model = Model(ModelConfig(features=32), task.spec, rngs=nnx.Rngs(0))
    >>> y, h = model(batch.x)                     # y [B, T, classes], h the state after it

    Of pairs of sequences it is a decoder of the target, and an encoder reads the source. The
    decoder reads the encoder by `config.bridge`: it starts from its last states ("state",
    arXiv:1409.3215), each of its blocks attends to its outputs ("attention"), or both. A layer
    that looks at a source itself (`Layer.sourced`) is given it, and attends to nothing else.
    """

    def __init__(self, config: ModelConfig, spec: Spec, *, rngs: nnx.Rngs):
        if config.parameters is not None:
            raise ValueError(
                f"model.parameters must be None, got {config.parameters}: "
                "seqjax.stacks.summary.fitted finds the features for it"
            )
        spec = spec.widened(config.vocabulary)
        source, stream = spec.inputs.pair
        if source is None and (config.encoder or config.encoder_depth):
            raise ValueError("model.encoder and model.encoder_depth are of tasks that give pairs")
        attends = source is not None and config.bridge != "state"
        super().__init__(config, stream, cross=attends, rngs=rngs)
        head = Head(config.features, spec.outputs.size, rngs=rngs)
        reads = None if source is None else Stack(_reading(config), source, cross=False, rngs=rngs)
        self._answer(config, spec, head, encoder=reads)

    def _answer(
        self,
        config: ModelConfig,
        spec: Spec,
        head: Head,
        *,
        encoder: Stack | None = None,
        context: int | None = None,
    ) -> None:
        """What is more than a stack. context: how many steps at once its attention can see."""
        self.inputs, self.outputs, self.head = spec.inputs, spec.outputs, head
        self.encoder, self.bridge = encoder, config.bridge
        self.noisy = self.noisy or (encoder is not None and encoder.noisy)
        self.own_loss = self.own_loss or (encoder is not None and encoder.own_loss)
        self.pool, self.context = config.pool, context
        self.loss_chunk = config.loss_chunk
        if config.loss_chunk is not None and not spec.outputs.in_parts:
            raise ValueError(
                "model.loss_chunk is of answers that are scored step by step, and "
                f"{type(spec.outputs).__name__} of this task are not"
            )
        if spec.timed and not self.timed:
            raise ValueError(UNTIMED)

    def start(self, batch: int | tuple[int, ...]) -> ModelState:
        """The state of B examples, or of (B, N) pieces, before anything was seen; of a pair its
        source neither."""
        state_dtype, pooled = accumulation_dtype(self.compute), None
        axes = (batch,) if isinstance(batch, int) else batch
        if not self.outputs.per_step:
            pooled = jnp.zeros((*axes, self.features), state_dtype), jnp.zeros(axes, state_dtype)
        return ModelState(*self.states(batch), pooled)

    def __call__(
        self,
        x: Any,
        h: ModelState | None = None,
        *,
        resets: Bool[Array, "B T"] | None = None,
        mask: Bool[Array, "B T"] | None = None,
        dt: Float[Array, "B T"] | None = None,
        cu_seqlens: Int[Array, " N"] | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, ModelState]:
        """Answers in float32 and the state after the last step.

        x: what `inputs` takes: tokens int [B, T], features [B, T, D]. The answer is [B, T, size]
            or, once per sequence, [B, size]: what was seen since the last reset, pooled. Of a pair
            both sequences, which begin anew: h is not looked at. More of its target alone, with h.
        h, resets, mask: as for a layer. A masked step is left out; its answer is zero.
        dt: float [B, T], the time before each step, for the layers that read it.
        cu_seqlens: integers [B, N + 1], of N pieces in each row, as for a layer: the states have
            leaves [B, N, ...], and what is answered once per sequence is [B, N, size].
        key: randomness of dropout and noise; None: none of it, as in evaluation.
        Raises ValueError for other inputs than `inputs`, for dt if no layer reads it, and for
        resets of a pair.
        """
        beside: dict[str, Any] = dict(resets=resets, mask=mask, dt=dt, cu_seqlens=cu_seqlens)
        return self._called(x, h, key=key, **beside)[:2]

    def with_stream(
        self, x: Any, h: ModelState | None = None, **beside: Any
    ) -> tuple[jax.Array, ModelState, jax.Array]:
        """What a call returns, and what the head reads: [B, T, features], or once per sequence
        [B, features]. beside: as of a call."""
        return self._called(x, h, **beside)[:3]

    def scored(
        self, x: Any, h: ModelState | None = None, **beside: Any
    ) -> tuple[jax.Array | InParts, ModelState]:
        """What a call returns, its answers in parts where the config has `loss_chunk`. beside: as
        of a call."""
        return self._called(x, h, parts=self.loss_chunk, **beside)[:2]

    def with_losses(
        self, x: Any, h: ModelState | None = None, **beside: Any
    ) -> tuple[jax.Array | InParts, ModelState, Losses]:
        """What `scored` returns, and what training adds to the loss of the task: {name: [B]}.

        Those are "ar" and "tar" of the config, times their weights, and the losses of layers that
        have their own (`Layer.losses`), those of one name added up; each a mean over steps.
        beside: as of a call.
        """
        y, h, _, losses = self._called(x, h, losses=self.own_loss, parts=self.loss_chunk, **beside)
        return y, h, losses

    def _called(
        self, x, h, *, resets=None, mask=None, dt=None, cu_seqlens=None, key=None, losses=False,
        parts=None,
    ) -> tuple[Any, ModelState, jax.Array, Losses]:  # fmt: skip
        """Answers, the state after the last step, what the head reads, and losses if wanted.

        parts: so many steps of the answers at a time, or all.
        """
        more = self.encoder is not None and h is not None and not isinstance(x, Paired)
        (self.inputs.pair[1] if more else self.inputs).check(x)
        if dt is not None and not self.timed:
            raise ValueError(UNTIMED)
        if self.encoder is not None and not (resets is None and cu_seqlens is None):
            raise ValueError("a model of pairs takes no resets: each is a sequence of its own")
        place = placed(jax.tree.leaves(x)[0])
        if place is not None and place.mesh.explicit_axes:
            beside = dict(resets=resets, mask=mask, dt=dt, cu_seqlens=cu_seqlens)
            return self._on_devices(place, x, h, key, beside, losses)
        model = gathered(cast_parameters(self, self.compute), but="blocks")
        found = {}
        if isinstance(x, Paired):
            (h, found), x = model._read(x, key, losses), x.target
        if self.context is not None and x.shape[1] > self.context:
            raise ValueError(
                f"{x.shape[1]} steps at once, but attention sees {self.context}: "
                "read the checkpoint with a larger context"
            )
        if h is None:
            h = model.start(len(x) if cu_seqlens is None else (len(x), cu_seqlens.shape[1] - 1))
        if mask is not None:
            x = self.inputs.pair[1].masked(x, mask)
        flow = Flow(resets, mask, dt=dt, cu_seqlens=cu_seqlens)
        stream, states, own = model.stream(
            x, (h.blocks, h.tail), flow, key, h.source, losses=losses
        )
        pooled = None
        if not self.outputs.per_step:
            stream, pooled = self._pooled(stream, h.pooled, flow)
        states = ModelState(*states, pooled, h.source)
        if parts is not None:
            return model._in_parts(stream, mask, parts), states, stream, summed(found, own)
        y = model.head(stream, model.embed)
        if mask is not None and self.outputs.per_step:
            y = jnp.where(mask[:, :, None], y, 0)
        return y, states, stream, summed(found, own)

    def _in_parts(self, stream: jax.Array, mask: jax.Array | None, part: int) -> InParts:
        """The answers, not yet read."""
        tied = self.head.kernel is None
        graph, weights = nnx.split(nnx.List([self.head, self.embed] if tied else [self.head]))
        types = jax.tree.map(lambda w: w.dtype, weights)

        def read(weights: Any, stream: jax.Array) -> jax.Array:
            parts: Any = nnx.merge(graph, jax.tree.map(lambda w, t: w.astype(t), weights, types))
            return parts[0](stream, parts[-1])  # a head that is not tied looks at no embedding

        wide = jax.tree.map(lambda w: w.astype(accumulation_dtype(w.dtype)), weights)
        dtype = accumulation_dtype(stream.dtype)
        return InParts(read, wide, stream, mask, self.outputs.size, part, dtype)

    def _on_devices(
        self, place: Place, x: Any, h: Any, key: Any, beside: dict[str, Any], losses: bool
    ) -> tuple[jax.Array, ModelState, jax.Array, Losses]:
        """The call for a batch that is split over explicit axes: each device runs its examples.

        Each draws noise of its own.
        """
        graph, parameters = nnx.split(self)
        alone, steps, place = PartitionSpec(), place.steps, place.steps_apart(False)
        examples = place.examples
        after: Any = examples
        states = ModelState(PartitionSpec(None, *examples), after, after, after)

        def part(parameters: Any, key: Any, x: Any, h: Any, beside: dict[str, Any]) -> Any:
            if key is not None and place.batch:
                key = jax.random.fold_in(key, lax.axis_index(place.batch))
            return nnx.merge(graph, parameters)._called(x, h, key=key, losses=losses, **beside)

        specs = (alone, alone, examples, alone if h is None else states, examples)
        run = apart(part, place, specs, (examples, states, examples, examples))
        y, h, stream, found = run(parameters, key, x, h, beside)
        y, stream = put(place.mesh, steps if self.outputs.per_step else examples, (y, stream))
        return y, h, stream, found

    def _read(self, x: Paired, key: jax.Array | None, losses: bool) -> tuple[ModelState, Losses]:
        """The state in which the decoder begins, and the losses of the encoder."""
        encoder, kind = self.encoder, self.inputs.pair[0]
        assert encoder is not None and kind is not None
        source, present, h = x.source, x.present, self.start(len(x.target))
        if present is not None:
            source = kind.masked(source, present)
        key = None if key is None else jax.random.fold_in(key, 1)  # the decoder splits it
        flow = Flow(None, present)
        first = encoder.states(len(source))
        y, (blocks, tail), found = encoder.stream(source, first, flow, key, losses=losses)
        if self.bridge == "state":
            return h._replace(blocks=blocks, tail=tail), found
        seen = Source(y, present)
        if self.bridge == "attention" and self.sourced:
            blocks, tail = self.states(len(y), seen)
        elif self.bridge == "attention":
            blocks, tail = h.blocks, h.tail
        return h._replace(blocks=blocks, tail=tail, source=seen), found

    def _pooled(self, y, pooled, flow):
        """The last or mean step since the last reset, and what the next window needs of it."""
        keep = jnp.ones(y.shape[:2], bool) if flow.mask is None else flow.mask
        if flow.cu_seqlens is None:
            return self._pool(y, pooled, flow.resets, keep)
        cu, step = flow.cu_seqlens[:, :, None], jnp.arange(y.shape[1], dtype=flow.cu_seqlens.dtype)
        inside = (cu[:, :-1] <= step[None, None]) & (step[None, None] < cu[:, 1:])  # [B, N, T]

        def piece(pooled, inside):
            return self._pool(y, pooled, flow.resets, keep & inside)

        return jax.vmap(piece, in_axes=1, out_axes=1)(pooled, inside)

    def _pool(self, y, pooled, resets, keep):
        before, count = pooled
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


def _reading(config: ModelConfig) -> ModelConfig:
    """Of the encoder."""
    layer, depth = config.encoder or config.layer, config.encoder_depth or config.depth
    if config.bridge != "attention" and (layer, depth) != (config.layer, config.depth):
        raise ValueError(
            "model.encoder and model.encoder_depth must be left out, or be the layers and depth "
            f"of the decoder: model.bridge={config.bridge} hands on states"
        )
    if depth < len(layer):
        raise ValueError(
            f"model.encoder_depth must be at least the {len(layer)} layers it has, got {depth}"
        )
    return replace(config, layer=layer, depth=depth, ar=0.0, tar=0.0)
