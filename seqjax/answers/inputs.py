"""What goes into a model: its arrays, and their embedding.

    Tokens(V)          int [B, T]               x_t = table[token_t]
    Features(*shape)   float [B, T, *shape]     x_t = W vec(f_t) + b
    Vector(D, steps)   float [B, D]             x_t = W v + b at every step, or at the first only
    Pair(source, target, begin)   Paired        a sequence that is read, and one that is written

The embedding may be any module: a front end of convolutions is a subclass of Features with an
`embedding` of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.core import ranges
from seqjax.core.ranges import Count


class Input(ABC):
    """A kind of input: a frozen dataclass. It checks x and makes the module that embeds it.

    shape: of the input of one step.
    dtype: of x; integers and floats of another width are right too.
    axes: of x before `shape`.
    bound: x has whole numbers from 0 to below it; None: any.
    """

    shape: tuple[int, ...]
    name: ClassVar[str]
    dtype: ClassVar[type]
    axes: ClassVar[tuple[str, ...]] = ("B", "T")

    @property
    def bound(self) -> int | None:
        return None

    @property
    def pair(self) -> tuple[Input | None, Input]:
        """The kind of a sequence that is read before, if any, and of what comes in by steps."""
        return None, self

    def __post_init__(self) -> None:
        ranges.check(self, type(self), type(self).__name__)

    @abstractmethod
    def embedding(self, features: int, *, rngs: nnx.Rngs) -> Any:
        """The module from x to [B, T, features]."""

    def check(self, x: Any) -> None:
        """Raise ValueError unless x has the axes and the kind of dtype."""
        inexact = issubclass(self.dtype, np.inexact)
        kind = jnp.floating if inexact else jnp.integer
        here, n = np.shape(x), len(self.axes)
        if here[n:] != self.shape or len(here) < n or not jnp.issubdtype(x.dtype, kind):
            axes = ", ".join(map(str, (*self.axes, *self.shape)))
            raise ValueError(
                f"the model takes {self.name}, {'floats' if inexact else 'integers'} [{axes}], "
                f"got {x.dtype} {list(here)}"
            )

    def masked(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """x with zeros at the steps that are not set in mask [B, T]."""
        return jnp.where(mask.reshape(mask.shape + (1,) * len(self.shape)), x, 0)

    def widened(self, vocabulary: int) -> Input:
        """The same for a model that knows so many tokens; ValueError if it cannot be."""
        raise ValueError(
            f"model.vocabulary must be None for {self.name}, which are no tokens, got {vocabulary}"
        )

    def opening(self, x: np.ndarray, mask: np.ndarray) -> tuple[Any, np.ndarray | None]:
        """What generation begins with: x and mask of prompts [B, T, *shape]."""
        return x, mask

    def prompt(self, steps: Any) -> np.ndarray:
        """The beginning of a sequence [T, *shape], T > 0, to be continued."""
        row = np.asarray(steps, self.dtype)
        if row.shape[1:] != self.shape or not row.shape or not len(row):
            axes = ", ".join(map(str, ("T", *self.shape)))
            raise ValueError(f"a prompt is {self.name} [{axes}], T > 0, got {list(row.shape)}")
        return row


@dataclass(frozen=True)
class Tokens(Input):
    """One token of `vocabulary` per step."""

    name = "tokens"
    dtype = np.int32
    shape = ()
    vocabulary: Count

    @property
    def bound(self) -> int:
        return self.vocabulary

    def embedding(self, features: int, *, rngs: nnx.Rngs) -> Embedding:
        return Embedding(self.vocabulary, features, rngs=rngs)

    def widened(self, vocabulary: int) -> Tokens:
        if vocabulary < self.vocabulary:
            raise ValueError(
                f"model.vocabulary must be at least {self.vocabulary}, the tokens of the task, "
                f"got {vocabulary}"
            )
        return Tokens(vocabulary)

    def prompt(self, steps: Any) -> np.ndarray:
        row = super().prompt(steps)
        if row.min() < 0 or row.max() >= self.vocabulary:
            raise ValueError(f"a prompt has tokens outside 0 .. {self.vocabulary - 1}")
        return row


@dataclass(frozen=True, init=False)
class Features(Input):
    """Floats of any shape per step: Features(2), frames Features(28, 28)."""

    name = "features"
    dtype = np.float32
    shape: tuple[Count, ...]

    def __init__(self, *shape: int):
        object.__setattr__(self, "shape", shape)
        self.__post_init__()

    def embedding(self, features: int, *, rngs: nnx.Rngs) -> Any:
        return Flattened(prod(self.shape), features, rngs=rngs)


@dataclass(frozen=True)
class Vector(Input):
    """One vector [B, dimension] per sequence of `steps` steps, seen at each, or at the first only:
    one to many."""

    name = "one vector per sequence"
    dtype = np.float32
    axes = ("B",)
    dimension: Count
    steps: Count
    first_only: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.dimension,)

    def embedding(self, features: int, *, rngs: nnx.Rngs) -> Repeated:
        return Repeated(self, features, rngs=rngs)

    def masked(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        return x  # it belongs to no step


class Paired(NamedTuple):
    """Of a batch of pairs: two sequences, each of its own length."""

    source: Any  # [B, S, ...]
    target: Any  # [B, T, ...]
    present: Any = None  # bool [B, S]: not set for padding of the source; None: all are there


@dataclass(frozen=True)
class Pair(Input):
    """A source that is read whole, and a target that is written: x is `Paired`.

    begin: the token of the target that stands before its first one, in x and in generation, whose
    prompts are sources; of features, which begin with zeros, 0.
    """

    name = "a pair"
    source: Input
    target: Input
    begin: Annotated[int, ranges.Range(0)]

    @property
    def shape(self) -> tuple[int, ...]:  # of a prompt
        return self.source.shape

    @property
    def pair(self) -> tuple[Input, Input]:
        return self.source, self.target

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.begin and self.target.bound is None:
            raise ValueError(
                f"a target of {self.target.name} begins with zeros: begin=0, got {self.begin}"
            )

    def embedding(self, features: int, *, rngs: nnx.Rngs) -> Any:
        raise TypeError("a pair has two embeddings: those of its source and of its target")

    def check(self, x: Any) -> None:
        if not isinstance(x, Paired):
            raise ValueError(f"the model takes Paired(source, target), got {type(x).__name__}")
        self.source.check(x.source)
        self.target.check(x.target)
        shape = np.shape(x.source)[:2]
        if len(x.target) != shape[0] or np.shape(x.present) not in ((), shape):
            raise ValueError(
                f"the model takes a source, bool [B, S] = {list(shape)} of its steps that are "
                f"present, and a target of as many rows, got {np.shape(x.present)} and "
                f"{len(x.target)} rows"
            )

    def widened(self, vocabulary: int) -> Pair:
        source, target = (one.widened(vocabulary) for one in (self.source, self.target))
        return replace(self, source=source, target=target)

    def prompt(self, steps: Any) -> np.ndarray:
        return self.source.prompt(steps)

    def opening(self, x: np.ndarray, mask: np.ndarray) -> tuple[Paired, None]:
        first = np.full((len(x), 1, *self.target.shape), self.begin, self.target.dtype)
        return Paired(x, first, mask), None


class Embedding(nnx.Module):
    """norm(scale table[token]): a vector for each token."""

    def __init__(
        self,
        vocabulary: int,
        features: int,
        *,
        scale: float = 1.0,
        norm: nnx.Module | None = None,
        rngs: nnx.Rngs,
    ):
        table = nnx.initializers.normal(0.02)(rngs.params(), (vocabulary, features), jnp.float32)
        self.table, self.scale, self.norm = nnx.Param(table), scale, norm

    def __call__(self, tokens):
        x = self.table[tokens]
        x = x if self.scale == 1 else self.scale * x
        return x if self.norm is None else self.norm(x)  # pyright: ignore[reportCallIssue]


class Affine(nnx.Linear):
    """W x + b that keeps the scale of x."""

    def __init__(self, size: int, features: int, *, rngs: nnx.Rngs):
        init = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        super().__init__(size, features, kernel_init=init, rngs=rngs)


class Flattened(Affine):
    """Of the axes after B and T as one."""

    def __call__(self, x):
        return super().__call__(x.reshape(*x.shape[:2], self.in_features))


class Repeated(Affine):
    """Of one vector, at every step or at the first; zeros elsewhere."""

    def __init__(self, vector: Vector, features: int, *, rngs: nnx.Rngs):
        super().__init__(vector.dimension, features, rngs=rngs)
        self.vector = vector

    def __call__(self, x):
        y = super().__call__(x)
        y = jnp.broadcast_to(y[:, None], (len(y), self.vector.steps, y.shape[-1]))
        return y.at[:, 1:].set(0) if self.vector.first_only else y
