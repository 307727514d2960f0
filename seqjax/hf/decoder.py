"""Architectures of checkpoints as the one model: an embedding, residual branches, a norm, a head.

    x    = s_e embed(tokens)                                  [B, T, features]
    x   <- alpha r + beta post(layer(norm(x)))                branch by branch; r = x, or norm(x)
    x   <- joined(x, post(layer(given(x))))                   or where it has a connection
    y    = cap(s_l W norm(x))                                 logits [B, T, vocabulary]

An architecture is a `Description`: its branches, each a layer of ours with the names its tensors
have in the checkpoint. No branches are alike for sure, so that none are scanned: they are the
model's `tail`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from flax import nnx

from seqjax.answers.inputs import Embedding
from seqjax.answers.values import Values
from seqjax.core.common import accumulation_dtype
from seqjax.nn.base import Layer
from seqjax.nn.norms import Norm
from seqjax.stacks.blocks import Block, Connection, Head
from seqjax.stacks.config import ModelConfig
from seqjax.stacks.model import Model
from seqjax.stacks.stack import check_evaluator
from seqjax.tasks.task import Classes, Spec, Tokens

Names = Mapping[Any, Any]  # their tensor, or several, -> our path, or a form of seqjax.hf.tensors


@dataclass(frozen=True)
class Branch:
    """One residual branch: `layer` as (rngs=...) -> module, its tensors under `prefix`.

    around: those that are not the layer's, their names in full -> our paths in the block.
    """

    layer: Callable[..., nnx.Module]
    names: Names
    prefix: str
    norm: str | None = None  # their name of the norm before the layer
    post: str | None = None  # and of the one after it
    post_offset: float | None = None  # its offset, where it is not that of all norms
    alpha: float = 1.0
    beta: float = 1.0
    from_norm: bool = False  # the normed stream is what the branch is added to
    with_embedding: bool = False  # the layer sees [x, embedding], as in Zamba
    with_tokens: bool = False  # the layer sees [x, digits of the token]
    shared: int | None = None  # the layer is called with this one of the shared modules
    connection: Callable[..., Connection] | None = None  # in place of the norm and of the residual
    then: Callable[..., Layer] | None = None  # a second layer, in place of the norm after the first
    around: Names = field(default_factory=dict)

    def after(self, of: Description) -> Norm:
        return of.norm(
            of.features, **({} if self.post_offset is None else dict(offset=self.post_offset))
        )

    def block(self, of: Description, config: ModelConfig, *, rngs: nnx.Rngs) -> Block:
        return Block(
            self.layer(rngs=rngs),
            config,
            norm=of.norm(of.features) if self.norm else None,
            post=self.then(rngs=rngs) if self.then else self.after(of) if self.post else None,
            connection=self.connection(rngs=rngs) if self.connection else None,
            alpha=self.alpha,
            beta=self.beta,
            from_norm=self.from_norm,
            with_embedding=self.with_embedding,
            with_tokens=self.with_tokens,
            shared=self.shared,
        )


@dataclass(frozen=True)
class Description:
    vocabulary: int  # tokens
    features: int
    branches: tuple[Branch, ...]
    norm: Callable[..., Norm]
    embed: str = "model.embed_tokens"
    last: str = "model.norm"
    head: str = "lm_head"
    tied: bool = False  # the head is the embedding, transposed
    head_bias: bool = False
    first: str | None = None  # a norm of the embedding
    enter: Callable[[], Any] | None = None  # or what makes a wider stream of it
    leave: Callable[..., Any] | None = None  # (rngs=...) -> its end before the head: norm is in it
    embed_scale: float = 1.0
    logits_scale: float = 1.0
    softcap: float | None = None
    rows: int | None = None  # of the embedding and of the head, where some are of no token
    context: int | None = None  # what full attention can see; None: there is none
    shared: tuple[Callable[..., nnx.Module] | Branch, ...] = ()
    names: Names = field(default_factory=dict)  # of all other tensors -> our paths, in full
    layouts: int = 1  # in how many ways the reference saved the same numbers
    layout: int = 0  # and which of them this is
    beside: tuple[str, ...] = ()  # how the tensors begin that no logit needs
    ignored: Mapping[str, str] = field(default_factory=dict)  # fields of the config -> the reason
    base: bool = False  # as AutoModel saves it: names without `prefix`, and no head

    @property
    def spec(self) -> Spec:
        """What the released model takes and answers; without a head, features."""
        tokens = Tokens(self.vocabulary)
        if self.bare:
            return Spec(tokens, Values(self.features, per_step=True))
        return Spec(tokens, Classes(self.vocabulary, per_step=True))

    @property
    def bare(self) -> bool:
        """Whether there is no head, and none that follows from the embedding."""
        return self.base and (self.head_bias or not self.tied)

    @property
    def copy(self) -> str | None:
        """The tensor that some checkpoints store although it is the embedding."""
        return f"{self.head}.weight" if self.tied and not self.base else None

    @property
    def prefix(self) -> str:
        """How the names of all tensors begin, those of the head apart."""
        return f"{self.embed.partition('.')[0]}."

    def without_head(self) -> Description:
        beside = tuple(name.removeprefix(self.prefix) for name in self.beside)
        return replace(self, base=True, beside=beside)

    def table(self) -> dict[Any, Any]:
        """Every tensor of the checkpoint -> where it goes."""
        last = "norm.norm" if self.leave else "norm"
        table: dict[Any, Any] = {self.embed: "embed", self.last: last, **self.names}
        if not self.base and (self.head_bias or not self.tied):
            table[self.head] = "head"
        if self.first:
            table[self.first] = "embed.norm"
        for n, branch in enumerate(self.branches):
            at = f"tail.{n}"
            for theirs, ours in (branch.norm, "norm"), (branch.post, "post"):
                if theirs:
                    table[theirs] = f"{at}.{ours}"
            table |= moved(branch.names, branch.prefix, f"{at}.layer")
            table |= {theirs: under(at, ours) for theirs, ours in branch.around.items()}
        return (
            {cut(name, self.prefix): ours for name, ours in table.items()} if self.base else table
        )


def cut(name: Any, prefix: str) -> Any:
    """A name, or several, without the prefix."""
    return (
        name.removeprefix(prefix)
        if isinstance(name, str)
        else tuple(n.removeprefix(prefix) for n in name)
    )


def under(prefix: str, ours: Any) -> Any:
    """A path, or a form of paths, moved below `prefix`."""
    return f"{prefix}.{ours}" if isinstance(ours, str) else ours.under(prefix)


def moved(names: Names, theirs: str, ours: str) -> Names:
    """Names of the tensors below `theirs`, which go into the module at our path `ours`."""

    def below(name: Any) -> Any:
        return tuple(map(below, name)) if isinstance(name, tuple) else f"{theirs}.{name}"

    return {below(name): under(ours, path) for name, path in names.items()}


PLAIN = ModelConfig()


class Bare(Head):
    """No head: features, in at least float32."""

    def __init__(self):
        self.kernel = self.bias = None

    def __call__(self, x: jax.Array, embed: Embedding) -> jax.Array:
        return x.astype(accumulation_dtype(x.dtype))


class Decoder(Model):
    """A model with the parts of a description; a config adds how it runs: dropout, evaluator, ...

    spec: what it takes and answers; None: tokens, and the next one. For other answers than these
        the head is a new one.

    >>> decoder = read("checkpoint/").model
    >>> logits, h = decoder(tokens)                # tokens int [B, T], logits [B, T, vocabulary]
    """

    def __init__(
        self,
        description: Description,
        config: ModelConfig = PLAIN,
        spec: Spec | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        d, D, V = description, description.features, description.vocabulary
        spec = d.spec if spec is None else spec.widened(V)
        first = d.enter() if d.enter else d.norm(D) if d.first else None
        embed = Embedding(d.rows or V, D, scale=d.embed_scale, norm=first, rngs=rngs)
        tail = [branch.block(d, config, rngs=rngs) for branch in d.branches]
        layers = [block.layer for block in tail if isinstance(block.layer, Layer)]
        check_evaluator(config.evaluator, layers, [type(layer).__name__ for layer in layers])
        if spec.outputs == d.spec.outputs and d.bare:
            head = Bare()
        elif spec.outputs == d.spec.outputs:
            scale, cap = d.logits_scale, d.softcap
            options: dict[str, Any] = dict(tied=d.tied, bias=d.head_bias, rows=d.rows)
            head = Head(D, V, scale=scale, softcap=cap, **options, rngs=rngs)
        else:
            head = Head(D, spec.outputs.size, rngs=rngs)
        shared = [
            one.block(d, config, rngs=rngs) if isinstance(one, Branch) else one(rngs=rngs)
            for one in d.shared
        ]
        last = d.leave(rngs=rngs) if d.leave else d.norm(D)
        self._put(config, embed=embed, tail=tail, norm=last, features=D, shared=shared)
        self._answer(config, spec, head, context=d.context)
