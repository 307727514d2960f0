"""What a run leaves behind in its folder.

    config.json      the config with every default filled in; sizes, versions, device, git commit,
                     the modules that brought its layers and tasks
    own/             copies of those that are files
    metrics.jsonl    one line per log and per evaluation
    metrics.csv      the same as a table, at the end
    events.*         the same for TensorBoard
    loss.png         the curves
    checkpoints/     see seqjax.train.checkpoint

Without a folder a run leaves nothing.
"""

from __future__ import annotations

import csv
import json
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from inspect import signature
from io import StringIO
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

import seqjax
from seqjax.core.common import Notice
from seqjax.core.files import save_figure, write_atomically
from seqjax.stacks.config import LayerConfig
from seqjax.tasks import TASKS
from seqjax.train.config import Config, from_dict
from seqjax.train.sources import git, keep, recall, sources
from seqjax.zoo import LAYERS

# What may differ between the parts of one run.
FREE = ("steps", "max_seconds", "evaluate_every", "patience", "save_every", "max_to_keep",
        "keep_every", "log_every", "bad_step", "spike", "bad_in_a_row", "compute",
        "data", "fsdp", "tensor", "sequence", "rules")  # fmt: skip
Logger = Callable[[int, Mapping[str, float]], object]
HERE = Path(__file__).resolve().parent


class Record:
    """Metrics of a run, as JSON lines, TensorBoard events and a table; without a folder none.

    A resumed run goes on after `step`, its last evaluation that of step `evaluated`: the lines of
    training beyond the one and of validation beyond the other are dropped. rewinds: the lines of
    the times that it went back.
    """

    def __init__(
        self,
        folder: Path | None,
        step: int = 0,
        evaluated: int = 0,
        rewinds: Sequence[Mapping[str, float]] = (),
    ):
        self.folder, self.lines, self.events = folder, None, None
        self._go_on(step, evaluated, rewinds)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if self.folder and self.lines and self.events:
            with suppress(*[OSError] if kind else []):  # what came first counts, as of a full disk
                self._close()
                tabulate(self.folder)
                plot(self.folder)

    def go_back(self, step: int, evaluated: int, rewinds: Sequence[Mapping[str, float]]) -> None:
        """Go on after an earlier step."""
        self._close()
        self._go_on(step, evaluated, rewinds)

    def _go_on(self, step: int, evaluated: int, rewinds: Sequence[Mapping[str, float]]) -> None:
        if self.folder is None:
            return
        from tensorboardX import SummaryWriter

        path = self.folder / "metrics.jsonl"
        rows: list[Mapping[str, float]] = [
            row for row in read_metrics(self.folder)
            if row["step"] <= (evaluated if "validation_loss" in row else step)
            and "rewind" not in row
        ]  # fmt: skip
        rows = sorted([*rows, *rewinds], key=lambda row: row["step"])  # a kill may have lost one
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
        self.lines = path.open("a", buffering=1)
        self.events = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)

    def _close(self) -> None:
        if self.lines and self.events:
            self.lines.close()
            self.events.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.lines and self.events:
            self.lines.write(json.dumps({"step": step, **metrics}) + "\n")
            for name, value in metrics.items():
                if isfinite(value):  # TensorBoard draws nothing else
                    self.events.add_scalar(name, value, step)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl; a last line that a kill cut short is left out."""
    path = Path(folder) / "metrics.jsonl"
    text = path.read_text(errors="replace") if path.exists() else ""
    rows = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"]), **row})
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{path}, line {number} is not a line of metrics: remove it to go on"
            ) from None
    return rows


def tabulate(folder: Path) -> None:
    """metrics.csv: a row per line, a column per metric that one of them has."""
    rows, table = read_metrics(folder), StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(table, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / "metrics.csv", table.getvalue())


def plot(folder: Path) -> None:
    """loss.png: training and validation loss over steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(folder)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    for name, label, color, marker in (
        ("loss", "training", "0.6", None),
        ("validation_loss", "validation", "C0", "."),
    ):
        steps = [row["step"] for row in rows if name in row]
        losses = [row[name] for row in rows if name in row]
        axes.plot(steps, losses, label=label, color=color, marker=marker, linewidth=1.2)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    save_figure(figure, folder / "loss.png", dpi=150)


def environment() -> dict[str, Any]:
    """Versions, device and commit: what a result depends on beside its config."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    device = jax.devices()[0]
    return {
        "seqjax": seqjax.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": platform.platform(),
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        "git": git(HERE, "rev-parse", "HEAD"),
        "changed": bool(git(HERE, "status", "--porcelain", "--untracked-files=no")),
        "command": sys.argv,
    }


def resolved(config: Config) -> Config:
    """The config with the defaults of the layers' and the task's constructors filled in."""

    def filled(pattern: tuple[LayerConfig, ...]) -> tuple[LayerConfig, ...]:
        return tuple(
            LayerConfig(one.name, _filled(LAYERS[one.name].make.__init__, one.options))
            for one in pattern
        )

    task, model = config.task, config.model
    if task.name in TASKS:  # else it is an object
        task = replace(task, options=_filled(TASKS[task.name].make, task.options))
    model = replace(model, layer=filled(model.layer), encoder=filled(model.encoder))
    return replace(config, task=task, model=model)


def write_config(
    folder: Path,
    config: Config,
    data: str = "",
    size: Mapping[str, float] = MappingProxyType({}),
    origin: Mapping[str, str] = MappingProxyType({}),
    objects: Sequence[str] = (),
) -> Config | None:
    """Save what the run is, or check that the folder holds the same run; its config so far.

    data: their fingerprint, `Task.fingerprint`.
    size: how large the model is, `seqjax.stacks.summary.Size`.
    origin: path and sha256 of its first numbers, if they are not drawn.
    objects: what was given as an object, and is in no config: "task", "optimiser".
    Raises ValueError naming the fields in which it is another one, and if the data have changed.
    """
    config, stored = resolved(config), None
    if (folder / "config.json").exists():
        stored, strange = _read(folder)
        if strange:
            raise ValueError(f"{folder} is a run of another version: {', '.join(strange)} unknown")
        now, before = fields(config), fields(stored)
        differ = [name for name in now
                  if now[name] != before[name] and name.partition(".")[2] not in FREE]  # fmt: skip
        differ += ["from"] if read_from(folder) != dict(origin) else []
        differ += sorted(set(read_objects(folder)) ^ set(objects))
        if differ:
            raise ValueError(
                f"{folder} holds another run, which differs in {', '.join(differ)}: "
                "give the same to go on with it, or a new folder, to which its model goes with "
                f"--from {folder}"
            )
        if read_data(folder) not in ("", data):
            raise ValueError(
                f"the data of {folder} have changed since the run began: "
                "put them back to go on with it, or give a new folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    own = sources(json.dumps(asdict(config)))
    keep(own, folder)
    content = {"config": asdict(config), "data": data, "size": dict(size)}
    content |= {"from": dict(origin)} if origin else {}
    content |= {"objects": list(objects)} if objects else {}
    content |= {"own": [one.record for one in own]} if own else {}
    content["environment"] = environment()
    write_atomically(folder / "config.json", json.dumps(content, indent=2) + "\n")
    return stored


def read_config(folder: Path) -> Config:
    """The config of the run in `folder`; fields of another version are a warning.

    The modules that the run was trained with are brought again (`seqjax.train.sources`).
    """
    config, strange = _read(folder)
    recall(_json(folder).get("own", []), Path(folder))
    if strange:
        warnings.warn(
            f"{folder} is a run of another version: {', '.join(strange)} unknown, and ignored",
            Notice,
            stacklevel=2,
        )
    return config


def read_data(folder: Path) -> str:
    """The fingerprint of the data the run began with; empty if it has none."""
    return _json(folder).get("data", "")


def read_from(folder: Path) -> dict[str, str]:
    """Path and sha256 of the numbers the run began with; empty if they were drawn, or if there is
    no run."""
    return _json(folder).get("from", {}) if (folder / "config.json").exists() else {}


def read_objects(folder: Path) -> list[str]:
    """What the run was given as objects, and has to be given again: "task", "optimiser"."""
    return _json(folder).get("objects", [])


def _read(folder: Path) -> tuple[Config, list[str]]:
    """The config, and the fields that are unknown here, by name."""
    strange: list[str] = []
    path, stored = Path(folder) / "config.json", _json(folder)
    if not isinstance(stored.get("config"), dict):
        raise ValueError(f"{path} is not the config of a run")
    try:
        return from_dict(Config, stored["config"], unknown=strange), strange
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not the config of a run: {error}") from None


def _json(folder: Path) -> dict[str, Any]:
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not the folder of a run: it has no config.json")
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return stored if isinstance(stored, dict) else {}


def fields(config: Config) -> dict[str, str]:
    """section.field -> value as JSON."""
    return {
        f"{section}.{name}": json.dumps(value)
        for section, values in asdict(config).items() for name, value in values.items()
    }  # fmt: skip


def _filled(constructor: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    known = signature(constructor).parameters
    plain = (bool, int, float, str, tuple, list, dict, type(None))
    defaults = {name: p.default for name, p in known.items() if p.default is not p.empty}
    return {name: v for name, v in {**defaults, **options}.items() if isinstance(v, plain)}
