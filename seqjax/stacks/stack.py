"""An embedding, a stream of residual blocks, a norm: what a model is before its head.

    x <- embed(x);  the blocks, one after the other (`seqjax.stacks.blocks`);  norm(x)

The blocks are a pattern, repeated by one `lax.scan` over stacked parameters so that compile time
does not grow with depth, and a tail of what comes after the last whole pattern.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.answers import Input
from seqjax.core.common import Notice, unknown
from seqjax.core.flow import Flow, Source
from seqjax.core.mesh import kept, loop
from seqjax.core.ranges import check
from seqjax.nn.base import Layer, has
from seqjax.nn.devices import gathered
from seqjax.nn.norms import Norm
from seqjax.stacks.blocks import Block, Losses, norm
from seqjax.stacks.config import ModelConfig
from seqjax.stacks.frames import Frames, Places
from seqjax.stacks.remat import Remat, check_remat, rematerialised


class Stack(nnx.Module):
    """The stack of `config` over `inputs`; cross: its blocks look at a source."""

    def __init__(self, config: ModelConfig, inputs: Input, *, cross: bool, rngs: nnx.Rngs):
        check(config, ModelConfig, "model")
        pattern, features, depth = config.layer, config.features, config.depth
        if not pattern or depth < len(pattern):
            raise ValueError(f"depth must be at least the pattern's {len(pattern)}, got {depth}")
        front = {"conv": Frames, "places": Places}.get(config.front)
        embed = (inputs.embedding(features, rngs=rngs) if front is None
                 else front(inputs, features, rngs=rngs))  # fmt: skip

        def blocks(layers):
            return [Block.of(layer, config, cross=cross, rngs=rngs) for layer in layers]

        repetitions, rest = divmod(depth, len(pattern))
        repeated = [blocks(pattern) for _ in range(repetitions)]
        layers = [block.layer for block in repeated[0]]
        check_evaluator(config.evaluator, layers, [layer.name for layer in pattern])
        tail = blocks(pattern[:rest])
        self._put(
            config, embed=embed, repeated=repeated, tail=tail, norm=norm(config), features=features
        )

    def _put(
        self,
        config: ModelConfig,
        *,
        embed: Any,
        repeated: Sequence[list[Block]] = (),
        tail: list[Block],
        norm: Norm,
        features: int,
        shared: Sequence[nnx.Module] = (),
    ) -> None:
        """Make the stack of these parts; of the config only how it runs is looked at.

        repeated: the blocks of every repetition of a pattern, the same each time; tail: those that
        come after them. shared: modules that several blocks are called with.
        """
        self.features, self.unroll = features, config.unroll
        self.remat: Remat = config.remat
        self.chunk = config.remat_chunk
        self.compute = jnp.dtype(config.compute)
        self.embed, self.norm = embed, norm
        self.blocks = _stacked([nnx.List(blocks) for blocks in repeated])
        self.tail, self.shared = nnx.List(tail), nnx.List(list(shared))
        for block in (self.tail or self.blocks)[-1:]:
            block.ar, block.tar = config.ar, config.tar
        layers = [block.whole(self.shared) for block in (*self.blocks, *self.tail)]
        known = [one for one in layers if isinstance(one, Layer)]
        check_remat(config.remat, known)
        self.timed = any(has(one, "timed") for one in known)
        self.sourced = any(has(one, "sourced") for one in known)
        self.noisy = config.dropout > 0 or any(has(one, "noisy") for one in known)
        own = any(getattr(layer, "own_loss", False) for layer in layers)
        self.own_loss = own or config.ar > 0 or config.tar > 0

    @property
    def causal(self) -> bool:
        """Whether no layer sees the future."""
        return all(getattr(block.layer, "causal", True) for block in (*self.blocks, *self.tail))

    def states(self, batch: int | tuple[int, ...], source: Source | None = None) -> tuple[Any, Any]:
        """Those of the repeated blocks, leaves [repetitions, B, ...], and of the tail, [B, ...],
        before anything but the source was seen."""
        graph, stacked = nnx.split(self.blocks)

        def of(blocks):
            return tuple(block.start(batch, self.compute, self.shared, source) for block in blocks)

        repeated = ()
        if self.blocks:
            repeated = jax.vmap(lambda state: of(nnx.merge(graph, state)))(stacked)
        return repeated, of(self.tail)

    def stream(
        self,
        x: jax.Array,
        h: tuple[Any, Any],
        flow: Flow,
        key: jax.Array | None,
        source: Source | None = None,
        *,
        losses: bool = False,
    ) -> tuple[jax.Array, tuple[Any, Any], Losses]:
        """[B, T, features] of what `inputs` takes, the states after it, and losses if wanted.

        flow: of the batch. key: of dropout and noise. source: what its blocks look at.
        """
        first, last = (None, None) if key is None else jax.random.split(key)
        if jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(self.compute)
        y = kept(self.embed(x))
        repeated: Any = ()
        found: Any = {}
        embedding, (graph, stacked) = y, nnx.split(self.blocks)

        def group(x, now):
            state, h, key = now
            blocks = nnx.merge(graph, state)
            x, *after = self._apply(blocks, x, h, flow, key, source, losses=losses)
            return x, after

        if self.blocks:
            group = jax.checkpoint(group) if self.remat == "full" else group
            repetitions = len(jax.tree.leaves(stacked)[0])
            keys = None if first is None else jax.random.split(first, repetitions)
            y, (repeated, found) = loop(group, y, (stacked, h[0], keys), unroll=self.unroll)
            # those of the last block are not of the others in its place of the pattern
            found = {name: v[-1] if name in ("ar", "tar") else jnp.sum(v, axis=0)
                     for name, v in found.items()}  # fmt: skip
        tokens = x if jnp.issubdtype(x.dtype, jnp.integer) else None
        y, tail, more = self._apply(
            self.tail, y, h[1], flow, last, source, embedding, tokens, losses=losses
        )
        return self.norm(y), (repeated, tail), summed(found, more)

    def _apply(self, blocks, x, h, flow, key, source, embedding=None, tokens=None, *, losses):
        """One block after the other."""

        def call(block, *given):
            # gathered in here, so that the backward pass gathers again, and keeps no parameters
            return Block.__call__(gathered(block), *given, losses=losses)

        call = rematerialised(call, self.remat, self.chunk)
        keys = [None] * len(blocks) if key is None else jax.random.split(key, max(1, len(blocks)))
        new, found = [], {}
        for block, state, k in zip(blocks, h, keys, strict=False):
            x, state, more = call(block, x, state, flow, k, embedding, self.shared, source, tokens)
            x = kept(x)
            new.append(state)
            found = summed(found, more)
        return x, tuple(new), found


def summed(first: Losses, second: Losses) -> Losses:
    """The losses of both, those of one name added up."""
    both = {name: first[name] + second[name] for name in first if name in second}
    return first | second | both


def check_evaluator(name: str | None, layers: Sequence[Any], names: Sequence[str]) -> None:
    """An evaluator that was requested is run by the layers that have it: one error if none has, a
    notice of those that have not, which choose for themselves."""
    have = [getattr(layer, "evaluators", ()) for layer in layers]
    each = zip(names, have, strict=True)
    without = dict.fromkeys(one for one, known in each if name not in known)
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


def _stacked(modules: list[nnx.List]) -> nnx.List:
    """One module whose parameters are those of `modules`, stacked on a new first axis."""
    if not modules:
        return nnx.List([])
    graph, first = nnx.split(modules[0])
    states = [first, *(nnx.state(module) for module in modules[1:])]
    return nnx.merge(graph, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))
