"""What a question of theory found: a table, and curves to draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from tyro.conf import arg

from seqjax.core.files import save_figure
from seqjax.nn.base import cast_parameters
from seqjax.stacks.config import LayerConfig, Pattern, show_pattern
from seqjax.zoo import make

Layers = Annotated[Pattern, arg(aliases=("--model.layer",))]  # as those of a model's config


def each(layers: Sequence[LayerConfig], features: int, seed: int) -> Iterator[tuple[str, Any]]:
    """Layers of the tables, with their labels, in the dtype that numbers have: float64 with
    JAX_ENABLE_X64=1."""
    for one in layers:
        made = make(one.name, features, rngs=nnx.Rngs(seed), **one.options)
        yield " ".join(show_pattern((one,))), cast_parameters(made, jnp.zeros(()).dtype)


class Finding(NamedTuple):
    """rows: of the table, in the order of columns. curves: by label, x and y of each.

    rule: what is compared with, drawn as a line over all x, with its label.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    x: str = ""
    y: str = ""
    curves: Mapping[str, tuple[Any, Any]] = {}
    scale: tuple[Literal["linear", "log"], Literal["linear", "log"]] = ("linear", "linear")
    rule: tuple[float, str] | None = None


def draw(found: Finding, path: str | Path) -> None:
    """The curves of a finding. Raises ValueError where it has none."""
    if not found.curves:
        raise ValueError(f"{found.title}: a table, and no curves to draw")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 5))
    for n, (label, (x, y)) in enumerate(found.curves.items()):
        style = ("-", "--", ":", "-.")[n // 10 % 4]
        axis.plot(np.asarray(x), np.asarray(y), style, label=label, color=f"C{n % 10}")
    if found.rule is not None:
        height, label = found.rule
        axis.axhline(height, color="black", linewidth=0.8, linestyle=":", label=label)
    axis.set_xscale(found.scale[0])
    axis.set_yscale(found.scale[1])
    axis.set(xlabel=found.x, ylabel=found.y, title=found.title)
    axis.legend(fontsize=7, ncols=1 + len(found.curves) // 25)
    figure.tight_layout()
    save_figure(figure, path, dpi=150)
    plt.close(figure)
