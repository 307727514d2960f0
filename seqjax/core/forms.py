"""Forms of one function: one for its value and one where a derivative is taken, one per platform.

What chooses a form knows where it will run only when the program is lowered, and an example knows
nothing of those beside it, over which a layer maps: `by_platform` and `together` are for these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
from jax import lax
from jax.custom_derivatives import SymbolicZero

Function = Callable[..., Any]
PLATFORMS = ("cpu", "gpu", "tpu")
_together = ContextVar("together", default=1)


def two_forms(value: Function, differentiable: Function) -> Function:
    """value(*trees), and differentiable(*trees) wherever jax differentiates it, in any mode.

    Both return the same trees of arrays, in the same shapes and dtypes. A loop that keeps every
    state for the backward pass may so be what evaluation runs, without a word from the user: which
    form runs is known where the derivative is taken, under `jit`, `scan`, `checkpoint` and `vmap`,
    too.
    """

    @jax.custom_jvp
    def run(*trees: Any) -> Any:
        return value(*trees)

    def rule(primals: Any, tangents: Any) -> Any:
        leaves, tree = jax.tree.flatten(primals)
        moved = jax.tree.leaves(tangents, is_leaf=lambda t: isinstance(t, SymbolicZero))
        # what does not depend on the inputs of the derivative is no input of the form, too
        places = [n for n, t in enumerate(moved) if not isinstance(t, SymbolicZero)]

        def form(*some: Any) -> Any:
            full = list(leaves)
            for place, leaf in zip(places, some, strict=True):
                full[place] = leaf
            return differentiable(*jax.tree.unflatten(tree, full))

        return jax.jvp(form, [leaves[n] for n in places], [moved[n] for n in places])

    run.defjvp(rule, symbolic_zeros=True)
    return run


def by_platform(forms: Mapping[str, Function]) -> Function:
    """forms["cpu"], forms["gpu"] or forms["tpu"], as the program is lowered for, also when that is
    another machine's (`jax.export`). Functions that are the same are traced once."""
    if len(set(forms.values())) == 1:
        return forms["cpu"]

    def run(*trees: Any) -> Any:
        cpu, gpu, tpu = (forms[platform] for platform in PLATFORMS)
        return lax.platform_dependent(*trees, cpu=cpu, tpu=tpu, cuda=gpu, rocm=gpu)

    return run


@contextmanager
def together(examples: int) -> Iterator[None]:
    """What is traced inside is mapped over so many examples, which `examples_together` counts."""
    token = _together.set(_together.get() * examples)
    try:
        yield
    finally:
        _together.reset(token)


def examples_together() -> int:
    """How many examples run what is now traced for one of them."""
    return _together.get()
