"""Where a model's first numbers come from: another run, or a checkpoint that is imported.

    train(config, "runs/tuned", origin="falcon-mamba/")     a folder of the transformers library,
                                                            what `seqjax import --out` wrote, or
                                                            a run: of that its best checkpoint

The model is that of the origin. Of a config's `model` only what is no part of it counts, such as
dropout, and that where it is not the default. The model may know more tokens than the task has. For
another kind of answer it gets a new head. A run keeps what it needs when its origin is gone,

    RUN/config.json    "from": path and sha256 of the weights; the config of the model
    RUN/origin/        of an imported model: its own config.json, its tokenizer, its constants
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seqjax.hf import Checkpoint, Description, read as read_theirs
from seqjax.stacks.config import ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Spec, Task
from seqjax.train import imported, weights
from seqjax.train.average import averaged
from seqjax.train.checkpoint import CheckpointError, Checkpoints, fingerprint
from seqjax.train.config import Choice, Config, check_config, show_choice, task_of
from seqjax.train.layout import placed
from seqjax.train.record import read_config, read_from, read_objects, resolved
from seqjax.train.step import Arrays, TrainState, take_apart

FOLDER = "origin"  # in a run
# What of a ModelConfig is no part of the model: how it is run.
FREE = ("dropout", "variational", "pool", "unroll", "remat", "remat_chunk", "compute", "evaluator")


@dataclass(frozen=True)
class Origin:
    path: str
    sha256: str  # of its weights: `seqjax.train.checkpoint.fingerprint`
    model: ModelConfig
    arrays: Mapping[str, Any] | None  # its weights by name; None where the run has its own already
    spec: Spec | None = None  # what its model takes and answers; None as for arrays
    imported: Checkpoint | None = None  # what an imported model has beside its weights
    step: int | None = None  # of a run: which checkpoint
    moments: bool = False  # whether the optimiser of the run goes on

    @property
    def record(self) -> dict[str, Any]:
        moments = {"moments": True} if self.moments else {}
        return {"path": self.path, "sha256": self.sha256, **moments}

    @property
    def description(self) -> Description | None:
        """Of an imported model."""
        return None if self.imported is None else self.imported.description

    def config(self, given: Config, task: Task | None = None) -> Config:
        """`given` with the model of the origin; ValueError for a field that has another value."""
        check_config(given, task)
        plain, requested = (asdict(resolved(config).model) for config in (Config(), given))
        mine = asdict(self.model)
        for name, value in requested.items():
            if name not in FREE and value not in (plain[name], mine[name]):
                raise ValueError(
                    f"model.{name} must be that of {self.path}, {mine[name]!r}, or be left out, "
                    f"got {value!r}"
                )
        free = {name: requested[name] for name in FREE if requested[name] != plain[name]}
        return replace(given, model=replace(self.model, **free))

    def answers(self, spec: Spec) -> bool:
        """Whether its head is right for `spec`. Raises ValueError if its embedding is not."""
        if self.spec is None:
            return True
        if spec.inputs != self.spec.inputs:
            raise ValueError(
                f"the model of {self.path} takes {self.spec.inputs}, the task has {spec.inputs}"
            )
        return spec.outputs == self.spec.outputs

    def fill(self, arrays: Arrays, spec: Spec) -> Arrays:
        """Arrays of a model for `spec` with the numbers of the origin, but for a new head."""
        mine, kept = self.arrays, self.answers(spec)
        if mine is None:
            return arrays
        return {  # copies: what is trained is given away
            name: placed(mine[name], array) if kept or not name.startswith("head.") else array
            for name, array in arrays.items()
        }

    def resume(self, state: TrainState, config: Config) -> TrainState:
        """`state` with the parameters, moments and average that the run had.

        Raises ValueError if its optimiser or its average is another, or the head is new.
        """
        if self.arrays is None:  # the run has its own already
            return state
        run = Path(self.path)
        theirs, ours = read_config(run).optimiser, config.optimiser
        for name in ("name", "average"):
            if getattr(theirs, name) != getattr(ours, name):
                raise ValueError(
                    f"optimiser.{name} must be that of {run}, whose moments go on: "
                    f"{_shown(getattr(theirs, name))}, got {_shown(getattr(ours, name))}"
                )
        like = {name: getattr(state, name) for name in ("params", "moments", "average")}
        try:
            with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
                return state._replace(**checkpoints.restore(like, self.step)[0])
        except CheckpointError as error:
            raise ValueError(f"from_moments needs the same optimiser and head: {error}") from None


def _shown(chosen: Any) -> str:
    return " ".join(show_choice(chosen)) if isinstance(chosen, Choice) else str(chosen)


def find(folder: str | Path, run: Path | None, *, moments: bool = False) -> Origin:
    """The origin of a run. Once the run has a checkpoint, `folder` may be gone.

    moments: go on with its optimiser too. Raises ValueError where `folder` is neither a run nor
        the folder of a checkpoint.
    """
    folder = Path(folder)
    path = str(folder.resolve())
    before = read_from(run) if run else {}
    if run and before.get("path") == path:
        with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
            if checkpoints.steps():
                config = read_config(run)
                kept = beside(run)
                return Origin(
                    path, before["sha256"], config.model, None, imported=kept, moments=moments
                )
    if not folder.is_dir():
        raise ValueError(f"from must be the folder of a run or a checkpoint, got {str(folder)!r}")
    run_like = (folder / "config.json").is_file() and "config" in imported.read_config(folder)[1]
    if moments and (weights.stored(folder) or not run_like):
        raise ValueError(f"from_moments is for runs: {folder} has weights alone")
    if run_like:
        return replace(_of_run(folder, path), moments=moments)
    return _of_checkpoint(folder, path)


def beside(run: Path) -> Checkpoint | None:
    """What a run keeps of an imported model beside its weights; None if it has none."""
    return imported.load(run / FOLDER, weights=False) if (run / FOLDER).is_dir() else None


def exported(run: Path, model: Model) -> Checkpoint:
    """The model of a run as a checkpoint of the transformers library, if it is one's architecture.

    Raises ValueError where it is not, or where its head is another.
    """
    found = beside(run)
    if found is None:
        raise ValueError(f"{run} is no run of an imported model: its architecture has no such form")
    if model.outputs != found.description.spec.outputs:
        raise ValueError(
            f"the head of {run} answers {model.outputs}: no checkpoint of this architecture has it"
        )
    return replace(found, model=model)


def keep(origin: Origin, run: Path) -> None:
    """Write into the run what `beside` reads. The lock of the run is held."""
    for partial in run.glob(".partial-*"):  # of a process that was killed here
        shutil.rmtree(partial)
    if origin.imported is not None and not (run / FOLDER).exists():
        imported.store(origin.imported, run / FOLDER, weights=False)


def _of_run(run: Path, path: str) -> Origin:
    config = read_config(run)
    if weights.stored(run):
        kept, step = weights.load(run)
    else:
        with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
            step = checkpoints.read()[1]["best"]["step"]
            arrays, extra = checkpoints.read(step if step in checkpoints.steps() else None)
        kept, step = averaged(arrays), extra["step"]
    if "task" in read_objects(run):  # its spec is known to whoever has the object
        return Origin(path, fingerprint(kept), config.model, kept, None, beside(run), step)
    spec = task_of(config).spec
    model = replace(
        config.model, vocabulary=getattr(spec.inputs, "vocabulary", config.model.vocabulary)
    )
    return Origin(path, fingerprint(kept), model, kept, spec, beside(run), step)


def _of_checkpoint(folder: Path, path: str) -> Origin:
    found = imported.load(folder) if imported.stored(folder) else read_theirs(folder)
    params, frozen, *_ = take_apart(found.model)
    arrays, description = {**params, **frozen}, found.description
    model = ModelConfig(
        layer=(),
        features=description.features,
        depth=len(description.branches),
        vocabulary=description.vocabulary,
    )
    spec = Spec(found.model.inputs, found.model.outputs)
    return Origin(path, fingerprint(arrays), model, arrays, spec, found)
