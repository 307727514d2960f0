"""Arrays as they are given, made a `Batch`: padded, checked, and their kinds inferred.

Letters: N rows, T steps, D dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqjax.answers import Answer, Classes, Features, Input, Tokens, Values
from seqjax.core.ranges import LARGEST
from seqjax.tasks.task import Batch, Spec

BYTES = Tokens(256)  # of texts


def as_batch(
    x: Any,
    y: Any = None,
    *,
    lengths: Any = None,
    mask: Any = None,
    dt: Any = None,
    inputs: Input | None = None,
    outputs: Answer | None = None,
) -> tuple[Batch, Spec]:
    """All rows as one batch, and what goes in and is answered.

    The arguments are those of `seqjax.tasks.from_arrays`.
    Raises ValueError, of one line, for what does not go together.
    """
    for kind, one, role in ((Input, inputs, "inputs"), (Answer, outputs, "outputs")):
        if not isinstance(one, kind | None):
            raise ValueError(f"{role} must be of seqjax.answers, got {one!r:.60}")
    x, ragged, texts = _rows(x, "x")
    if x.ndim < 2 or not x.size:
        raise ValueError(
            f"x must be [N, T] or [N, T, D], got {list(x.shape)}; one long series is cut into rows"
        )
    n, t = x.shape[:2]
    ends = _lengths(ragged, lengths, n, t)
    present = np.arange(t) < ends[:, None]
    whole = present.all()
    x, inputs = _inputs(_where(present, x), inputs or (BYTES if texts else None))
    _check_finite(x, "x", "leave such steps out by lengths, or fill them")
    if dt is not None:
        dt = _where(present, _of_steps(dt, n, t, "dt"))
        if not (np.isfinite(dt).all() and dt.min() >= 0):
            raise ValueError("dt must be the time since the step before, finite and not below 0")
    mask = None if mask is None else _rows(mask, "mask")[0]
    if y is None:
        if ends.min() < 2:
            raise ValueError(f"row {ends.argmin()} of x has one step, and none to answer: give y")
        outputs = outputs or _next(inputs)
        y, x, present = x[:, 1:], x[:, :-1], present[:, 1:]
        dt = None if dt is None else dt[:, :-1]
        mask = mask if mask is None or mask.ndim < 2 else mask[:, 1:]
    else:
        y, ragged, texts = _rows(y, "y")
        if texts or y.dtype.kind not in "biuf":
            raise ValueError(
                "y must be numbers: np.unique(y, return_inverse=True)[1] are those of names"
            )
        if len(y) != n:
            raise ValueError(f"x has {n} rows, and y {len(y)}")
        if ragged is not None and (ragged != ends).any():
            row = np.flatnonzero(ragged != ends)[0]
            raise ValueError(f"row {row} has {ends[row]} steps in x, and {ragged[row]} in y")
        counted = y
        for counts in (present, mask):
            if counts is not None and counts.shape == y.shape[: counts.ndim]:
                counted = _where(counts > 0, counted)
        outputs = outputs or _answer(counted, t, ragged is not None)
    weights = _weights(mask, present, outputs)
    y = _targets(y, weights, outputs)
    batch = Batch(x, y, weights, present=None if whole else present, dt=dt)
    return batch, Spec(inputs, outputs, dt is not None)


def _rows(values: Any, name: str) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Rows as one array, filled up with zeros; their lengths, where these differ; whether they are
    texts."""
    if not isinstance(values, list | tuple):
        kind, values = type(values).__name__, np.asarray(values)
        if not values.ndim:
            raise ValueError(f"{name} must be an array or a list of rows, got {kind}")
        if values.dtype.kind not in "OUS":
            return values, None, False
    rows = [
        np.frombuffer(row.encode() if isinstance(row, str) else row, np.uint8)
        if isinstance(row, str | bytes)
        else np.asarray(row)
        for row in values
    ]
    texts = [isinstance(row, str | bytes) for row in values]
    if any(texts) and not all(texts):
        raise ValueError(f"{name} must be texts or numbers, got both")
    texts = any(texts)
    if len({row.shape for row in rows}) == 1:
        return np.stack(rows), None, texts
    if len({row.shape[1:] if row.ndim else None for row in rows}) != 1 or not rows[0].ndim:
        found = ", ".join(str(list(row.shape)) for row in rows[:4]) or "none"
        raise ValueError(f"{name} must be rows that differ in length alone, got {found}")
    ends = np.array([len(row) for row in rows])
    filled = np.zeros((len(rows), ends.max(), *rows[0].shape[1:]), np.result_type(*rows))
    for out, row in zip(filled, rows):
        out[: len(row)] = row
    return filled, ends, texts


def _inputs(x: np.ndarray, inputs: Input | None) -> tuple[np.ndarray, Input]:
    if x.dtype.kind not in "biuf":
        raise ValueError(f"x must be whole numbers, floats or texts, got {x.dtype}")
    if inputs is None and x.dtype.kind == "f":
        inputs = Features(*x.shape[2:] or (1,))
    if inputs is None:
        inputs = Tokens(min(max(int(x.max()), 0) + 1, LARGEST))
    whole = not issubclass(inputs.dtype, np.inexact)
    if inputs.shape == (1,) and x.ndim == 2:
        x = x[..., None]
    if not in_steps(inputs) or x.shape[2:] != inputs.shape or (whole and x.dtype.kind == "f"):
        raise ValueError(
            f"x must be tokens, whole numbers [N, T], or features, floats [N, T, ...], "
            f"got {x.dtype} {list(x.shape)} for {inputs}"
        )
    _check_range(x, inputs.bound, "x", inputs)
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and named
        return x.astype(inputs.dtype), inputs


def in_steps(inputs: Input) -> bool:
    """Whether there is an input for each step, and nothing beside."""
    return inputs.pair[0] is None and inputs.axes == ("B", "T")


def _lengths(ragged: np.ndarray | None, lengths: Any, n: int, t: int) -> np.ndarray:
    if lengths is None:
        ends = np.full(n, t) if ragged is None else ragged
    else:
        ends = np.asarray(lengths)
        if ends.shape != (n,) or ends.dtype.kind not in "iu" or ragged is not None:
            raise ValueError(
                f"lengths must be whole numbers [{n}], beside rows that are filled up, "
                f"got {ends.dtype} {list(ends.shape)}"
            )
    if ends.min() < 1 or ends.max() > t:
        row = np.flatnonzero((ends < 1) | (ends > t))[0]
        raise ValueError(f"row {row} of x must have 1 to {t} steps, got {ends[row]}")
    return ends


def _of_steps(values: Any, n: int, t: int, name: str) -> np.ndarray:
    found = _rows(values, name)[0]
    if found.shape != (n, t) or found.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be numbers [{n}, {t}], got {found.dtype} {list(found.shape)}"
        )
    return found.astype(np.float32)


def _next(inputs: Input) -> Answer:
    """The answer that is the next input."""
    if inputs.bound is not None:
        return Classes(inputs.bound, per_step=True)
    if len(inputs.shape) == 1:
        return Values(*inputs.shape, per_step=True)
    raise ValueError(f"y must be given for {inputs}: only tokens and vectors are their own answers")


def _answer(y: np.ndarray, t: int, ragged: bool) -> Answer:
    if y.dtype.kind != "f" and (y.ndim == 1 or (y.ndim == 2 and y.shape[1] == t)):
        return Classes(max(int(y.max()), 0) + 1, per_step=y.ndim == 2)
    if y.dtype.kind == "f" and y.ndim == 2 and y.shape[1] == t and not ragged and t > 1:
        raise ValueError(
            f"y {list(y.shape)} may be one value for each of {t} steps, then write y[..., None], "
            f"or {t} for each row, then outputs=Values({t}, per_step=False)"
        )
    if y.dtype.kind == "f" and (y.ndim <= 2 or (y.ndim == 3 and y.shape[1] == t)):
        per_step = y.ndim == 3 or ragged
        return Values(1 if y.ndim == 1 or (ragged and y.ndim == 2) else y.shape[-1], per_step)
    raise ValueError(
        f"y must be classes [N] or [N, {t}], or values [N], [N, D] or [N, {t}, D], or outputs be "
        f"given, got {y.dtype} {list(y.shape)}"
    )


def _weights(mask: np.ndarray | None, present: np.ndarray, outputs: Answer) -> np.ndarray:
    """float32 [N, T] or [N]."""
    each = present if outputs.per_step and outputs.aligned else np.ones(len(present), bool)
    if mask is None:
        return each.astype(np.float32)
    fits = mask.shape == each.shape or (mask.shape == each.shape[:1])
    if not fits or mask.dtype.kind not in "biuf":
        raise ValueError(
            f"mask must be weights {list(each.shape)}, got {mask.dtype} {list(mask.shape)}"
        )
    weights = _beside(mask, each) * each.astype(np.float32)
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
        raise ValueError("mask must be weights that are finite, not below 0, and not all 0")
    return weights.astype(np.float32)


def _targets(y: np.ndarray, weights: np.ndarray, outputs: Answer) -> np.ndarray:
    """y as `outputs` has it: its shape, its dtype, zeros where it does not count."""
    expected = (*weights.shape, *outputs.shape)
    if outputs.shape == (1,) and y.shape == weights.shape:
        y = y[..., None]
    whole = not issubclass(outputs.dtype, np.inexact)
    right = y.ndim == len(expected) and all(m in (None, k) for m, k in zip(expected, y.shape))
    if not right or (whole and y.dtype.kind == "f"):
        shape = ", ".join("L" if k is None else str(k) for k in expected)
        raise ValueError(
            f"y must be {'whole numbers' if whole else 'floats'} [{shape}] for {outputs}, "
            f"got {y.dtype} {list(y.shape)}"
        )
    y = _where(weights > 0, y)
    _check_range(y, outputs.bound, "y", outputs)
    with np.errstate(over="ignore"):
        y = y.astype(outputs.dtype)
    _check_finite(y, "y", "give such targets the weight 0 by mask")
    return y


def _where(here: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values, zeros where `here` is not set."""
    if here.all():
        return values
    return np.where(_beside(here, values), values, values.dtype.type(0))


def _beside(few: np.ndarray, many: np.ndarray) -> np.ndarray:
    """`few` [N, ...], with axes of one for those that `many` has beside."""
    return few.reshape(few.shape + (1,) * (many.ndim - few.ndim))


def _check_range(values: np.ndarray, bound: int | None, name: str, kind: Input | Answer) -> None:
    if bound is None:
        return
    wrong = (values < 0) | (values >= bound)
    if wrong.any():
        row = np.argwhere(wrong)[0]
        advice = "; what does not count has the weight 0 in mask" if name == "y" else ""
        raise ValueError(
            f"row {row[0]} of {name} has {values[tuple(row)]}, "
            f"and {kind} has 0 .. {bound - 1}{advice}"
        )


def _check_finite(values: np.ndarray, name: str, advice: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"row {row[0]} of {name} has {values[tuple(row)]}, which is no number: {advice}"
        )
