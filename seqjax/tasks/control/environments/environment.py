"""What an environment is: a world that is acted in, of which a part is seen.

    state, o = environment.reset(key)
    state, o, reward, done = environment.step(state, action, key)

Both are pure functions of one world; `jax.vmap` puts B side by side. An episode ends where `done`
is set, or after `limit` steps, which who plays counts (`seqjax.tasks.control.rollout`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import jax

from seqjax.core import ranges


class Environment(ABC):
    """A frozen dataclass: its fields are its sizes.

    limit: steps of the longest episode.
    actions: the name of each; an action is a number, int32.
    observation: how many numbers o has, float32 [observation].
    succeeds: whether an episode can be a success, and not only have a return.
    """

    limit: int
    actions: tuple[str, ...]
    observation: int
    succeeds: ClassVar[bool] = True

    def __post_init__(self) -> None:
        ranges.check(self, type(self), type(self).__name__)

    @abstractmethod
    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """The state in which an episode begins, and what is seen of it."""

    @abstractmethod
    def step(
        self, state: Any, action: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        """State, observation, reward (float32) and whether the episode is over (bool)."""

    @abstractmethod
    def draw(self, state: Any) -> str:
        """All of a state as text, also what is not seen."""

    def success(self, reward: jax.Array, done: jax.Array) -> jax.Array:
        """Whether an episode whose last step returned these has succeeded."""
        return done & (reward > 0)

    @property
    def optimum(self) -> float | None:
        """The expected return of the best policy; None: not known."""
        return None
