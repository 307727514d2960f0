"""An action, and what the state is worth: proximal policy optimisation (arXiv:1707.06347).

    y_hat = (logits of pi(a | s) [count], V)
    y     = (a, log pi_old(a | s), A, R, e, G, w)

    r    = pi(a | s) / pi_old(a | s)
    loss = -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A) + c_1 (V - R)^2 - c_2 H(pi)    eqs 7, 9

A is the advantage and R the return that V is a regression on (`seqjax.tasks.control.rollout`). At
the last step of an episode that counts e is 1, G the sum of its rewards and w whether it was a
success.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.answers.answer import Answer, Metrics, mean
from seqjax.core.ranges import Count, NotNegative, Range

LARGEST_LOG_RATIO = 20.0  # no float32 overflows in what is made of it


@dataclass(frozen=True)
class Actions(Answer):
    """One of `count` actions at each step, and a value.

    Metrics: the mean return of episodes and the share of them that succeeds; entropy of the policy,
    kl from the old one (as r - 1 - log r), clipped: the share of steps whose r is, value_mse; and
    surrogate, the loss above. What is named loss at the end is minus the mean return: the
    surrogate, which each policy has of its own steps, does not compare two of them.

    clip, value, entropy: epsilon, c_1 and c_2.
    """

    count: Count
    clip: Annotated[float, Range(above=0)] = 0.2
    value: NotNegative = 0.5
    entropy: NotNegative = 0.01

    per_step = True
    shape = (7,)

    @property
    def size(self) -> int:
        return self.count + 1

    def loss(self, y_hat, y):
        A, R = y[..., 2], y[..., 3]
        r, entropy = jnp.exp(self._log_ratio(y_hat, y)), self._entropy(y_hat)
        surrogate = jnp.minimum(r * A, jnp.clip(r, 1 - self.clip, 1 + self.clip) * A)
        return -surrogate + self.value * (y_hat[..., -1] - R) ** 2 - self.entropy * entropy

    def measures(self, y_hat, y):
        log_ratio = self._log_ratio(y_hat, y)
        r = jnp.exp(log_ratio)
        return {
            "entropy": self._entropy(y_hat),
            "kl": r - 1 - log_ratio,
            "clipped": (jnp.abs(r - 1) > self.clip).astype(y.dtype),
            "value_mse": (y_hat[..., -1] - y[..., 3]) ** 2,
        }

    def metrics(self, y_hat, y, mask) -> Metrics:
        ended = y[..., 4] * mask
        episodes = {"return": mean(y[..., 5], ended), "success": mean(y[..., 6], ended)}
        return {**super().metrics(y_hat, y, mask), **episodes}

    def weights(self, y, mask) -> Metrics:
        return dict.fromkeys(("return", "success"), jnp.sum(y[..., 4] * mask))

    def summary(self, means: Metrics) -> Metrics:
        return {**means, "loss": -means["return"], "surrogate": means["loss"]}

    def predict(self, y_hat):
        """The likeliest action and its log-probability, as the first two numbers of a target."""
        return self._acted(y_hat, jnp.argmax(y_hat[..., :-1], axis=-1))

    def sample(self, key, y_hat):
        """An action and its log-probability, as the first two numbers of a target."""
        return self._acted(y_hat, jax.random.categorical(key, y_hat[..., :-1]))

    def _acted(self, y_hat, action):
        log_p = _chosen(y_hat[..., :-1], action)
        y = jnp.zeros((*action.shape, *self.shape), y_hat.dtype)
        return y.at[..., 0].set(action.astype(y.dtype)).at[..., 1].set(log_p)

    def _log_ratio(self, y_hat, y):
        log_ratio = _chosen(y_hat[..., :-1], y[..., 0].astype(jnp.int32)) - y[..., 1]
        return jnp.minimum(log_ratio, LARGEST_LOG_RATIO)

    def _entropy(self, y_hat):
        log_p = jax.nn.log_softmax(y_hat[..., :-1])
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def _chosen(logits, action):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], axis=-1)[..., 0]
