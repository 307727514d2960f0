"""Checkpoints: what a run needs to go on as if it had not been stopped.

    checkpoints/<step>/     state        every array of the training state, by name (orbax)
                            extra        the position in the data, the best score, ... (JSON)
                            SHA256SUMS   the seal: hashes of all files, as `sha256sum -c` reads it
    checkpoints/lock        held by the process that trains

A step is written under another name, renamed when complete, and sealed last; a step without a seal
is none. So a process that is killed while it saves leaves the step before, and damage is found
before anything is read.
"""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from fcntl import LOCK_EX, LOCK_NB, flock
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

SEAL = "SHA256SUMS"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or is of something else."""


class Checkpoints:
    """The checkpoints in `folder`: the `keep` latest ones, and that of step `best`."""

    def __init__(self, folder: Path, keep: int = 2, *, read_only: bool = False):
        if keep < 1:
            raise ValueError(f"at least one checkpoint is kept, got max_to_keep={keep}")
        self.folder, self.keep, self.best = Path(folder).absolute(), keep, None
        self.orbax = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
        self.writer, self.written = ThreadPoolExecutor(1), Future()
        self.written.set_result(None)
        self.read_only, self.lock = read_only, None
        if not read_only:
            self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Checkpoints:
        if not self.read_only:
            self.lock = _lock(self.folder / "lock")
            for step in self.folder.iterdir():
                if step.is_dir() and not (step / SEAL).exists():  # what a killed process wrote
                    shutil.rmtree(step)
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
        return sorted(int(seal.parent.name) for seal in self.folder.glob(f"*/{SEAL}"))

    def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
        """Copy the arrays of `state` now, write them in the background. `extra` is JSON."""
        # A copy of our own: the next training step reuses the memory of these arrays.
        arrays = {name: np.array(leaf) for name, leaf in _named(state).items() if leaf.size}
        kept = [*self.steps(), step]
        old = [n for n in kept[: -self.keep] if n != self.best]
        self.written = self.writer.submit(self._write, step, arrays, extra, old)

    def read(self, step: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays of a step, by name, and its extra; of the last step if none is said."""
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise CheckpointError(f"no checkpoint of step {step} in {self.folder}: it has {steps}")
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
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), extra=ocp.args.JsonRestore())
        found = self.orbax.restore(self.folder / str(step), args=args)
        return {name: np.asarray(array) for name, array in found["state"].items()}, found["extra"]

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """`read`, in the structure of `like`."""
        arrays, extra = self.read(step)
        like_named = _named(like)
        differ = [
            name for name, leaf in like_named.items()
            if leaf.size and (name not in arrays or _kind(arrays[name]) != _kind(leaf))
        ]  # fmt: skip
        if differ:
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of another model: it differs in "
                f"{len(differ)} arrays: {', '.join(differ[:5])}"
            )
        # Copies: these arrays will be donated, and must not share memory with numpy's.
        leaves = [jnp.array(arrays.get(name, leaf)) for name, leaf in like_named.items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), extra

    def _write(self, step: int, arrays: dict, extra: dict[str, Any], old: list[int]) -> None:
        folder = self.folder / str(step)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), extra=ocp.args.JsonSave(extra)
        )
        self.orbax.save(folder, args=args)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lines = [f"{_hash(path)}  {path.relative_to(folder)}\n" for path in files]
        partial = folder / f"{SEAL}.partial"
        partial.write_text("".join(lines))
        partial.rename(folder / SEAL)
        for n in old:
            (self.folder / str(n) / SEAL).unlink()
            shutil.rmtree(self.folder / str(n))


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
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
