"""Two forms of one function: one for its value, and one for where a derivative is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero

Function = Callable[..., Any]


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
