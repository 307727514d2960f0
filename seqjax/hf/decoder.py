"""One decoder for all architectures: an embedding, residual branches, a norm, a head.

    x    = s_e embed(tokens)                                  [B, T, features]
    x   <- alpha r + beta post(layer(pre(x)))                 branch by branch; r = x, or pre(x)
    y    = cap(s_l W norm(x))                                 logits [B, T, vocabulary]

An architecture is a `Description`: its branches, each a layer of ours with the names its tensors
have in the checkpoint. Like a model, a decoder is called  y, h = decoder(tokens, h, ...)  with the
state returned being the state accepted: a tuple with the state of every branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.nn.base import Layer, cast_parameters
from seqjax.nn.norms import Norm
from seqjax.tasks.task import Classes, Tokens

Names = Mapping[Any, Any]  # their tensor, or several, -> our path, or a form of seqjax.hf.tensors


@dataclass(frozen=True)
class Branch:
    """One residual branch: `layer` as (rngs=...) -> module, its tensors under `prefix`."""

    layer: Callable[..., nnx.Module]
    names: Names
    prefix: str
    norm: str | None = None  # their name of the norm before the layer
    post: str | None = None  # and of the one after it
    residual: float = 1.0  # 0: the layer has a residual of its own
    scale: float = 1.0
    from_norm: bool = False  # the normed stream is what the branch is added to
    with_embedding: bool = False  # the layer sees [x, embedding], as in Zamba
    shared: int | None = None  # the layer is called with this one of the shared modules


@dataclass(frozen=True)
class Description:
    vocabulary: int
    features: int
    branches: tuple[Branch, ...]
    norm: Callable[[int], Norm]
    embed: str = "model.embed_tokens"
    last: str = "model.norm"
    head: str = "lm_head"
    tied: bool = False  # the head is the embedding, transposed
    first: str | None = None  # a norm of the embedding
    embed_scale: float = 1.0
    logits_scale: float = 1.0
    softcap: float | None = None
    context: int | None = None  # what full attention can see; None: there is none
    shared: tuple[Callable[..., nnx.Module], ...] = ()
    shared_names: Names = field(default_factory=dict)  # their tensors -> our paths, in full
    layouts: int = 1  # in how many ways the reference saved the same numbers
    layout: int = 0  # and which of them this is
    beside: tuple[str, ...] = ()  # how the tensors begin that no logit needs
    ignored: Mapping[str, str] = field(default_factory=dict)  # fields of the config -> the reason

    @property
    def copy(self) -> str | None:
        """The tensor that some checkpoints store although it is the embedding."""
        return f"{self.head}.weight" if self.tied else None

    def table(self) -> dict[Any, Any]:
        """Every tensor of the checkpoint -> where it goes."""
        table: dict[Any, Any] = {self.embed: "embed", self.last: "norm", **self.shared_names}
        if not self.tied:
            table[self.head] = "head"
        if self.first:
            table[self.first] = "first"
        for n, branch in enumerate(self.branches):
            at = f"branches.{n}"
            for theirs, ours in (branch.norm, "norm"), (branch.post, "post"):
                if theirs:
                    table[theirs] = f"{at}.{ours}"
            for theirs, ours in branch.names.items():
                several = theirs if isinstance(theirs, tuple) else (theirs,)
                table[tuple(f"{branch.prefix}.{t}" for t in several)] = under(f"{at}.layer", ours)
        return table


def under(prefix: str, ours: Any) -> Any:
    """A path, or a form of paths, moved below `prefix`."""
    return f"{prefix}.{ours}" if isinstance(ours, str) else ours.under(prefix)


class Embedding(nnx.Module):
    def __init__(self, vocabulary: int, features: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(jax.random.normal(rngs.params(), (vocabulary, features)))


class Residual(nnx.Module):
    def __init__(self, branch: Branch, description: Description, *, rngs: nnx.Rngs):
        norm, D = description.norm, description.features
        self.norm = norm(D) if branch.norm else None
        self.post = norm(D) if branch.post else None
        self.layer, self.shared = branch.layer(rngs=rngs), branch.shared
        self.residual, self.scale = branch.residual, branch.scale
        self.from_norm, self.with_embedding = branch.from_norm, branch.with_embedding

    def whole(self, shared) -> nnx.Module:
        """The layer, with the shared module it is called with."""
        return self.layer if self.shared is None else Using(self.layer, shared[self.shared])

    def start(self, batch: int, dtype, shared) -> Any:
        layer = self.whole(shared)
        return layer.batch_state(batch, dtype) if isinstance(layer, Layer) else ()

    def __call__(self, x, embedding, h, resets, mask, shared):
        layer = self.whole(shared)
        z = x if self.norm is None else self.norm(x)
        base = z if self.from_norm else x
        if self.with_embedding:
            z = jnp.concatenate([z, embedding], axis=-1)
        if isinstance(layer, Layer):
            y, h = layer(z, h, resets, mask)
        else:
            y = layer(z)
        y = y if self.post is None else self.post(y)
        return (self.residual * base if self.residual else 0) + self.scale * y, h


class Using(Layer):
    """A layer made for one call: a block that is called with a module that several share."""

    def __init__(self, block, shared):
        self.user, self.module = block, shared
        self.features, self.out_features = 2 * block.features, block.features

    def parts(self):
        return self.user.parts(self.module)

    def run(self, x, h, flow):
        return self.user.run(self.module, x, h, flow)


class Decoder(nnx.Module):
    """A language model in the form of a checkpoint; `compute` is the dtype it runs in.

    >>> decoder = read("checkpoint/").model
    >>> logits, h = decoder(tokens)                # tokens int [B, T], logits [B, T, vocabulary]
    """

    causal = True

    def __init__(self, description: Description, *, rngs: nnx.Rngs):
        D, V = description.features, description.vocabulary
        self.inputs, self.outputs = Tokens(V), Classes(V, per_step=True)
        self.compute = jnp.dtype(jnp.float32)
        self.embed_scale, self.logits_scale = description.embed_scale, description.logits_scale
        self.softcap, self.context = description.softcap, description.context
        self.embed = Embedding(V, D, rngs=rngs)
        self.first = description.norm(D) if description.first else None
        self.shared = nnx.List([make(rngs=rngs) for make in description.shared])
        self.branches = nnx.List(
            [Residual(b, description, rngs=rngs) for b in description.branches]
        )
        self.norm = description.norm(D)
        self.head = nnx.Linear(D, V, use_bias=False, rngs=rngs) if not description.tied else None

    def start(self, batch: int) -> tuple:
        """The state before anything was seen."""
        return tuple(branch.start(batch, self.compute, self.shared) for branch in self.branches)

    def __call__(
        self,
        tokens: jax.Array,
        h: tuple | None = None,
        *,
        resets: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple]:
        """Logits [B, T, vocabulary] in float32 and the state after the last step.

        resets, mask: bool [B, T], as for a layer; a masked token is left out, its logits are zero.
        """
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(f"tokens are integers [B, T], got {tokens.dtype} {list(tokens.shape)}")
        if self.context is not None and tokens.shape[1] > self.context:
            raise ValueError(
                f"{tokens.shape[1]} tokens at once, but attention sees {self.context}: "
                "read the checkpoint with a larger context"
            )
        model = cast_parameters(self, self.compute)
        h = model.start(len(tokens)) if h is None else h
        x = model.embed.table[tokens] * self.embed_scale
        x = embedding = x if model.first is None else model.first(x)
        states = []
        for branch, state in zip(model.branches, h, strict=True):
            x, state = branch(x, embedding, state, resets, mask, model.shared)
            states.append(state)
        x = model.norm(x)
        y = x @ model.embed.table[...].T if model.head is None else model.head(x)
        y = y.astype(accumulation_dtype(self.compute)) * self.logits_scale
        if self.softcap is not None:
            y = self.softcap * jnp.tanh(y / self.softcap)
        if mask is not None:
            y = jnp.where(mask[:, :, None], y, 0)
        return y, tuple(states)
