"""What a row of the table of layers says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seqjax.layers.base import Layer


@dataclass(frozen=True)
class Entry:
    """One row: a layer, what it is and where it comes from.

    state: the floats that one example carries from step to step (a complex number is two), a
        Python expression over `features` and the layer's options; tests evaluate it.
    smoke: options that make it tiny, for tests and examples (features is always 4 there).
    variants: further option sets that are held to the same contract.
    exempt: name of a law -> why it does not hold for this layer (tests read it, README shows it).
    """

    cls: type[Layer]
    title: str
    reference: str
    state: str = ""
    smoke: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The package its file lies in."""
        return self.cls.__module__.split(".")[2]
