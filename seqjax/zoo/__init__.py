"""The table of layers: name -> Entry, under the names of the literature survey.

A row is all that a new layer needs: the contract of `tests/test_layers.py`, the README tables,
`seqjax list`, the models and the benchmarks are made from it. Rows stand in the module of their
family here, layers in `seqjax.layers`, one file per paper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flax import nnx

from seqjax.core.common import unknown
from seqjax.nn.base import Layer
from seqjax.zoo import (
    attention,
    classic,
    constrained,
    elementwise,
    fast_weights,
    hybrid,
    linear_attention,
    memory,
    ode,
    reservoir,
    residual,
    segment,
    seq2seq,
    ssm,
)
from seqjax.zoo.entry import Entry
from seqjax.zoo.options import check_options

FAMILIES = (
    classic,
    elementwise,
    constrained,
    ode,
    ssm,
    linear_attention,
    fast_weights,
    attention,
    hybrid,
    residual,
    reservoir,
    segment,
    memory,
    seq2seq,
)
LAYERS: dict[str, Entry] = {name: row for family in FAMILIES for name, row in family.ROWS.items()}


def family(name: str) -> str:
    """The family of a row; "own" of one that was added from outside."""
    known = {row: module.__name__ for module in FAMILIES for row in module.ROWS}
    return known.get(name, "own").rpartition(".")[2]


def factory(
    spec: str | tuple[str, Mapping[str, Any]] | Callable[..., Layer],
) -> Callable[..., Layer]:
    """(features, *, rngs) -> Layer for a name, a pair (name, options), or such a callable.

    Unknown names and options are refused here, before anything is built. The options `layer` and
    `layers` of wrappers are factories themselves, and are given in the same three ways.
    """
    if callable(spec):
        return spec
    pair = (spec, {}) if isinstance(spec, str) else spec
    if not (isinstance(pair, tuple | list) and len(pair) == 2
            and isinstance(pair[0], str) and isinstance(pair[1], Mapping)):  # fmt: skip
        raise ValueError(f"a layer is a name, or (name, options), got {spec!r}")
    name, options = pair
    if name not in LAYERS:
        raise ValueError(unknown("layer", name, LAYERS))
    cls = LAYERS[name].make
    known = [
        p
        for p in inspect.signature(cls.__init__).parameters
        if p not in ("self", "features", "rngs")
    ]
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of layer {name!r}:", option, known))
    check_options(name, cls, options)
    options = dict(options)
    if "layer" in options:
        options["layer"] = factory(options["layer"])
    if "layers" in options:
        options["layers"] = tuple(factory(layer) for layer in options["layers"])
    return partial(cls, **options)


def make(name: str, features: int, *, rngs: nnx.Rngs | None = None, **options) -> Layer:
    """A layer by name.

    >>> x = jnp.ones((2, 5, 16))
    >>> make("gru", 16, hidden=32)(x)[0].shape
    (2, 5, 32)
    >>> make("bidirectional", 16, layer=("gru", {"hidden": 32}))(x)[0].shape
    (2, 5, 64)
    """
    return factory((name, options))(features, rngs=rngs or nnx.Rngs(0))


__all__ = ["FAMILIES", "LAYERS", "Entry", "factory", "family", "make"]
