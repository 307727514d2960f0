"""`seqjax check LAYER`: the laws of a layer, of a row of the table or of a file of your own."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from flax import nnx

from seqjax.core.common import unknown
from seqjax.core.ranges import Range
from seqjax.nn import Layer
from seqjax.testing import LawBroken, check_layer
from seqjax.tools.screen import print_table
from seqjax.train.config import Count
from seqjax.zoo import LAYERS, make
from seqjax.zoo.own import load_file


def check(
    layer: tyro.conf.Positional[str],
    options: tuple[str, ...] = (),
    features: Count = 4,
    steps: Annotated[int, Range(12)] = 14,
    exempt: tuple[str, ...] = (),
) -> int:
    """Hold a layer to every law: streams, resets, masks, causality, evaluators, gradients ...

    Prints how far each is from holding, and ends with status 1 at the first that is broken. It
    runs in float64, with all parameters moved off their first values.

    Args:
        layer: a name of `seqjax list`, or FILE.py:Class; of a file with one layer, FILE.py
        options: of the layer, as in --options heads=2 "gate=none"; for a name of the table its
            smallest ones, where none are given
        features: of the inputs
        steps: of a sequence, at least 12 and more than a segment or a chunk of the layer
        exempt: laws that are not to be tried
    """
    given = dict(map(_option, options))
    if layer in LAYERS:
        entry = LAYERS[layer]
        exempt = (*exempt, *entry.exempt)
        made = make(layer, features, **(given or entry.smoke))
    elif ".py" in layer:
        made = _build(find_layer(layer), features, given)
    else:
        raise ValueError(f"{unknown('layer', layer, LAYERS)} (or give FILE.py:Class)")
    broken = None
    try:
        found = check_layer(made, steps=steps, exempt=exempt)
    except LawBroken as law_broken:
        found, broken = law_broken.found, law_broken
    title = f"{layer}, {features} features, {steps} steps, float64"
    verdicts = {law: "broken" if broken and law == broken.law else "holds" for law in found}
    rows = [(law, f"{gap:.1e}", verdicts[law]) for law, gap in found.items()]
    print_table(title, ("law", "off by", ""), rows)
    if broken:
        print(broken)
    return 1 if broken else 0


def find_layer(spec: str) -> type[Layer]:
    """The class of "FILE.py:Class"; of "FILE.py" the only layer that is defined there.

    Raises ValueError for a file that is not there or no Python, and an unknown name.
    """
    file, _, name = spec.partition(":")
    if not Path(file).is_file():
        raise ValueError(f"no file {file!r} for the layer {spec!r}, expected FILE.py:Class")
    module = load_file(file)
    found = {
        n: v
        for n, v in vars(module).items()
        if inspect.isclass(v) and issubclass(v, Layer) and v.__module__ == module.__name__
    }
    if not name and len(found) == 1:
        (cls,) = found.values()
        return cls
    if name not in found:
        some = f"it defines {', '.join(found)}" if found else "it defines none"
        raise ValueError(f"which layer of {file}? {some}; expected FILE.py:Class, got {spec!r}")
    return found[name]


def _build(cls: Any, features: int, options: dict[str, Any]) -> Layer:
    known = inspect.signature(cls.__init__).parameters
    wrong: Sequence[str] = [name for name in options if name not in known]
    if wrong:
        named = [p for p in known if p not in ("self", "features", "rngs")]
        raise ValueError(unknown(f"option of {cls.__name__}:", wrong[0], named))
    return cls(features, rngs=nnx.Rngs(0), **options)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"an option is NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a name
