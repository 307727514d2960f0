"""Rollouts, what they are worth, and policies whose returns have a closed form."""

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import make
from seqjax.tasks.control.environments.tmaze import EAST, MEMORYLESS, NORTH, SOUTH, WEST
from seqjax.tasks.control.rollout import advantages
from seqjax.train.config import Config, OptimiserConfig, TaskConfig
from seqjax.train.step import prepare, take_apart
from seqjax.zoo import LAYERS

ROWS = 256


def sure(action, count):
    """What a head returns that takes this action, int [B]."""
    chosen = action[:, None] == jnp.arange(count, dtype=jnp.int32)[None]
    logits = jnp.where(chosen, 0.0, -1e4).astype(jnp.float32)
    return jnp.concatenate([logits, jnp.zeros((len(action), 1), jnp.float32)], axis=1)


def scored(task, act, h, length, rows=ROWS):
    """Metrics of the episodes that `act` plays, and the batch."""

    @jax.jit
    def run(keys):
        batch = task.played(act, h, keys, length)
        y_hat = jnp.zeros((rows, length, task.spec.outputs.size), jnp.float32)
        return task.score(y_hat, batch), batch

    metrics, batch = run(jax.random.key_data(jax.random.split(jax.random.key(1), rows)))
    return {name: float(v) for name, v in metrics.items()}, jax.device_get(batch)


def maze_policy(remembers):
    """East, and at the junction the side of the sign; h: 1 where it was north."""

    def act(h, x, fresh):
        h = jnp.where(fresh, x[:, 2].astype(jnp.int32), h)
        at_junction, side = (x[:, 0] == 0) & (x[:, 1] == 1) & (x[:, 2] == 0), h
        if not remembers:
            side = jnp.arange(len(h), dtype=jnp.int32) % 2
        turn = jnp.where(side == 1, NORTH, SOUTH)
        return sure(jnp.where(at_junction, turn, EAST).astype(jnp.int32), 4), h

    return act


@pytest.fixture(scope="module")
def maze():
    return make("rl_memory", size=3, limit=10)


def test_who_remembers_the_sign_has_the_optimum_and_who_does_not_has_chance(maze):
    h = jnp.zeros(ROWS, jnp.int32)
    metrics, batch = scored(maze, maze_policy(True), h, 25)
    assert metrics["return"] == pytest.approx(maze.environment.optimum) and metrics["success"] == 1
    begun = np.asarray(batch.resets)
    assert (begun == (np.arange(25) % 4 == 0)).all(), "each episode has four steps"
    # An episode that begins after step 25 - 10 might not have ended: begun at 0, 4, 8, 12.
    assert (batch.y[:, :, 4] == np.isin(np.arange(25), [3, 7, 11, 15])).all()
    metrics, _ = scored(maze, maze_policy(False), h, 25)
    episodes = ROWS * 4
    assert abs(metrics["success"] - 0.5) < 5 * 0.5 / episodes**0.5
    assert abs(metrics["return"] - MEMORYLESS) < 5 * (4.1 / 2) / episodes**0.5
    metrics, _ = scored(maze, lambda h, x, fresh: (sure(0 * h + WEST, 4), h), h, 25)
    assert metrics["return"] == pytest.approx(-0.1 * 10) and metrics["success"] == 0


def test_the_baseline_is_what_the_chain_of_random_steps_has(maze):
    value = np.zeros(4)  # by place, of the steps that are left
    for _ in range(10):
        east, west = np.r_[value[1:], 0], np.r_[value[0] - 0.1, value[:-1]]
        new = (east + west) / 4 + (value - 0.1) / 2
        new[3] = ((value[3] - 0.1) + value[2] + 4 - 0.1) / 4
        value = new
    found = maze.baseline(30)
    # Rewards of 4 with small probability: the standard error of 512 rows, 3 episodes or so of each.
    assert abs(found["return"] - value[0]) < 5 * 1.2 / (512 * 2) ** 0.5
    assert set(found) == {"return", "success"}


def test_the_pole_is_held_up_with_velocities_and_without_memory_it_falls():
    task = make("rl_memory", environment="cartpole", limit=150)

    def push(velocities):
        def act(h, x, fresh):
            speed = (
                jnp.where(fresh[:, None], 0, x - h) * velocities
            )  # the step before is the memory
            lean = x @ jnp.array([0.3, 1.0], jnp.float32) + speed @ jnp.array(
                [10.0, 10.0], jnp.float32
            )
            return sure((lean > 0).astype(jnp.int32), 2), x

        return act

    h = jnp.zeros((32, 2), jnp.float32)
    metrics, batch = scored(task, push(1), h, 150, 32)
    assert metrics["return"] == task.environment.optimum == 150 and metrics["success"] == 1
    metrics, _ = scored(task, push(0), h, 150, 32)
    assert metrics["return"] < 100 and metrics["success"] < 0.1


def test_advantages_are_the_sums_of_the_paper():
    """arXiv:1506.02438, eq. 16: sum_l (gamma lambda)^l delta_{t+l}, to the end of the episode."""
    draw, T, B, gamma, lam = np.random.default_rng(0), 12, 5, 0.9, 0.8
    reward, value = draw.normal(size=(2, T, B))
    over, last = draw.random((T, B)) < 0.25, draw.normal(size=B)
    found = jax.jit(advantages)(reward, value, over, last, gamma, lam)
    for b in range(B):
        for t in range(T):
            total = 0.0
            for s in range(t, T):
                after = last[b] if s == T - 1 else value[s + 1, b]
                delta = reward[s, b] + (0 if over[s, b] else gamma * after) - value[s, b]
                total += (gamma * lam) ** (s - t) * delta
                if over[s, b]:
                    break
            np.testing.assert_allclose(found[t, b], total, 1e-10)


def test_what_was_done_before_is_seen_where_it_is_wished():
    task = make("rl_memory", size=1, limit=3, previous=True)
    batch = jax.device_get(task.sample(jax.random.key(0), 8, 9))
    assert batch.x.shape == (8, 9, 3 + 4 + 1)
    begun, action = np.asarray(batch.resets), batch.y[..., 0].astype(int)
    assert begun[:, 0].all() and not batch.x[begun][:, 3:].any()
    rows, steps = np.nonzero(~begun)
    np.testing.assert_array_equal(batch.x[rows, steps, 3:7], np.eye(4)[action[rows, steps - 1]])
    gained = np.where(begun[rows, steps - 1], 0, batch.y[rows, steps - 2, 5])
    np.testing.assert_allclose(
        batch.x[rows, steps, 7], batch.y[rows, steps - 1, 5] - gained, atol=1e-6
    )


POLICIES = [n for n in LAYERS if n != "bidirectional"]


@pytest.mark.share(1)
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_by_steps_is_that_by_whole_rows(name, maze):
    """With an episode's resets: the ratio of the first descent is one."""
    config = ModelConfig(layer=(LayerConfig(name, dict(LAYERS[name].smoke)),), features=8, depth=1)
    model = Model(config, maze.spec, rngs=nnx.Rngs(0))
    keys = maze.sample(jax.random.key(2), 3, 16)

    @nnx.jit
    def run(model, batch):
        made = maze.collect(model, batch)
        return made, model(made.x, resets=made.resets)[0]

    batch, y_hat = run(model, keys)
    assert np.asarray(batch.resets)[:, 1:].any(), "an episode ended within the rows"
    log_p = jax.nn.log_softmax(y_hat[..., :-1])
    action = np.asarray(batch.y[..., :1]).astype(int)
    found = np.take_along_axis(np.asarray(log_p), action, axis=-1)[..., 0]
    np.testing.assert_allclose(np.asarray(batch.y)[..., 1], found, atol=2e-5)
    assert abs(float(maze.score(y_hat, batch)["kl"])) < 1e-8
    # R = A + V before A is normalised: A, of the values of whole rows, is R - V up to scale.
    A, rest = np.asarray(batch.y)[..., 2], np.asarray(batch.y)[..., 3] - np.asarray(y_hat)[..., -1]
    np.testing.assert_allclose(A, (rest - rest.mean()) / rest.std(), atol=1e-3)


def test_mistakes_are_one_line(maze):
    with pytest.raises(ValueError, match="needs length >= limit, the longest episode of tmaze, 10"):
        maze.batches(0, 2, 9)
    config = ModelConfig(
        layer=(LayerConfig("bidirectional", {"layer": "gru"}),), features=4, depth=1
    )
    model = nnx.eval_shape(lambda: Model(config, maze.spec, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="goes step by step, and a layer sees the future"):
        maze.collect(model, None)
    assert "optimal return 4" in maze.description
    lines = replace(maze).example()
    assert lines[0].startswith("@..T  the goal is") and ", reward " in lines[1]


@pytest.mark.thorough
def test_an_update_descends_along_what_it_collected_once(maze):
    """Two epochs are two updates of the parameters from the batch that the first ones made."""

    class Given(type(maze)):
        def collect(self, model, batch):
            return batch

    two = replace(maze, epochs=2)
    given = Given(**{f.name: getattr(maze, f.name) for f in fields(maze)} | {"epochs": 1})
    config = Config(
        TaskConfig(maze.name, batch=4, length=20, evaluation_batches=1),
        ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1),
        OptimiserConfig(name="sgd", schedule="constant", warmup=0),
    )
    batch, share = next(two.batches(0, 4, 20)), np.float32(0)
    model = Model(config.model, maze.spec, rngs=nnx.Rngs(0))
    made = jax.device_get(nnx.jit(maze.collect)(model, batch))
    params, frozen, *_ = take_apart(model)
    copies = [jax.tree.map(jnp.array, (params, frozen)) for _ in range(2)]
    programs = prepare(config, task=two)
    found, metrics = programs.update(programs.start(*copies[0]), batch, share)
    programs = prepare(config, task=given)
    state = programs.start(*copies[1])
    losses = []
    for _ in range(2):
        state, one = programs.update(state, made, share)
        losses.append(one["surrogate"])
    for name, value in state.params.items():
        np.testing.assert_allclose(found.params[name], value, 1e-5, 1e-7, err_msg=name)
    np.testing.assert_allclose(metrics["surrogate"], np.mean(losses), 1e-5)
    assert found.step == 1 and losses[0] != losses[1]
