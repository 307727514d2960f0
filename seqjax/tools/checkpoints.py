"""Checkpoints of a run, `seqjax checkpoints RUN`, and of the transformers library, `seqjax import
FOLDER` and `seqjax export FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from seqjax.core.ranges import Count, Range

if TYPE_CHECKING:
    from seqjax.train.checkpoint import Checkpoints

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Step = Annotated[int, Range(0)]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


def index(run: Run, json: bool = False) -> int:
    """What the checkpoints of a run hold, the best one, and whether they are whole.

    Every byte is read; exit status 1 where one of them is not as it was saved.

    Args:
        run: folder of the run
        json: print JSON
    """
    from seqjax.tools.screen import print_json, print_table
    from seqjax.train.checkpoint import CheckpointError, Checkpoints
    from seqjax.train.progress import short
    from seqjax.train.record import read_config

    train = read_config(run).train
    if not (run / "checkpoints").exists():
        raise CheckpointError(f"{run} has no checkpoint yet")
    with Checkpoints(run / "checkpoints", every=train.keep_every, read_only=True) as checkpoints:
        steps = sorted({*checkpoints.steps(), *checkpoints.unsealed()})
        held = [_held(checkpoints, step) for step in steps]
        last = next((one for one in reversed(held) if not one["fault"]), None)
        best = last["best"] if last else None
        checkpoints.best = best
        for one in held:
            one["best"] = one["step"] == best
            one["for good"] = one["step"] != best and checkpoints.stays(one["step"])
    if json:
        print_json(held)
    else:
        rows = [
            (str(one["step"]), "best" if one["best"] else "for good" if one["for good"] else "",
             "  ".join(f"{name} {value:.4g}" for name, value in one["metrics"].items()),
             str(one["evaluated"] or ""), one["dtype"], short(one["bytes"]),
             one["fault"] or "yes")
            for one in held
        ]  # fmt: skip
        columns = ("step", "kept", "validation", "of step", "parameters", "bytes", "whole")
        print_table(f"checkpoints of {run}", columns, rows)
    return 1 if any(one["fault"] for one in held) else 0


def _held(checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    folder, fault = checkpoints.folder / str(step), checkpoints.fault(step)
    extra = {} if fault else checkpoints.extra(step)
    arrays = {} if fault else checkpoints.arrays(step)
    parameters = {str(a.dtype) for name, a in arrays.items() if name.startswith("params.")}
    return {
        "step": step,
        "best": extra.get("best", {}).get("step"),
        "metrics": extra.get("metrics", {}),
        "evaluated": extra.get("evaluated"),
        "dtype": " ".join(sorted(parameters)),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "fault": fault,
    }


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
    from seqjax.train.origin import exported
    from seqjax.train.trained import load as load_run

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
