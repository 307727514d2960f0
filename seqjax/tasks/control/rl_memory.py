"""Control with memory: an agent that sees a part of its world, and learns by its rewards.

    x_t = o_t, or (o_t, a_(t-1), r_(t-1))      what is seen                          [B, T, D]
    y_t = (a_t, log pi_old, A_t, R_t, ...)     what was done, and what it was worth  [B, T, 7]

The model is the policy and its critic (`seqjax.answers.Actions`). A batch is made by the model that
learns from it: B rows of T steps, streamed through its state, each row episode after episode, with
`resets` where one begins. The advantages A are those of arXiv:1506.02438, normalised over the
batch, and R = A + V; from each batch it then descends `epochs` times along the gradient of the
clipped surrogate (arXiv:1707.06347), the rows run as whole sequences.

    tmaze          which way to turn is seen at the start alone
    cartpole       positions are seen, velocities are not
    key_door       a key is found, and the door of its colour
    concentration  pairs of cards among cards that lie face down
    gymnax:NAME    any environment of gymnax with numbered actions, of the extra seqjax[control]

`seqjax.tasks.control.environments` has their rules, and their optimal returns.

Metrics: `return`, the mean undiscounted return of an episode, and `success`. Actions are drawn from
the policy, in validation too. Those episodes count that began T - limit steps before the end at the
latest: all of these end within the batch, so that long ones are not missed more often than short
ones. `loss` is minus the return, so that the best checkpoint is the best policy.

Baseline: the policy that draws all actions alike, measured in 512 rows. Departures: a row goes on
across the ends of episodes but not across batches; no minibatches, an epoch is one step of the
optimiser; the limit is an end as any other, after which no value is expected; a model with noise
acts without it.
Length: steps of a row, at least `limit`; longer rows have more episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from seqjax.answers import Actions, Features, Metrics
from seqjax.core.ranges import Count, NotNegative, Range
from seqjax.tasks.control import environments
from seqjax.tasks.control.environments import Environment
from seqjax.tasks.control.rollout import Act, Played, advantages, play, uniform, width
from seqjax.tasks.task import Batch, Spec, Task, sampler

Share = Annotated[float, Range(0, 1)]
BASELINE_ROWS = 512


@dataclass(frozen=True, eq=False)
class Control(Task):
    """The task of acting in `environment`."""

    environment: Environment = field(kw_only=True)
    previous: bool = field(kw_only=True)
    gamma: float = field(kw_only=True)
    lambda_: float = field(kw_only=True)

    @property
    def description(self) -> str:
        e, best = self.environment, self.environment.optimum
        known = "" if best is None else f", optimal return {best:.4g}"
        return f"{len(e.actions)} actions, episodes of at most {e.limit} steps{known}"

    def collect(self, model: Any, batch: Batch) -> Batch:
        """What the model does, by the keys of the batch."""
        if not model.causal:
            raise ValueError(f"{self.name} goes step by step, and a layer sees the future")

        def act(h, x, fresh):
            y_hat, h = model(x[:, None], h, resets=fresh[:, None])
            return y_hat[:, 0], h

        rows, length = batch.mask.shape
        return self.played(act, model.start(rows), batch.keys, length)

    def played(self, act: Act, h: Any, keys: jax.Array, length: int) -> Batch:
        """The batch of `length` steps that `act` makes of the keys uint32 [B, 2]."""
        answer: Any = self.spec.outputs
        steps, last = play(self.environment, answer, act, h, keys, length, previous=self.previous)
        A = advantages(steps.reward, steps.value, steps.over, last, self.gamma, self.lambda_)
        R = A + steps.value
        A = (A - jnp.mean(A)) / (jnp.std(A) + 1e-8)
        ended = steps.over & self._counts(steps)
        beside = (A, R, ended, steps.total, steps.success)
        y = jnp.concatenate(
            [steps.y[..., :2], jnp.stack([v.astype(jnp.float32) for v in beside], -1)], -1
        )
        x, y, fresh = (jnp.swapaxes(v, 0, 1) for v in (steps.before.x, y, steps.before.fresh))
        return Batch(x, y, jnp.ones(fresh.shape, jnp.float32), resets=fresh)

    def _counts(self, steps: Played) -> jax.Array:
        """Whether the episode of a step began early enough to end in any case."""
        length = len(steps.age)
        begun = jnp.arange(1, length + 1, dtype=jnp.int32)[:, None] - steps.age
        return begun <= length - self.environment.limit

    def summary(self, means: Metrics) -> Metrics:
        found = super().summary(means)
        if not self.environment.succeeds:
            del found["success"]
        return found

    def example(self) -> list[str]:
        """The first episode of a policy that draws all actions alike: state, action and reward."""
        e, answer = self.environment, self.spec.outputs
        keys = jax.random.key_data(jax.random.split(jax.random.key(0), 1))
        steps, _ = play(e, answer, uniform(answer), None, keys, e.limit)  # type: ignore[arg-type]
        steps = jax.tree.map(lambda v: v[:, 0], jax.device_get(steps))
        lines = []
        for t in range(int(steps.over.argmax()) + 1):
            state = jax.tree.map(lambda v: v[t], steps.before.state)  # noqa: B023
            lines += e.draw(state).splitlines()
            lines.append(f"  {e.actions[int(steps.y[t, 0])]}, reward {steps.reward[t]:g}")
        return lines


def rl_memory(
    *,
    environment: str = "tmaze",
    size: Count | None = None,
    limit: Count | None = None,
    previous: bool = False,
    gamma: Share = 0.99,
    gae_lambda: Share = 0.95,
    clip: Annotated[float, Range(above=0)] = 0.2,
    epochs: Count = 4,
    entropy: NotNegative = 0.01,
    value: NotNegative = 0.5,
) -> Task:
    """Act in `environment`, a name of `ENVIRONMENTS` or gymnax:NAME.

    environment: tmaze, cartpole, key_door, concentration or gymnax:NAME
    size: steps of the corridor, squares along a side of the room, pairs of cards; None: its default
    limit: steps of the longest episode; None: its default
    previous: the action before and its reward are seen too
    gamma: discount of later rewards
    gae_lambda: how far the advantage trusts rewards (1) rather than values (0)
    clip: how far the policy may go from the one that made the batch, epsilon
    epochs: descents along the gradient of a batch
    entropy: weight of the entropy of the policy, c_2
    value: weight of the squared error of the value, c_1
    """
    world = environments.make(environment, size, limit)
    answer = Actions(len(world.actions), clip=clip, value=value, entropy=entropy)

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length < world.limit:
            raise ValueError(
                f"rl_memory needs length >= limit, the longest episode of {environment}, "
                f"{world.limit}, got {length}"
            )
        keys = jax.random.key_data(jax.random.split(key, batch))
        return task.played(uniform(answer), None, keys, length)._replace(keys=keys)

    def baseline(length: int) -> Metrics:
        batch = sample(jax.random.key(0), BASELINE_ROWS, length)
        y_hat = jnp.zeros((*batch.mask.shape, answer.size), jnp.float32)
        scored = task.summary(task.score(y_hat, batch))
        return {n: float(scored[n]) for n in ("return", "success") if n in scored}

    task = Control(
        "rl_memory",
        Spec(Features(width(world, previous)), answer),
        sample,
        baseline,
        environment=world,
        previous=previous,
        gamma=gamma,
        lambda_=gae_lambda,
        epochs=epochs,
    )
    return task
