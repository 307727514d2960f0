"""Checkpoints of the transformers library: `seqjax import FOLDER` and `seqjax export FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from seqjax.core.ranges import Count, Range

Step = Annotated[int, Range(0)]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


def import_(checkpoint: Folder, out: Path | None = None, context: Count | None = None) -> int:
    """Read a checkpoint of the transformers library into our model.

    Args:
        checkpoint: folder with config.json and model.safetensors, or the files of its index
        out: new folder for the model in our format, for `seqjax generate` and `export`
        context: tokens that full attention can look back, kept in `out`; by default the
            config's, at most 4096
    """
    from seqjax.hf import read
    from seqjax.hf.files import vacant

    if out is not None:
        vacant(out)
    found = read(checkpoint, context=context)
    print(found.summary())
    if out is not None:
        from seqjax.train.imported import store

        store(found, out)
        print(f"in {out}")
    return 0


def export(folder: Folder, out: Path, step: Step | None = None) -> int:
    """Write an imported model, or a run that began with one, as a checkpoint of the
    transformers library.

    Args:
        folder: what `seqjax import --out` wrote, or of a run
        out: new folder for config.json, the weights, and the tokenizer if there was one
        step: which checkpoint of a run; by default the best one
    """
    from seqjax.hf import write
    from seqjax.hf.files import vacant
    from seqjax.train.imported import load, stored
    from seqjax.train.loop import load as load_run
    from seqjax.train.origin import exported

    vacant(out)
    if not stored(folder):
        found = exported(folder, load_run(folder, step)[0])
    elif step is None:
        found = load(folder)
    else:
        raise ValueError(f"{folder} is an imported model: it has no steps to choose from")
    write(found, out)
    print(f"{found.summary()}\nin {out}")
    return 0
