"""Checkpoints: what a run needs to go on as if it had not been stopped.

    checkpoints/<step>/     state        every array of the training state, by name (orbax)
                            extra        the position in the data, the best score, ... (JSON)
                            SHA256SUMS   the seal: hashes of all files, as `sha256sum -c` reads it
    checkpoints/lock        held by the processes that train

A step is written and sealed as `<step>.seqjax-partial` and then renamed, and renamed to
`<step>.seqjax-removed` before it is removed. So a process that is killed while it saves, or a disk
that is full, leaves the steps before, and damage is found before anything is read. What goes by
these two names is ours to remove, and nothing else in the folder: a step whose seal is gone is an
error, and any other name, as `30-good`, is left alone.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from functools import partial
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from seqjax.core.files import write_atomically
from seqjax.train.layout import placed
from seqjax.train.processes import barrier, first, leads, several

FORMAT = 1  # those before had no number
SEAL = "SHA256SUMS"
PARTIAL, REMOVED = ".seqjax-partial", ".seqjax-removed"
STEP = re.compile("0|[1-9][0-9]*")
OURS = re.compile(rf"({STEP.pattern})(\{PARTIAL}(\.orbax-checkpoint-tmp.*)?|\{REMOVED})")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or is of something else."""


class Checkpoints:
    """The checkpoints in `folder`: the `keep` latest ones, those of the steps `best` and `back`,
    and those of every multiple of `every` steps.

    back: one that a run goes back to from a bad step. A signal may save at any step, and where a
    run goes back to must not depend on signals.
    """

    def __init__(
        self, folder: Path, keep: int = 2, every: int | None = None, *, read_only: bool = False
    ):
        if keep < 1:
            raise ValueError(f"at least one checkpoint is kept, got max_to_keep={keep}")
        self.folder, self.keep, self.every = Path(folder).absolute(), keep, every
        self.best: float | None = None
        self.back: int | None = None
        self.orbax = _orbax(together=False)  # reads what this process needs
        self.together = several() and not read_only
        self.writes = _orbax(together=True) if self.together else self.orbax
        self.writer, self.written = ThreadPoolExecutor(1), Future()
        self.written.set_result(None)
        self.read_only, self.lock = read_only, None

    def __enter__(self) -> Checkpoints:
        if not self.read_only:
            first(self._begin)
            if self.together and not leads():
                self.lock = _lock(self.folder / "lock", LOCK_SH)
        return self

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = _lock(self.folder / "lock")
        self._clear()
        if unsealed := self.unsealed():
            self.__exit__(CheckpointError)
            raise CheckpointError(self._no_seal(unsealed[-1]))
        if self.together:  # the others hold it as well: it is free when all of them have ended
            flock(self.lock, LOCK_SH)

    def __exit__(self, kind: type[BaseException] | None = None, *_) -> None:
        """Wait until everything is on disk."""
        self.writer.shutdown()
        if self.together and kind is None and self.written.exception() is None:
            barrier()  # the first one has sealed it
        self.orbax.close()
        self.writes.close()
        if self.lock:
            self.lock.close()
        self.written.result()  # or what went wrong in writing

    def check(self) -> None:
        """Raise CheckpointError if what was written last could not be."""
        if self.written.done():
            self.written.result()

    def steps(self) -> list[int]:
        """The steps that are complete."""
        self.written.result()
        found = partial(self._numbers, sealed=True)
        return first(found) if self.together else found()

    def unsealed(self) -> list[int]:
        """What goes by the name of a step and has no seal: a copy without it, or not a step."""
        return self._numbers(sealed=False)

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Copy the arrays of `state` now, write them in the background. `extra` is JSON."""
        # A copy of our own: the next training step reuses the memory of these arrays.
        arrays = {name: _copy(leaf) for name, leaf in _named(state).items() if leaf.size}
        self.written.result()
        kept = sorted({*self._numbers(sealed=True), step})
        old = [n for n in kept[: -self.keep] if not self.stays(n)]
        self.written = self.writer.submit(self._write, step, arrays, extra, old)

    def stays(self, step: int) -> bool:
        """Whether it is kept although there are newer ones."""
        regular = step > 0 and self.every is not None and step % self.every == 0
        return regular or step in (self.best, self.back)

    def read(self, step: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays of a step, by name, and its extra; of the last step if none is named."""
        step = self._whole(step)
        arrays = self._arrays(step, self.arrays(step))
        return {name: np.asarray(array) for name, array in arrays.items()}, self._extra(step)

    def _whole(self, step: int | None) -> int:
        """The number of a step that can be read. Raises CheckpointError."""
        self.written.result()
        steps = self._numbers(sealed=True)
        last = max([*steps, *self.unsealed()], default=None)
        step = last if step is None else step
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        if step in self.unsealed():
            raise CheckpointError(self._no_seal(step))
        if step not in steps:
            raise ValueError(f"step must be of a checkpoint in {self.folder}, {steps}, got {step}")
        if fault := self.fault(step):
            older = next((s for s in reversed(steps) if s < step and not self.fault(s)), None)
            raise CheckpointError(f"{fault}: {self._advice(step, older)}")
        return step

    def _arrays(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Those that were saved, whole, or as `like` has their shardings."""
        if not like:
            return {}

        def target(array: Any) -> Any:
            if getattr(array, "sharding", None) is None:  # of numpy, and costs no memory
                return np.broadcast_to(np.zeros((), array.dtype), array.shape)
            return array

        wanted = ocp.args.StandardRestore({name: target(array) for name, array in like.items()})
        args = ocp.args.Composite(state=wanted)
        return self.orbax.restore(self.folder / str(step), args=args)["state"]

    def _extra(self, step: int) -> dict[str, Any]:
        return {name: value for name, value in self.extra(step).items() if name != "format"}

    def fault(self, step: int) -> str | None:
        """Why a step cannot be read; None if it can, every byte of it was looked at."""
        folder = self.folder / str(step)
        if not (folder / SEAL).exists():
            return f"{folder} has no seal, the file {SEAL}"
        if damage := _damage(folder):
            return f"the checkpoint file {damage} is damaged"
        try:
            form = self.extra(step).get("format", 0)
        except Exception:  # orbax has one of its own for each thing that it misses
            return f"{folder} is not a checkpoint of seqjax"
        known = isinstance(form, int) and form <= FORMAT
        return None if known else f"{folder} has format {form}, and this version knows {FORMAT}"

    def extra(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays."""
        args = ocp.args.Composite(extra=ocp.args.JsonRestore())
        return self.orbax.restore(self.folder / str(step), args=args)["extra"]

    def arrays(self, step: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of what was saved, by name."""
        found: Any = self.orbax.metadata(self.folder / str(step)).item_metadata
        tree = found["state"].tree if found and found.get("state") else {}
        return {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in tree.items()}

    def _advice(self, step: int, older: int | None) -> str:
        if older is None:
            return "no older step is complete"
        folder = self.folder / str(step)
        return f"the last complete step is {older}; remove {folder} to go on from there"

    def restore(
        self, like: Any, step: int | None = None, perhaps: Sequence[str] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """`read`, in the structure of `like`, whose dtypes floats are cast to; of the parts in
        `perhaps` what there is."""
        step = first(partial(self._whole, step)) if self.together else self._whole(step)
        arrays, like_named = self.arrays(step), _named(like)
        lacks = {n for n in like_named if n.partition(".")[0] in perhaps and n not in arrays}
        differ = [
            name for name, leaf in like_named.items()
            if leaf.size and name not in lacks
            and (name not in arrays or not _casts(arrays[name], leaf))
        ]  # fmt: skip
        parts = {name.partition(".")[0] for name in like_named}  # of the state, perhaps not all
        differ += [n for n in arrays if n not in like_named and n.partition(".")[0] in parts]
        if differ:
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of another model: it differs in "
                f"{len(differ)} arrays: {', '.join(differ[:5])}"
            )
        split = {
            name: jax.ShapeDtypeStruct(v.shape, arrays[name].dtype, sharding=v.sharding)
            for name, v in like_named.items() if name in arrays and not _here(v)
        }  # fmt: skip
        found = self._arrays(step, arrays | split)
        # Copies: these arrays will be donated, and must not share memory with numpy's.
        leaves = [
            found[name].astype(v.dtype) if name in split else
            v if name not in found and not _here(v) else
            placed(np.asarray(found.get(name, v), v.dtype), v)
            for name, v in like_named.items()
        ]  # fmt: skip
        return jax.tree.unflatten(jax.tree.structure(like), leaves), self._extra(step)

    def go_back(
        self, like: Any, to: int, perhaps: Sequence[str] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """`restore` of step `to`; those after it are removed, they are of no run any more."""
        steps = self.steps()
        found = max((step for step in steps if step <= to), default=steps[-1])
        restored = self.restore(like, found, perhaps)
        for step in reversed(steps):
            if step > found and leads():
                self._remove(step)
        return restored

    def _write(self, step: int, arrays: dict, extra: dict[str, Any], old: list[int]) -> None:
        final, folder = self.folder / str(step), self.folder / f"{step}{PARTIAL}"
        items: dict[str, Any] = {"extra": ocp.args.JsonSave({**extra, "format": FORMAT})}
        if arrays:  # orbax has no empty items
            items["state"] = ocp.args.StandardSave(arrays)
        try:
            with _quiet():
                self.writes.save(folder, args=ocp.args.Composite(**items))
            if not leads():
                return
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            lines = [f"{_hash(path)}  {path.relative_to(folder)}\n" for path in files]
            write_atomically(folder / SEAL, "".join(lines))
        except Exception as error:  # of orbax too: it has ValueErrors of a full disk
            if self.together and isinstance(error, jax.errors.JaxRuntimeError):
                raise  # it waited for another process, which has ended
            for left in self.folder.glob(f"{step}{PARTIAL}*") if leads() else ():  # make room
                shutil.rmtree(left, ignore_errors=True)
            kept = max(self._numbers(sealed=True), default=None)
            last = "no step is complete" if kept is None else f"the last complete step is {kept}"
            raise CheckpointError(
                f"step {step} could not be saved in {self.folder}: {_reason(error)}; {last}, and "
                "the same command goes on from there"
            ) from error
        if final.exists():  # the same step again, with another extra
            self._remove(step)
        folder.rename(final)
        for n in old:
            self._remove(n)

    def _remove(self, step: int) -> None:
        removed = self.folder / f"{step}{REMOVED}"
        (self.folder / str(step)).rename(removed)
        shutil.rmtree(removed)

    def _clear(self) -> None:
        """Remove what a killed process left under our names, or finish it where it is complete."""
        for path in self.folder.iterdir():
            if not (ours := OURS.fullmatch(path.name)) or not path.is_dir():
                continue
            final = self.folder / ours[1]
            if (path / SEAL).exists() and path.name.endswith(PARTIAL) and not final.exists():
                path.rename(final)
            else:
                shutil.rmtree(path)

    def _numbers(self, *, sealed: bool) -> list[int]:
        found = self.folder.iterdir() if self.folder.exists() else ()
        steps = (path for path in found if STEP.fullmatch(path.name))
        return sorted(int(path.name) for path in steps if (path / SEAL).exists() == sealed)

    def _no_seal(self, step: int) -> str:
        complete = self._numbers(sealed=True)
        return (
            f"{self.folder / str(step)} has no seal, the file {SEAL}: it may not be complete. Put "
            f"the seal back, or move the folder away; the complete steps are {complete}"
        )


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of all arrays."""
    digest = sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _damage(folder: Path) -> Path | None:
    """The first file that is not as it was sealed."""
    lines = (folder / SEAL).read_text().splitlines()
    sealed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name, digest in sealed.items():
        if not (folder / name).is_file() or _hash(folder / name) != digest:
            return folder / name
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return None if files == {*sealed, SEAL} else folder / SEAL


def _orbax(*, together: bool) -> ocp.Checkpointer:
    """together: for all processes, which wait for each other without their devices: these are at
    work, and each in its order. Else for this one alone."""
    options = ocp.options.MultiprocessingOptions()
    if several():
        here, active = jax.process_index(), set(range(jax.process_count()))
        options = ocp.options.MultiprocessingOptions(
            primary_host=0 if together else here, active_processes=active if together else {here}
        )
    items: Any = {
        "state": ocp.StandardCheckpointHandler(multiprocessing_options=options),
        "extra": ocp.JsonCheckpointHandler(multiprocessing_options=options),
    }
    composite: Any = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options), **items
    )
    return ocp.Checkpointer(composite, multiprocessing_options=options)


def _here(array: Any) -> bool:
    """Whether this process has all of it."""
    return getattr(array, "is_fully_addressable", True)


def _copy(array: Any) -> Any:
    return np.array(array) if _here(array) else jnp.copy(array)


def _lock(path: Path, kind: int = LOCK_EX) -> IO:
    """`path`, open and locked until it is closed or the process ends, however it ends."""
    file = path.open("w")
    try:
        flock(file, kind | LOCK_NB)
    except BlockingIOError:
        file.close()
        raise CheckpointError(f"another process is training in {path.parent.parent}") from None
    return file


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _casts(saved: Any, like: Any) -> bool:
    """Whether one goes for the other: of the same dtype, or both floats."""
    floats = all(jnp.issubdtype(array.dtype, jnp.floating) for array in (saved, like))
    return saved.shape == like.shape and (floats or saved.dtype == like.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Each thread of orbax logs a page of where it failed; what failed is an error of ours."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _reason(error: Exception) -> str:
    """The error of the system, which may be hidden in a message of many lines."""
    number = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"os_error_code='(\d+)'", str(error)):
        number = int(found[1])
    return os.strerror(number) if number else str(error).partition("\n")[0]


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
