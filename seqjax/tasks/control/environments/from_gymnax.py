"""Environments of gymnax (https://github.com/RobertTLange/gymnax), of the extra seqjax[control].

What is observed are all numbers of its observation in a row. The limit is that of the environment,
and may be set; where it is reached the episode ends. No return is known to be the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from seqjax.core.common import unknown
from seqjax.core.ranges import Count
from seqjax.tasks.control.environments.environment import Environment


@dataclass(frozen=True)
class Gymnax(Environment):
    """The environment `name` of gymnax; its actions are numbered."""

    name: str
    limit: Count

    succeeds = False

    @cached_property
    def _made(self) -> tuple[Any, Any]:
        environment, parameters = _gymnax().make(self.name)
        return environment, parameters.replace(max_steps_in_episode=self.limit)

    @cached_property
    def actions(self) -> tuple[str, ...]:
        environment, parameters = self._made
        return tuple(map(str, range(environment.action_space(parameters).n)))

    @cached_property
    def observation(self) -> int:
        return jax.eval_shape(self.reset, jax.random.key(0))[1].size

    def reset(self, key):
        environment, parameters = self._made
        with jax.numpy_dtype_promotion("standard"):
            seen, state = environment.reset_env(key, parameters)
        return jax.tree.map(jnp.asarray, state), _row(seen)

    def step(self, state, action, key):
        environment, parameters = self._made
        with jax.numpy_dtype_promotion("standard"):
            seen, new, reward, done, _ = environment.step_env(key, state, action, parameters)
            done = done | environment.is_truncated(new, parameters)
        new = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), new, state)
        return new, _row(seen), jnp.asarray(reward, jnp.float32), jnp.asarray(done, bool)

    def draw(self, state):
        return str(state)


def of_gymnax(name: str, limit: int | None = None) -> Gymnax:
    """Raises ValueError for names that it does not have, and for actions without numbers."""
    gymnax = _gymnax()
    if name not in gymnax.registered_envs:
        raise ValueError(unknown("environment of gymnax", name, gymnax.registered_envs))
    environment, parameters = gymnax.make(name)
    if not hasattr(environment.action_space(parameters), "n"):
        raise ValueError(f"rl_memory takes one of some actions, and those of {name} have no number")
    return Gymnax(name, parameters.max_steps_in_episode if limit is None else limit)


def _gymnax() -> Any:
    try:
        import gymnax  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        missing = f"gymnax:NAME needs gymnax: pip install 'seqjax[control]' ({error})"
        raise ValueError(missing) from error
    return gymnax


def _row(seen: Any) -> jax.Array:
    leaves = [jnp.ravel(jnp.asarray(leaf, jnp.float32)) for leaf in jax.tree.leaves(seen)]
    return jnp.concatenate(leaves)
