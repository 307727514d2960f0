"""A few small things that every floor needs."""

import ctypes
import platform
from collections.abc import Iterable
from difflib import get_close_matches

import jax
import jax.numpy as jnp


class Notice(UserWarning):
    """What somebody should know of their folder; a command shows it in one line and goes on."""


def accumulation_dtype(*dtypes):
    """The dtype sums and states are kept in: the common dtype given, and at least float32."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes, jnp.float32)


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that is in no table, with the nearest ones that are."""
    known = sorted(map(str, known))
    near = get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(known)})"


def keep_memory() -> None:
    """Let the process keep the memory it frees (glibc; elsewhere nothing happens).

    By default glibc takes every large buffer from the system and gives it back, and the system
    fills it page by page: half of the time of a training step on CPU, and more of a scan's.
    To be called before jax starts its threads.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # of <malloc.h>
    libc = ctypes.CDLL(None)
    libc.mallopt(arena_max, 1)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(top_pad, 2**28)
