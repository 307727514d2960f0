"""Small things that every floor needs."""

import ctypes
import platform
import unicodedata
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


def largest(x: jax.Array, axis=None, *, initial=None, keepdims: bool = False) -> jax.Array:
    """The maximum of x over `axis`, NaN where one of its numbers is.

    `jnp.max` and `jnp.min` of XLA:CPU lose the NaNs of arrays of 4096 numbers or more
    (docs/upstream.md), so no maximum that a NaN must not pass may be taken by them.
    """
    top = jnp.max(x, axis=axis, initial=initial, keepdims=keepdims)
    lost = jnp.any(jnp.isnan(x), axis=axis, keepdims=keepdims)
    return jnp.where(lost, jnp.asarray(jnp.nan, top.dtype), top)


def predicted(scores: jax.Array) -> jax.Array:
    """int32: the place of the largest score on the last axis; -1, no place, where one is NaN."""
    place = jnp.argmax(scores, axis=-1).astype(jnp.int32)
    return jnp.where(jnp.any(jnp.isnan(scores), axis=-1), -1, place)


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for a name that is in no table, with the nearest ones that are; with all of
    them, where they are few or none is near."""
    known = sorted(map(str, known))
    near = get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    if near and len(known) > 12:
        return f"unknown {kind} {name!r}{hint} ({len(known)} are known)"
    return f"unknown {kind} {name!r}{hint} (known: {', '.join(known)})"


def printable(text: object, keep: str = "\n\t") -> str:
    """The text with control characters as escapes, for a terminal: what comes from a file (names,
    messages about it, bytes that a model writes) must not move the cursor or forge a line.

    keep: the control characters that stay as they are; "" for a name, which is on one line.
    """
    # C0, C1 and DEL; formats, such as those that turn the direction; lone surrogates; separators
    return "".join(
        c.encode("unicode_escape").decode()
        if c not in keep and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else c
        for c in str(text)
    )


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
