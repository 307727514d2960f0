"""What the rows of all tables share: of layers, tasks and learners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One row: what its name makes, and where that comes from.

    make: called with the options of the row, whose names its signature has.
    reference: arXiv ids, authors and year, or the module that defines it; parted by commas.
    """

    make: Callable[..., Any]
    title: str
    reference: str
