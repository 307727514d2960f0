"""A picture of where a decoder looked: `seqjax generate RUN --figure FILE`.

A panel for each prompt and layer, darker where more was taken: what was written down, the source
across, as fig. 3 of arXiv:1409.0473 has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from seqjax.answers import Paired
from seqjax.stacks.alignments import alignments
from seqjax.stacks.model import Model

MOST = 60  # tokens that are drawn


def looked_picture(
    model: Model,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Any],
    names: Sequence[str],
    end: int | None,
) -> Figure:
    """prompts: sources, as tokens; rows: what was written of each, up to the token that ends it.

    Raises ValueError for a model that reads no source or looks at none.
    """
    if model.encoder is None:
        raise ValueError("--figure is of models of pairs: this one reads no source")
    maps, written = [], []
    for prompt, row in zip(prompts, rows, strict=True):
        row = [int(token) for token in row]
        row = row[: row.index(end) + 1 if end in row else MOST][:MOST]
        x, _ = model.inputs.opening(np.array([prompt], np.int32), np.ones((1, len(prompt)), bool))
        target = jnp.array([[*x.target[0], *row[:-1]]], jnp.int32)
        maps.append(np.asarray(alignments(model, Paired(x.source, target))[:, 0]))
        written.append(row)
    layers, shapes = len(maps[0]), [one.shape[1:] for one in maps]
    width, height = max(S for _, S in shapes), sum(T for T, _ in shapes)
    figure = Figure(
        figsize=((0.9 + 0.26 * width) * layers, 0.9 * len(maps) + 0.24 * height),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    ratios = {"height_ratios": [T for T, _ in shapes]}
    panels = figure.subplots(len(maps), layers, squeeze=False, gridspec_kw=ratios)
    for line, alpha, prompt, row in zip(panels, maps, prompts, written, strict=True):
        for axes, seen in zip(line, alpha, strict=True):
            axes.imshow(seen, cmap="gray_r", vmin=0, vmax=max(1.0, seen.max()), aspect="auto")
            axes.set_xticks(range(len(prompt)), [names[t] for t in prompt], rotation=90, fontsize=8)
            axes.set_yticks(range(len(row)), [names[t] for t in row], fontsize=8)
            axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    return figure
