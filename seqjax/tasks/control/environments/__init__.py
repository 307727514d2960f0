"""The environments, by name: worlds of which a part is seen, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqjax.core.common import unknown
from seqjax.tasks.control.environments.cartpole import CartPole
from seqjax.tasks.control.environments.concentration import Concentration
from seqjax.tasks.control.environments.environment import Environment
from seqjax.tasks.control.environments.key_door import KeyDoor
from seqjax.tasks.control.environments.tmaze import TMaze

__all__ = ["ENVIRONMENTS", "CartPole", "Concentration", "Environment", "KeyDoor", "TMaze", "make"]

ENVIRONMENTS: dict[str, Callable[..., Environment]] = {
    "tmaze": TMaze,
    "cartpole": CartPole,
    "key_door": KeyDoor,
    "concentration": Concentration,
}
SIZE = {"tmaze": "corridor", "key_door": "side", "concentration": "pairs"}  # the field it is
GYMNAX = "gymnax:"


def make(name: str, size: int | None = None, limit: int | None = None) -> Environment:
    """The environment `name`, or gymnax:NAME; None: sizes and limits as they are by default.

    Raises ValueError for a name that there is not, and a size that it does not have.
    """
    given: dict[str, Any] = {} if limit is None else {"limit": limit}
    if name not in ENVIRONMENTS and not name.startswith(GYMNAX):
        raise ValueError(f"{unknown('environment', name, ENVIRONMENTS)}, and {GYMNAX}NAME")
    if size is not None and name not in SIZE:
        raise ValueError(f"size must be left out for {name}, which has none, got {size}")
    if size is not None:
        given[SIZE[name]] = size
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name](**given)
    from seqjax.tasks.control.environments.from_gymnax import of_gymnax

    return of_gymnax(name.removeprefix(GYMNAX), **given)
