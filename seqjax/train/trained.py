"""The model of a run, read from its folder."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from flax import nnx

from seqjax.core.common import Notice
from seqjax.stacks.model import Model
from seqjax.tasks import Spec, Task
from seqjax.train.average import averaging
from seqjax.train.checkpoint import CheckpointError, Checkpoints
from seqjax.train.config import Config, MeshConfig, check_config, task_of
from seqjax.train.imported import build
from seqjax.train.layout import Layout
from seqjax.train.origin import beside
from seqjax.train.record import read_config, read_data, read_objects
from seqjax.train.step import take_apart
from seqjax.train.weights import restore, stored

Weights = Literal["average", "last"]
Compute = Literal["float32", "bfloat16", "float64"]


def load(
    run: str | Path,
    step: int | None = None,
    *,
    task: Task | None = None,
    weights: Weights | None = None,
    compute: Compute | None = None,
    mesh: MeshConfig | None = None,
) -> tuple[Model, Task, Config, int]:
    """The model of the run in the folder `run`, its task and config, and the step it is of.

    step: which of the checkpoints; None: the one with the best validation, or the last.
    task: of a run that was given one as an object. Raises ValueError where it is missing.
    weights: the "average" or the "last" ones; None: the average where the run has one. Raises
        ValueError for an average where it has none.
    compute: dtype of activations; None: that of the run. Parameters are cast, as it needs.
    mesh: of devices that its parameters are split over; None: one device has them.
    """
    config = read_config(Path(run))
    if task is None and "task" in read_objects(Path(run)):
        raise ValueError(
            f"{run} was trained on a task that was given as an object, {config.task.name!r}: "
            "give it, load(run, task=...)"
        )
    task = task_of(config, task)
    if read_data(Path(run)) not in ("", task.fingerprint):
        changed = f"the data of {run} have changed since it was trained on"
        warnings.warn(changed, Notice, stacklevel=2)
    model, at = load_model(run, task.spec, step, weights, compute, mesh)
    return model, task, config, at


def load_model(
    run: str | Path,
    spec: Spec,
    step: int | None = None,
    weights: Weights | None = None,
    compute: Compute | None = None,
    mesh: MeshConfig | None = None,
) -> tuple[Model, int]:
    """`load` of the model alone, which needs no data: `spec` is that of its task."""
    run = Path(run)
    config, alone = read_config(run), stored(run)
    if compute is not None:
        config = replace(config, model=replace(config.model, compute=compute))
        check_config(config)
    if alone and (step, weights) != (None, None):
        raise ValueError(f"{run} has the weights of one step: there are none to choose from")
    if not alone and not (run / "checkpoints").exists():
        raise CheckpointError(f"{run} has no checkpoint yet")
    imported = beside(run)
    described = None if imported is None else imported.description
    layout = Layout.of(replace(config, mesh=mesh or MeshConfig()))

    def made() -> Model:
        return build(config.model, spec, described, rngs=nnx.Rngs(config.train.seed))

    *_, rebuild = take_apart(nnx.eval_shape(made), config.train.freeze)
    params, frozen = layout.made(lambda: take_apart(made(), config.train.freeze)[:2])
    if alone:
        arrays, at = restore(run, {**params, **frozen})
        return rebuild(arrays, arrays), at
    like: dict[str, Any]
    like, average = {"params": params, "frozen": frozen}, averaging(config.optimiser)
    if average is None and weights == "average":
        raise ValueError(f"weights must be last, or be left out: {run} has no average of weights")
    if average is not None and weights != "last":
        like["average"] = average.init(params)
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        at = checkpoints.read()[1]["best"]["step"] if step is None else step
        known = {*checkpoints.steps(), *checkpoints.unsealed()}
        at = at if at in known or step is not None else None
        arrays, extra = checkpoints.restore(like, at)
    params = arrays["average"].mean if "average" in arrays else arrays["params"]
    return rebuild(params, arrays["frozen"]), extra["step"]
