"""What tasks share that draw frames of digits: the digits, and others to validate on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.data.sets.mnist import DIGITS, MNIST
from seqjax.tasks.task import Batch, Task

Name = Literal["digits", "mnist"]  # 8 pixels, which every machine has, and 28
SETS = {"digits": DIGITS, "mnist": MNIST}


class Digits(NamedTuple):
    images: jax.Array  # uint8 [N, size, size]
    labels: jax.Array  # int32 [N]


def digits_of(data: Name) -> tuple[Digits, Digits]:
    """To train on, and of other writers."""
    layout, paths = SETS[data].find()
    parts = layout.examples(paths)
    train, test = (list(parts[split]) for split in ("train", "test"))
    return _stacked(train), _stacked(test)


def _stacked(examples) -> Digits:
    images = np.stack([one["image"] for one in examples])
    return Digits(jnp.asarray(images), jnp.asarray([one["label"] for one in examples], jnp.int32))


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawn(Task):
    """A task of frames that are drawn; held_out draws them of the digits that are validated on."""

    held_out: Callable[[jax.Array, int, int], Batch]

    def validation(self, batch: int, length: int, count: int | None = None) -> Iterator[Batch]:
        return Task.validation(replace(self, sample=self.held_out), batch, length, count)
