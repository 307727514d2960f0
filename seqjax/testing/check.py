"""`check_layer`: every law of a layer, tried in order."""

from __future__ import annotations

from collections.abc import Collection

import jax

from seqjax.nn.base import Layer
from seqjax.testing.cases import Cases
from seqjax.testing.laws import LAWS
from seqjax.testing.promises import LawBroken


def check_layer(
    layer: Layer,
    *,
    batch: int = 2,
    steps: int = 14,
    exempt: Collection[str] = (),
    raises: bool = True,
    tolerance: float = 1e-8,
) -> dict[str, float]:
    """Try all LAWS of a layer, in order, up to the first that is broken: law -> how far off it is.

    It runs in float64, on a copy whose parameters are moved off their first values and whose
    initial state is learned. Later laws inherit the fault of an earlier one, so the first that is
    broken ends it: with LawBroken, or, with raises=False, as the last entry returned.

    batch: at least 2 examples; steps: at least 12, more than a segment or a chunk of the layer;
    twice a prime is compiled fastest. exempt: laws that are not to be tried. Compiling is the cost:
    seconds for a small layer.

    >>> found = check_layer(seqjax.make("indrnn", 4, hidden=3, rngs=nnx.Rngs(0)))
    >>> "single steps == whole" in found
    True
    """
    unknown_laws = sorted(set(exempt) - set(LAWS))
    if unknown_laws:
        raise ValueError(f"exempt from {unknown_laws}, the laws are {tuple(LAWS)}")
    if batch < 2 or steps < 12:
        raise ValueError(f"the laws need batch >= 2 and steps >= 12, got {batch} and {steps}")
    name, found = type(layer).__name__, {}
    with jax.enable_x64(True):
        cases = Cases(layer, batch, steps, tolerance)
        for law, (trial, cause, causal) in LAWS.items():
            if law in exempt or (causal and not layer.causal):
                continue
            try:
                for what, (gap, step) in trial(cases):
                    found[law] = max(gap, found.get(law, 0.0))
                    if not gap <= tolerance:
                        at = "" if step is None else f" first at step {step},"
                        message = f'{name} breaks "{law}"{what}{at} by {gap:.2g}. {cause}'
                        raise LawBroken(message.strip(), law, gap)
            except LawBroken as broken:
                found[law] = broken.gap
                if raises:
                    raise LawBroken(str(broken), law, broken.gap, found) from None
                break
    return found
