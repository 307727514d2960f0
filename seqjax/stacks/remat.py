"""What the backward pass finds of the forward pass, and what it computes again.

none      all of it
layer     the input of each block
chunk     the inputs of each block, and its state every `remat_chunk` steps: what is inside a
          block is there for so many steps at a time
full      the input of each repetition of the pattern, and, once it is there again, of its blocks
offload   as layer, with the inputs in the memory of the host until they are needed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from seqjax.core.flow import Flow
from seqjax.core.mesh import loop
from seqjax.nn.base import Layer

Remat = Literal["none", "layer", "chunk", "full", "offload"]
HOST, STREAM = "pinned_host", "stream"  # a kind of memory, and the name of what is offloaded to it


def check_remat(remat: Remat, layers: Sequence[Layer]) -> None:
    """Raise ValueError for layers, or a device, that cannot do it."""
    device = jax.local_devices()[0]
    if remat == "offload" and HOST not in {m.kind for m in device.addressable_memories()}:
        raise ValueError(f"model.remat=offload needs a device with {HOST} memory, not {device}")
    if remat == "chunk" and (seeing := [one for one in layers if not one.causal]):
        name = type(seeing[0]).__name__
        raise ValueError(f"model.remat=chunk needs layers that are causal, and {name} is not")


def rematerialised(call: Callable[..., Any], remat: Remat, chunk: int) -> Callable[..., Any]:
    """The call of a block, `Block.__call__`."""
    if remat == "none":
        return call
    if remat == "chunk":
        return partial(_in_chunks, jax.checkpoint(call), chunk)
    if remat == "offload":
        policy = jax.checkpoint_policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[], names_which_can_be_offloaded=[STREAM],
            offload_src="device", offload_dst=HOST,
        )  # fmt: skip

        def named(block: Any, x: jax.Array, *rest: Any) -> Any:
            return call(block, checkpoint_name(x, STREAM), *rest)

        return jax.checkpoint(named, policy=policy)
    return jax.checkpoint(call)


def _in_chunks(
    call: Callable[..., Any],
    chunk: int,
    block: Any,
    x: jax.Array,
    h: Any,
    flow: Flow,
    key: jax.Array | None,
    embedding: jax.Array | None,
    shared: Any,
    source: Any,
    tokens: jax.Array | None,
) -> Any:
    """A block over chunks of time, each from the state at the end of the one before."""
    if flow.cu_seqlens is not None:
        raise ValueError("model.remat=chunk takes rows with resets, not cu_seqlens")
    if x.shape[1] <= chunk:
        return call(block, x, h, flow, key, embedding, shared, source, tokens)
    whole, steps = x.shape[1] // chunk, x.shape[1]
    along = x, flow, embedding, tokens  # leaves [B, T, ...]

    def cut(v: jax.Array) -> jax.Array:
        v = v[:, : whole * chunk]
        return jnp.moveaxis(v.reshape(len(v), whole, chunk, *v.shape[2:]), 1, 0)

    def some(h: Any, now: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        (x, flow, embedding, tokens), n = now
        # one mask for all time steps is one for all chunks
        drawn = key if key is None or block.variational else jax.random.fold_in(key, n)
        y, h, losses = call(block, x, h, flow, drawn, embedding, shared, source, tokens)
        if losses:
            raise ValueError(f"model.remat=chunk has no losses of layers, {', '.join(losses)}")
        return h, y

    numbers = jnp.arange(whole, dtype=jnp.int32)
    h, y = loop(some, h, (jax.tree.map(cut, along), numbers))
    y = jnp.moveaxis(y, 0, 1).reshape(x.shape[0], whole * chunk, *y.shape[3:])
    if steps % chunk:
        rest = jax.tree.map(lambda v: v[:, whole * chunk :], along)
        h, last = some(h, (rest, jnp.int32(whole)))
        y = jnp.concatenate([y, last], axis=1)
    return y, h, {}
