"""Environments against their rules written a second time, one world at a time in Python."""

import warnings
from collections import deque
from functools import lru_cache
from itertools import permutations
from math import cos, pi, sin

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.tasks import make as make_task
from seqjax.tasks.control.environments import (
    ENVIRONMENTS,
    CartPole,
    Concentration,
    KeyDoor,
    TMaze,
    make,
)
from seqjax.tasks.control.environments.cartpole import State as CartState
from seqjax.tasks.control.environments.concentration import expected_pairs
from seqjax.tasks.control.environments.key_door import State as Room
from seqjax.tasks.control.environments.tmaze import State as MazeState

B, T = 48, 40
SMALL = [TMaze(2), CartPole(), KeyDoor(2), Concentration(3)]


@jax.jit(static_argnums=0)
def acted(environment, actions, keys):
    """States and what was seen [B, T + 1, ...], rewards and ends [B, T], ends not looked at."""

    def one(actions, key):
        def step(state, action):
            new, *returned = environment.step(state, action, key)
            return new, (new, *returned)

        first, seen = environment.reset(key)
        _, (states, xs, rewards, dones) = jax.lax.scan(step, first, actions)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, states), (
            jnp.concatenate([seen[None], xs]), rewards, dones,
        )  # fmt: skip

    return jax.vmap(one)(actions, keys)


class Maze:
    """Of Bakker's text."""

    def __init__(self, env, state):
        self.length, self.place, self.goal = env.corridor, int(state.place), int(state.goal)

    def seen(self):
        if self.place == 0:
            return [0, 1, 1] if self.goal == 0 else [1, 1, 0]
        return [0, 1, 0] if self.place == self.length else [1, 0, 1]

    def step(self, action):
        if self.place == self.length and action in (0, 2):
            return (4 if action == self.goal else -0.1), True
        to = self.place + {1: 1, 3: -1}.get(action, 0)
        if to == self.place or not 0 <= to <= self.length:
            return -0.1, False
        self.place = to
        return 0, False


class Cart:
    """Of gymnasium's CartPole-v1, in float64."""

    def __init__(self, env, state):
        self.state = [float(v) for v in state]

    def seen(self):
        return [self.state[0] / 2.4, self.state[2] / (12 * 2 * pi / 360)]

    def step(self, action):
        x, x_dot, theta, theta_dot = self.state
        force = 10.0 if action == 1 else -10.0
        temp = (force + 0.05 * theta_dot**2 * sin(theta)) / 1.1
        thetaacc = (9.8 * sin(theta) - cos(theta) * temp) / (
            0.5 * (4.0 / 3.0 - 0.1 * cos(theta) ** 2 / 1.1)
        )
        xacc = temp - 0.05 * thetaacc * cos(theta) / 1.1
        x, theta = x + 0.02 * x_dot, theta + 0.02 * theta_dot
        self.state = [x, x_dot + 0.02 * xacc, theta, theta_dot + 0.02 * thetaacc]
        return 1, abs(x) > 2.4 or abs(theta) > 12 * 2 * pi / 360


class Keys:
    """The room as text; what is seen of it by turning the whole room until the agent looks up."""

    def __init__(self, env, state):
        self.room = np.array(list(" #abAB"))[np.asarray(state.room)]
        self.place, self.heading = tuple(map(int, state.place)), int(state.heading)
        self.held = ""

    def ahead(self):
        y, x = self.place
        return [(y - 1, x), (y, x + 1), (y + 1, x), (y, x - 1)][self.heading]

    def seen(self):
        wide = np.pad(self.room, 2, constant_values="#")
        wide[self.place[0] + 2, self.place[1] + 2] = "@"
        wide = np.rot90(wide, self.heading)
        (y,), (x,) = np.nonzero(wide == "@")
        view = wide[y - 2 : y + 1, x - 1 : x + 2].copy()
        view[view == "@"] = " "
        return [float(square == kind) for square in view.ravel() for kind in " #abAB"]

    def step(self, action):
        square = self.room[self.ahead()]
        if action in (0, 1):
            self.heading = (self.heading + (1 if action else 3)) % 4
        elif action == 2 and square == " ":
            self.place = self.ahead()
        elif action == 3 and square in "ab":
            self.held, self.room[self.ahead()] = square, " "
        elif action == 3 and square in "AB" and self.held:
            return float(square.lower() == self.held), True
        return 0, False

    def plan(self):
        """The fewest steps to the right door, by a search that sees everything."""
        start, key = (
            (self.place, self.heading, False),
            str(self.room[np.isin(self.room, ["a", "b"])][0]),
        )
        queue, before = deque([start]), {start: []}
        while queue:
            node = queue.popleft()
            for action in range(4):
                place, heading, held = node
                other = Keys.__new__(Keys)
                other.room, other.place, other.heading = self.room.copy(), place, heading
                other.held = key if held else ""
                if held:
                    other.room[self.room == key] = " "
                reward, done = other.step(action)
                path = [*before[node], action]
                if reward:
                    return path
                new = other.place, other.heading, bool(other.held)
                if not done and new not in before:
                    before[new] = path
                    queue.append(new)
        raise AssertionError("no way to the door")


class Cards:
    def __init__(self, env, state):
        self.ranks, self.found, self.up = [int(r) for r in state.ranks], set(), []

    def seen(self):
        n = len(self.ranks) // 2
        rows = [[0] * (n + 1) for _ in self.ranks]
        for card, rank in enumerate(self.ranks):
            rows[card][rank + 1 if card in self.found or card in self.up else 0] = 1
        return sum(rows, [])

    def step(self, card):
        if len(self.up) == 2:
            self.up = []
        if card in self.found or card in self.up:
            return 0, False
        self.up.append(card)
        if len(self.up) == 2 and self.ranks[self.up[0]] == self.ranks[self.up[1]]:
            self.found.update(self.up)
            self.up = []
            return 2 / len(self.ranks), len(self.found) == len(self.ranks)
        return 0, False


NAIVE = dict(zip(SMALL, (Maze, Cart, Keys, Cards)))


@pytest.mark.parametrize("environment", SMALL, ids=lambda e: type(e).__name__)
def test_every_step_is_that_of_the_rules(environment):
    draw = np.random.default_rng(0)
    actions = draw.integers(0, len(environment.actions), (B, T)).astype(np.int32)
    if isinstance(environment, KeyDoor):  # so that doors are met
        actions[draw.random((B, T)) < 0.3] = 3
    keys = jax.random.split(jax.random.key(3), B)
    states, (xs, rewards, dones) = jax.device_get(acted(environment, actions, keys))
    assert xs.dtype == rewards.dtype == np.float32 and xs.shape[2] == environment.observation
    ends, paid = 0, set()
    for b in range(B):
        world = NAIVE[environment](environment, jax.tree.map(lambda v: v[b, 0], states))  # noqa: B023
        np.testing.assert_allclose(xs[b, 0], world.seen(), atol=1e-6)
        for t in range(T):
            reward, done = world.step(int(actions[b, t]))
            np.testing.assert_allclose(rewards[b, t], reward, 1e-6)
            np.testing.assert_allclose(xs[b, t + 1], world.seen(), atol=1e-5)
            assert dones[b, t] == done
            paid.add(round(float(reward), 3))
            if done:
                ends += 1
                break
    assert ends > 0 and len(paid) > (not isinstance(environment, CartPole))


@jax.jit(static_argnums=0)
def begun(environment, keys):
    return jax.vmap(environment.reset)(keys)[0]


def even(draws, count):
    """Whether these are so many different rows, each as often as the others."""
    counts = np.unique(np.reshape(draws, (len(draws), -1)), axis=0, return_counts=True)[1]
    p = 1 / count
    sigma = (p * (1 - p) / len(draws)) ** 0.5
    return len(counts) == count and (abs(counts / len(draws) - p) < 5 * sigma).all()


def test_what_is_drawn_is_drawn_evenly():
    keys = jax.random.split(jax.random.key(0), 4000)
    goals = begun(TMaze(), keys).goal
    assert even(goals, 2) and set(np.asarray(goals)) == {0, 2}
    assert even(begun(Concentration(2), keys).ranks, 6)
    room = jax.device_get(begun(KeyDoor(2), keys))
    keys_at = np.argwhere(np.isin(room.room, [2, 3]))
    assert (keys_at[:, 0] == np.arange(4000)).all(), "one key in each"
    assert even(np.concatenate([keys_at[:, 1:], room.place], axis=1), 4 * 3)
    assert even(room.room[tuple(keys_at.T)], 2) and even(room.heading, 4)
    doors = np.argwhere(room.room == 4)[:, 1:], np.argwhere(room.room == 5)[:, 1:]
    assert even(np.concatenate(doors, axis=1), 2 * 2 * 4)  # in walls that face each other


def test_what_is_hidden_is_not_seen():
    def same(environment, one, other):
        assert any(not np.array_equal(a, b) for a, b in zip(one, other))
        seen = jax.jit(environment.seen)
        np.testing.assert_array_equal(seen(one), seen(other))

    one, n = jax.random.split(jax.random.key(0), 1), np.int32
    first = {e: jax.tree.map(lambda v: v[0], jax.device_get(begun(e, one))) for e in SMALL}
    maze, cart, door, cards = SMALL
    for place in (1, 2):
        same(maze, first[maze]._replace(place=n(place), goal=n(0)), MazeState(n(place), n(2)))
    x, dx, theta, dtheta = first[cart]
    same(cart, first[cart], CartState(x, dx + 1, theta, dtheta - 2))
    same(door, first[door], first[door]._replace(held=n(1)))
    state = first[cards]._replace(turned=np.arange(6) < 1)
    for shift in (1, 2, 3):
        hidden = np.roll(state.ranks[1:], shift)
        same(cards, state, state._replace(ranks=np.concatenate([state.ranks[:1], hidden])))


def test_the_room_is_seen_three_by_three():
    room = np.full((5, 5), 1, np.int32)
    room[1:-1, 1:-1] = 0
    room[1, 2], room[0, 1], room[4, 3] = 3, 4, 5
    see = jax.jit(KeyDoor(3).seen)

    def seen(y, x, heading):
        shown = see(Room(room, np.array([y, x], np.int32), np.int32(heading), np.int32(0)))
        return np.reshape(shown, (3, 3, 6)).argmax(axis=2).tolist()

    assert seen(2, 2, 0) == [[4, 1, 1], [0, 3, 0], [0, 0, 0]]
    assert seen(3, 3, 2) == [[1, 1, 1], [1, 5, 1], [1, 0, 0]]


def test_a_search_that_sees_everything_opens_the_door_in_time():
    environment = KeyDoor(3, limit=37)
    assert environment.optimum == 1 and KeyDoor(3, limit=36).optimum is None
    keys = jax.random.split(jax.random.key(5), B)
    first = jax.device_get(begun(environment, keys))
    plans = [Keys(environment, jax.tree.map(lambda v: v[b], first)).plan() for b in range(B)]  # noqa: B023
    assert max(map(len, plans)) <= environment.limit
    actions = np.array([plan + [0] * (T - len(plan)) for plan in plans], np.int32)
    _, (_, rewards, dones) = acted(environment, actions, keys)
    for b, plan in enumerate(plans):
        assert rewards[b, len(plan) - 1] == 1 and dones[b, len(plan) - 1]
        assert not np.asarray(dones)[b, : len(plan) - 1].any()


def test_the_best_play_of_concentration_is_what_a_search_over_all_plays_finds():
    """The deals that are still possible, and every choice of a card: no count of kinds of cards."""

    @lru_cache(None)
    def best(deals, up, found, left):
        if not left:
            return 0.0
        up, values = (() if len(up) == 2 else up), []
        for card in set(range(4)) - set(up) - set(found):
            value = 0.0
            for rank in {deal[card] for deal in deals}:
                some = tuple(deal for deal in deals if deal[card] == rank)
                match = bool(up) and some[0][up[0]] == rank
                all_found = tuple(sorted((*found, *up, card))) if match else found
                after = best(some, () if match else (*up, card), all_found, left - 1)
                value += len(some) / len(deals) * (match + after)
            values.append(value)
        return max(values, default=0.0)

    deals = tuple(sorted(set(permutations((0, 0, 1, 1)))))
    for steps in range(9):
        np.testing.assert_allclose(best(deals, (), (), steps), expected_pairs(2, steps), 1e-12)
    assert Concentration(2, limit=5).optimum == expected_pairs(2, 5) / 2


def test_a_player_with_a_perfect_memory_finds_as_many_pairs_as_are_stated():
    """Turn up a new card; if the place of its mate is known take it, else another new one."""
    draw, n, limit, games = np.random.default_rng(0), 4, 10, 4000
    environment, returns = Concentration(n, limit), []
    for _ in range(games):
        world = Cards(environment, type("", (), {"ranks": draw.permutation(np.arange(2 * n) // 2)}))
        known, waiting, new, total = {}, [], list(range(2 * n)), 0.0
        for _ in range(limit // 2):
            if waiting:
                pair = waiting.pop()
            elif new:
                first = new.pop()
                rank = world.ranks[first]
                second = known[rank] if rank in known else new.pop()
                known.setdefault(rank, first)
                if world.ranks[second] != rank:
                    other = world.ranks[second]
                    if other in known:
                        waiting.append((known[other], second))
                    known[other] = second
                pair = first, second
            else:
                break
            total += sum(world.step(card)[0] for card in pair)
        returns.append(total)
    error = np.std(returns) / games**0.5
    assert abs(np.mean(returns) - environment.optimum) < 5 * error < 0.02


def test_mistakes_are_one_line():
    with pytest.raises(ValueError, match="unknown environment 'tmase'; did you mean 'tmaze'"):
        make("tmase")
    with pytest.raises(
        ValueError, match="size must be left out for cartpole, which has none, got 3"
    ):
        make("cartpole", 3)
    with pytest.raises(ValueError, match="TMaze.corridor must be a whole number from 1 to"):
        make("tmaze", 0)
    assert set(ENVIRONMENTS) == {"tmaze", "cartpole", "key_door", "concentration"}
    with pytest.raises(
        ValueError, match="gymnax:NAME needs gymnax: pip install|unknown environment"
    ):
        make("gymnax:CartPole")


def gymnax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        pytest.importorskip("gymnax", reason="pip install -e '.[control]'")


def test_cartpole_is_that_of_gymnax():
    gymnax()
    theirs, ours = make("gymnax:CartPole-v1"), CartPole(500)
    assert (theirs.limit, theirs.actions, theirs.observation) == (500, ("0", "1"), 4)
    keys = jax.random.split(jax.random.key(0), B)
    actions = np.random.default_rng(0).integers(0, 2, (B, T)).astype(np.int32)
    states, (xs, rewards, dones) = jax.device_get(acted(theirs, actions, keys))
    now = CartState(*(np.float32(xs[:, :-1, i]) for i in range(4)))
    step = jax.jit(jax.vmap(jax.vmap(ours.step, (0, 0, None)), (0, 0, None)))
    found, seen, gained, over = jax.device_get(step(now, actions, keys[0]))
    np.testing.assert_allclose(np.stack(found, axis=-1), xs[:, 1:], 1e-5, 1e-6)
    np.testing.assert_allclose(seen * np.array([2.4, np.pi / 15]), xs[:, 1:, ::2], 1e-5, 1e-6)
    alive = np.cumsum(dones, axis=1) - dones == 0  # theirs pays nothing after the end
    np.testing.assert_array_equal(gained[alive], rewards[alive])
    np.testing.assert_array_equal(over, dones)
    assert dones.any(axis=1).mean() > 0.5 and states.time.max() == T


def test_any_environment_of_gymnax_with_numbered_actions_is_one():
    gymnax()
    with pytest.raises(ValueError, match="unknown environment of gymnax 'CartPole-v2'"):
        make("gymnax:CartPole-v2")
    with pytest.raises(ValueError, match="those of Pendulum-v1 have no number"):
        make("gymnax:Pendulum-v1")
    task = make_task("rl_memory", environment="gymnax:MemoryChain-bsuite", limit=7)
    batch = jax.device_get(task.sample(jax.random.key(0), 16, 20))
    assert np.isfinite(batch.y).all() and set(task.baseline(20)) == {"return"}
    assert batch.resets[:, 1:].any() and len(task.example()) > 2
