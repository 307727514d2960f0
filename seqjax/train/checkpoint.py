"""Checkpoints: what a run needs to go on as if it had not been stopped.

    checkpoints/<step>/     state        every array of the training state, by name (orbax)
                            extra        the position in the data, the best score, ... (JSON)
                            SHA256SUMS   the seal: hashes of all files, as `sha256sum -c` reads it
    checkpoints/lock        held by the process that trains

A step is written and sealed as `<step>.seqjax-partial` and then renamed, and renamed to
`<step>.seqjax-removed` before it is removed. So a process that is killed while it saves leaves the
step before, and damage is found before anything is read. What goes by these two names is ours to
remove, and nothing else in the folder: a step whose seal is gone is an error, and any other name,
as `30-good`, is left alone.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fcntl import LOCK_EX, LOCK_NB, flock
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from seqjax.core.files import write_atomically

SEAL = "SHA256SUMS"
PARTIAL, REMOVED = ".seqjax-partial", ".seqjax-removed"
STEP = re.compile("0|[1-9][0-9]*")
OURS = re.compile(rf"({STEP.pattern})(\{PARTIAL}(\.orbax-checkpoint-tmp.*)?|\{REMOVED})")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or is of something else."""


class Checkpoints:
    """The checkpoints in `folder`: the `keep` latest ones, those of the steps `best` and `back`.

    back: one that a run goes back to from a bad step. A signal may save at any step, and where a
    run goes back to must not depend on signals.
    """

    def __init__(self, folder: Path, keep: int = 2, *, read_only: bool = False):
        if keep < 1:
            raise ValueError(f"at least one checkpoint is kept, got max_to_keep={keep}")
        self.folder, self.keep, self.best = Path(folder).absolute(), keep, 0.0
        self.back: int | None = None
        self.orbax = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        self.writer, self.written = ThreadPoolExecutor(1), Future()
        self.written.set_result(None)
        self.read_only, self.lock = read_only, None
        if not read_only:
            self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Checkpoints:
        if not self.read_only:
            self.lock = _lock(self.folder / "lock")
            self._clear()
            if unsealed := self.unsealed():
                self.__exit__()
                raise CheckpointError(self._no_seal(unsealed[-1]))
        return self

    def __exit__(self, *_) -> None:
        """Wait until everything is on disk."""
        self.writer.shutdown()
        self.orbax.close()
        if self.lock:
            self.lock.close()
        self.written.result()  # or what went wrong in writing

    def steps(self) -> list[int]:
        """The steps that are complete."""
        self.written.result()
        return self._numbers(sealed=True)

    def unsealed(self) -> list[int]:
        """What goes by the name of a step and has no seal: a copy without it, or not a step."""
        return self._numbers(sealed=False)

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Copy the arrays of `state` now, write them in the background. `extra` is JSON."""
        # A copy of our own: the next training step reuses the memory of these arrays.
        arrays = {name: np.array(leaf) for name, leaf in _named(state).items() if leaf.size}
        kept = sorted({*self.steps(), step})
        old = [n for n in kept[: -self.keep] if n not in (self.best, self.back)]
        self.written = self.writer.submit(self._write, step, arrays, extra, old)

    def read(self, step: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays of a step, by name, and its extra; of the last step if none is named."""
        steps = self.steps()
        last = max([*steps, *self.unsealed()], default=None)
        step = last if step is None else step
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        if step in self.unsealed():
            raise CheckpointError(self._no_seal(step))
        if step not in steps:
            raise ValueError(f"step must be of a checkpoint in {self.folder}, {steps}, got {step}")
        damage = _damage(self.folder / str(step))
        if damage:
            older = (s for s in reversed(steps) if s < step and not _damage(self.folder / str(s)))
            last = next(older, None)
            advice = (
                "no older step is complete"
                if last is None
                else f"the last complete step is {last}; remove {self.folder / str(step)} to go on "
                "from there"
            )
            raise CheckpointError(f"the checkpoint file {damage} is damaged: {advice}")
        folder = self.folder / str(step)
        items: dict[str, Any] = {"extra": ocp.args.JsonRestore()}
        if (folder / "state").is_dir():
            items["state"] = ocp.args.StandardRestore()
        found = self.orbax.restore(folder, args=ocp.args.Composite(**items))
        arrays = found["state"] if "state" in items else {}
        return {name: np.asarray(array) for name, array in arrays.items()}, found["extra"]

    def restore(
        self, like: Any, step: int | None = None, perhaps: Sequence[str] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """`read`, in the structure of `like`; of the parts in `perhaps` what there is."""
        arrays, extra = self.read(step)
        like_named = _named(like)
        lacks = {n for n in like_named if n.partition(".")[0] in perhaps and n not in arrays}
        differ = [
            name for name, leaf in like_named.items()
            if leaf.size and name not in lacks
            and (name not in arrays or _kind(arrays[name]) != _kind(leaf))
        ]  # fmt: skip
        parts = {name.partition(".")[0] for name in like_named}  # of the state, perhaps not all
        differ += [n for n in arrays if n not in like_named and n.partition(".")[0] in parts]
        if differ:
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of another model: it differs in "
                f"{len(differ)} arrays: {', '.join(differ[:5])}"
            )
        # Copies: these arrays will be donated, and must not share memory with numpy's.
        leaves = [jnp.array(arrays.get(name, leaf)) for name, leaf in like_named.items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), extra

    def go_back(
        self, like: Any, to: int, perhaps: Sequence[str] = ()
    ) -> tuple[Any, dict[str, Any]]:
        """`restore` of step `to`; those after it are removed, they are of no run any more."""
        steps = self.steps()
        found = max((step for step in steps if step <= to), default=steps[-1])
        restored = self.restore(like, found, perhaps)
        for step in reversed(steps):
            if step > found:
                self._remove(step)
        return restored

    def _write(self, step: int, arrays: dict, extra: dict[str, Any], old: list[int]) -> None:
        final, folder = self.folder / str(step), self.folder / f"{step}{PARTIAL}"
        items: dict[str, Any] = {"extra": ocp.args.JsonSave(extra)}
        if arrays:  # orbax has no empty items
            items["state"] = ocp.args.StandardSave(arrays)
        self.orbax.save(folder, args=ocp.args.Composite(**items))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lines = [f"{_hash(path)}  {path.relative_to(folder)}\n" for path in files]
        write_atomically(folder / SEAL, "".join(lines))
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
        return (
            f"{self.folder / str(step)} has no seal, the file {SEAL}: it may not be complete. Put "
            f"the seal back, or move the folder away; the complete steps are {self.steps()}"
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


def _lock(path: Path) -> IO:
    """`path`, open and locked until it is closed or the process ends, however it ends."""
    file = path.open("w")
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        file.close()
        raise CheckpointError(f"another process is training in {path.parent.parent}") from None
    return file


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _kind(array: Any) -> tuple:
    return array.shape, array.dtype


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
