"""What a sweep consists of: the configs of FILE.py, times a grid, times seeds.

    CONFIGS = {"gru": Config(...), "lstm": Config(...)}     by name, or a list of them
    SEEDS = 0, 1, 2                                         by default the seed of each config

or one CONFIG and a GRID of values for its fields, all with all:

    CONFIG = Config(...)
    GRID = {"model.layer": ("gru", "lstm"), "optimiser.learning_rate": (1e-3, 3e-3)}
"""

from __future__ import annotations

import itertools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from seqjax.core.common import Notice, unknown
from seqjax.core.ranges import Seed, check
from seqjax.stacks.config import LayerConfig, repeated, show_pattern
from seqjax.train.config import Config, check_config, fitted
from seqjax.train.record import FREE, fields as settings, read_config, resolved
from seqjax.train.sources import hash_of
from seqjax.zoo.own import bring

RESULT = "result.json"  # of a run that is finished
State = Literal["finished", "stopped", "waiting"]


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str  # of its config
    config: Config
    folder: Path

    @property
    def title(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder.parent / f"{self.title}.log"


def plan(file: Path, run: Path) -> list[Job]:
    """Raises ValueError for a file without configs, and the first config that cannot run."""
    module = bring(file)
    configs = {name: _checked(name, c, file) for name, c in _configs(module, file).items()}
    seeds = getattr(module, "SEEDS", None)
    if seeds is not None and (isinstance(seeds, str) or not isinstance(seeds, Iterable)):
        raise ValueError(f"{file}: SEEDS must be numbers, as 0, 1, 2, got {seeds!r:.60}")
    jobs = []
    for name, config in configs.items():
        for seed in (config.train.seed,) if seeds is None else seeds:
            check(seed, Seed, f"{file}: a seed of SEEDS")
            one = replace(config, train=replace(config.train, seed=int(seed)))
            jobs.append(Job(name, one, run / f"{_file_name(name)}-{seed}"))
    folders = [job.folder for job in jobs]
    if len(set(folders)) < len(folders) or not folders:
        twice = next((f.name for f in folders if folders.count(f) > 1), "")
        what = f"two runs named {twice}" if twice else "no runs"
        raise ValueError(f"{file} defines {what}: seeds and names of CONFIGS must differ")
    return jobs


def _checked(name: str, config: Config, file: Path) -> Config:
    try:
        check_config(config)
        return fitted(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {name}: {error}") from None


def _configs(module: ModuleType, file: Path) -> dict[str, Config]:
    given, grid = getattr(module, "CONFIGS", None), getattr(module, "GRID", {})
    if given is None:
        given = {"": getattr(module, "CONFIG", None)}
    elif isinstance(given, Sequence) and not isinstance(given, str):
        given = {str(n): config for n, config in enumerate(given)}
    if not isinstance(given, Mapping) or not all(isinstance(c, Config) for c in given.values()):
        raise ValueError(
            f"{file} must define CONFIGS, configs by name or a list of them, or CONFIG, and may "
            "define GRID, SEEDS"
        )
    if not isinstance(grid, Mapping) or not all(isinstance(v, Sequence) and not isinstance(v, str)
                                                and v for v in grid.values()):  # fmt: skip
        raise ValueError(f"{file}: GRID must be fields with the values of each, as "
                         '{"model.features": (32, 64)}')  # fmt: skip
    found = {}
    for name, config in given.items():
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            one: Any = config
            for field, value in chosen.items():
                one = with_field(one, field, value)
            shown = [f"{field.rpartition('.')[2]}={_shown(v)}" for field, v in chosen.items()]
            found[",".join(filter(None, [str(name), *shown])) or file.stem] = one
    return found


def with_field(config: Config, name: str, value: Any) -> Config:
    """The config with "section.field" set; layers may be given by name."""
    section, _, field = name.partition(".")
    known = [f"{s.name}.{f.name}" for s in fields(config) for f in fields(getattr(config, s.name))]
    if name not in known:
        raise ValueError(unknown("field of GRID:", name, known))
    if field in ("layer", "encoder"):
        value = (value,) if isinstance(value, str | LayerConfig) else value
        value = repeated(tuple(LayerConfig(one) if isinstance(one, str) else one for one in value))
    return replace(config, **{section: replace(getattr(config, section), **{field: value})})


def state(job: Job) -> State:
    """Raises ValueError if its folder holds a run of another config."""
    if not (job.folder / "config.json").exists():
        return "waiting"
    with quiet():
        now, before = map(settings, (resolved(job.config), read_config(job.folder)))
    differ = [name for name in now if now[name] != before.get(name)]
    if other := [name for name in differ if name.partition(".")[2] not in FREE]:
        raise ValueError(f"{job.folder} holds another run, which differs in {', '.join(other)}: "
                         "give a new folder, --run")  # fmt: skip
    return "finished" if not differ and (job.folder / RESULT).exists() else "stopped"


def changed_since(job: Job, file: Path) -> bool:
    """Whether the file of the sweep is another one than when the run began."""
    path = job.folder / "config.json"
    kept = json.loads(path.read_text()).get("own", []) if path.exists() else []
    hashes = {one["name"]: one["sha256"] for one in kept}
    return hashes.get(str(file.resolve()), hash_of(file.read_text())) != hash_of(file.read_text())


@contextmanager
def quiet() -> Iterator[None]:
    """Runs of a sweep are many, and what is to be noticed of them is one: their file changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        yield


def _shown(value: Any) -> str:
    each = value if isinstance(value, tuple | list) else (value,)
    words = [show_pattern((v,)) if isinstance(v, LayerConfig) else [str(v)] for v in each]
    return "+".join(itertools.chain(*words))


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.,=+-]+", "_", name)
