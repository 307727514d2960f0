"""What the arguments of an op must be: axes by their letters, flags, numbers, states; or one error.

Letters in shapes as in `seqjax.ops.op`: B batch, T time, H heads, K key, V value, D channels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.common import accumulation_dtype


def match(
    op: str, known: Mapping[str, int] | None = None, /, **arrays: tuple[Any, str]
) -> dict[str, int]:
    """The size of each letter, or one error that names the array that disagrees.

    An array whose letters end in "?" may be None.
    """
    sizes = dict(known or {})
    for name, (x, letters) in arrays.items():
        optional, letters = letters.endswith("?"), letters.removesuffix("?")
        if not hasattr(x, "dtype"):
            if optional and x is None:
                continue
            expected = ", ".join(letters)
            raise TypeError(f"{op}: {name} is {x!r:.40}, expected an array ({expected})")
        if not is_float(x):
            raise TypeError(f"{op}: {name} has dtype {x.dtype}, expected floating point")
        want = [sizes.get(letter, letter) for letter in letters]
        if len(want) != x.ndim or any(w not in (n, s) for w, n, s in zip(want, x.shape, letters)):
            expected = ", ".join(f"{s}={w}" if w != s else s for w, s in zip(want, letters))
            raise ValueError(f"{op}: {name} has shape {x.shape}, expected ({expected})")
        sizes.update(zip(letters, x.shape))
    return sizes


def check_real(op: str, **arrays: Any) -> None:
    """What is ordered or exponentiated as a logarithm is real, or one error names it."""
    for name, x in arrays.items():
        if x is not None and jnp.iscomplexobj(x):
            raise TypeError(f"{op}: {name} has dtype {x.dtype}, expected real numbers")


def narrowed(y: Array, dtype: Any) -> Array:
    """Outputs in the dtype of the inputs; complex ones, whatever made them so, stay complex."""
    return y if jnp.iscomplexobj(y) else y.astype(dtype)


def batch_letter(op: str, letters: str, **array: Array) -> str:
    """B if the array has an axis more than `letters`, which then are without it; else nothing."""
    ((name, x),) = array.items()
    if not hasattr(x, "dtype"):
        match(op, **{name: (x, f"B{letters}")})
    return "B" if x.ndim == len(letters) + 1 else ""


def check_number(what: str, x: Any) -> None:
    """A factor is one real number (or a scalar array), never None: nothing is filled in for it."""
    shape = getattr(x, "shape", None)
    real = isinstance(x, int | float) if shape is None else shape == () and jnp.isrealobj(x)
    if not real or isinstance(x, bool):
        got = f"{x!r:.40}" if shape is None else f"an array of shape {shape}"
        raise TypeError(f"{what} is {got}, expected one real number")


def state_parts(what: str, state: Any, names: Sequence[str]) -> Any:
    """The parts of a state that is a tuple, or one error if it is none of so many."""
    if not isinstance(state, tuple | list) or len(state) != len(names):
        shapes = jax.tree.map(np.shape, state)
        raise TypeError(f"{what} is {shapes}, expected ({', '.join(names)})")
    return state


def check_flags(what: str, flags: Array | None, shape: tuple[int, ...]) -> None:
    """Flags over time are bool and have exactly the leading axes of the inputs."""
    if flags is None:
        return
    if getattr(flags, "dtype", None) != jnp.bool_:
        kind = getattr(flags, "dtype", type(flags).__name__)
        raise TypeError(f"{what} has dtype {kind}, expected bool")
    if flags.shape != shape:
        raise ValueError(f"{what} has shape {flags.shape}, expected {shape}")


def full_state(
    what: str, state: Array | None, letters: str, sizes: Mapping[str, int], dtype: Any
) -> Array:
    """The state given, or zeros; a batch shares a state that has no batch axis."""
    shape = tuple(sizes[letter] for letter in letters)
    if state is None:
        return jnp.zeros(shape, accumulation_dtype(dtype))
    op, name = what.split(": ")
    match(op, sizes, **{name: (state, letters[-getattr(state, "ndim", 0) :])})
    return jnp.broadcast_to(state, shape)


def full_states(
    op: str,
    state: Array | None,
    start: Array | None,
    letters: str,
    sizes: Mapping[str, int],
    dtype: Any,
) -> tuple[Array, Array | None]:
    """The state to start from, zeros if none is given, and the one resets go to, None if not."""
    first = full_state(f"{op}: state", state, letters, sizes, dtype)
    if start is None:
        return first, None
    return first, full_state(f"{op}: start", start, letters, sizes, dtype)


def with_fill(function: Callable[[Array, Any], Array], xs: Any, fill: Any) -> Any:
    """function(x, fill of x) for every array of xs; an input that is None stays None."""
    return type(fill)(*(x if x is None else function(x, f) for x, f in zip(xs, fill)))


def like(flags: Array, x: Array) -> Array:
    """Flags [B?, T] given the rank of x [B?, T, ...]."""
    return flags.reshape(flags.shape + (1,) * (x.ndim - flags.ndim))


def is_array(x: Any) -> bool:
    return hasattr(x, "dtype")


def is_float(x: Any) -> bool:
    return is_array(x) and jnp.issubdtype(x.dtype, jnp.inexact)
