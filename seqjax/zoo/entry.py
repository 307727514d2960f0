"""A row of the table of layers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flax import nnx

from seqjax.core import table
from seqjax.nn.base import Layer


@dataclass(frozen=True)
class Entry(table.Entry):
    """One row: a class of layers, what it is and where it comes from.

    state: the floats that one example carries from step to step (a complex number is two), a
        Python expression over `features`, the layer's options and its own sizes, which tests
        evaluate; empty where it is whatever the layers inside carry.
    smoke: options that make it tiny, for tests and examples (features is always 4 there).
    variants: further option sets that are held to the same contract.
    exempt: a law of `seqjax.testing.LAWS` -> why it does not hold for this layer, where its class
        does not declare it (`causal`, `learned`). Tests read it, README shows it.
    """

    make: type[Layer]
    state: str = ""
    smoke: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["mixer", "block", "wrapper"]:
        """A mixer stands in a model's x += mixer(norm(x)), a block is x = block(x) with norms and
        residuals of its own (`Layer.block`), a wrapper is made of the option `layer` or `layers`.
        """
        if {"layer", "layers"} & set(inspect.signature(self.make.__init__).parameters):
            return "wrapper"
        return "block" if self.make.block else "mixer"

    def floats(self, features: int, **options: Any) -> int:
        """The value of `state` for a layer of these options."""
        make: Any = self.make
        layer = nnx.eval_shape(lambda: make(features, rngs=nnx.Rngs(0), **options))
        parameters = inspect.signature(make.__init__).parameters.items()
        names: dict[str, Any] = {name: p.default for name, p in parameters}
        names |= {name: value for name, value in vars(layer).items() if isinstance(value, int)}
        return int(
            eval(self.state, {"__builtins__": {}}, {**names, **options, "features": features})
        )
