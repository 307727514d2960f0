"""Feedback in training: what is read is the truth, a coin's choice, or the model's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from seqjax.learn.bptt import BPTTState, bptt
from seqjax.learn.cell import Cell
from seqjax.learn.feedback import (
    Players,
    discriminator,
    exponential,
    fed,
    inverse_sigmoid,
    linear,
    most_likely,
    professor_forcing,
    sampled,
    scheduled_sampling,
    teacher_forcing,
)
from seqjax.learn.learner import batched, cross_entropy
from seqjax.testing import distance

V, H, T = 5, 4, 6  # tokens, units, steps


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


PARAMS = dict(E=drawn(0, V, H), W=drawn(1, H, H), U=drawn(2, H, 2), O=2 * drawn(3, V, H))
CELL = Cell(
    lambda p: jnp.zeros(H),
    lambda p, h, x: jnp.tanh(p["W"] @ h + x),
    lambda p, h, x: p["O"] @ h,
)
START, KEY = jnp.array(0), jax.random.key(9)
XS, YS = drawn(4, T, 2), jax.random.randint(jax.random.key(5), (T,), 0, V)


def feed(p, previous, x):
    return p["E"][previous] + p["U"] @ x


def far(a, b):
    gap = float(distance(a, b))
    assert gap < float("inf"), "not finite"  # and so far from nothing
    return gap


def constant(truth):
    return lambda i: jnp.full((), truth)


def told(params, xs=XS, ys=YS, truth=(True,) * T):
    """The loss where step t reads the data if truth[t], else the most likely token; a loop."""
    h, previous, own, total = CELL.start(params), START, START, 0.0
    for x, y, true in zip(xs, ys, truth):
        h = CELL.step(params, h, feed(params, previous if true else own, x))
        out = params["O"] @ h
        total += cross_entropy(out, y)
        previous, own = y, jnp.argmax(out)
    return total


def in_windows(learner, sizes, *, params=PARAMS, key=None):
    """Loss and gradient summed over windows of these sizes, with the state carried."""
    state, at, total, grads = learner.init(params, key), 0, 0.0, None
    for size in sizes:
        cut = slice(at, at + size)
        loss, new, state = learner.grad(params, state, XS[cut], YS[cut])
        grads = new if grads is None else jax.tree.map(jnp.add, grads, new)
        total, at = total + loss, at + size
    return total, grads, state


def test_teacher_forcing_is_backpropagation_over_shifted_data():
    loss, grads = jax.value_and_grad(told)(PARAMS)
    learner = teacher_forcing(CELL, cross_entropy, START, feed=feed)
    total, found, state = in_windows(learner, [T])
    assert abs(total - loss) < 1e-12 and far(found, grads) < 1e-12 and state.previous == YS[-1]
    split, truncated, end = in_windows(learner, [2, 4])  # the y before a window is remembered
    assert (
        abs(split - loss) < 1e-12 and far(end.h, state.h) < 1e-12 and far(truncated, grads) > 1e-3
    )
    bare = Cell(CELL.start, lambda p, h, x: CELL.step(p, h, p["E"][x]), CELL.readout)
    alone = teacher_forcing(bare, cross_entropy, START)
    assert jnp.isfinite(alone.grad(PARAMS, alone.init(PARAMS), None, YS)[0])  # no further input


def test_scheduled_sampling_is_exact_at_both_ends():
    def make(truth):
        return scheduled_sampling(
            CELL, cross_entropy, START, schedule=constant(truth), draw=most_likely, feed=feed
        )

    for truth, mode in ((1.0, (True,) * T), (0.0, (False,) * T)):
        loss, grads = jax.value_and_grad(lambda p, m=mode: told(p, truth=m))(PARAMS)
        total, found, _ = in_windows(make(truth), [T], key=KEY)
        assert abs(total - loss) < 1e-12 and far(found, grads) < 1e-12
    assert abs(told(PARAMS) - told(PARAMS, truth=(False,) * T)) > 1e-2  # they are not the same
    with pytest.raises(ValueError, match="key"):
        make(1.0).init(PARAMS)


def test_scheduled_sampling_throws_its_coins():
    """A cell that keeps what it read tells how often that was the truth."""
    seen = Cell(lambda p: jnp.zeros(()), lambda p, h, x: x, lambda p, h, x: h)
    learner = scheduled_sampling(
        seen, lambda y, target: y, jnp.zeros(()),
        schedule=linear(0.25, floor=0.3), draw=lambda key, y: jnp.zeros(()),
    )  # fmt: skip
    params, ones = {"none": jnp.zeros(())}, jnp.ones(4001)
    state, shares = learner.init(params, KEY), []
    for _ in range(5):
        total, _, state = jax.jit(learner.grad)(params, state, None, ones)
        shares.append(total / 4000)
    # Windows 0 to 4: the truth with probability 1, 3/4, 1/2, then the floor; 5 standard errors.
    np.testing.assert_allclose(shares, [1, 0.75, 0.5, 0.3, 0.3], atol=0.04)
    assert state.window == 5 and shares[3] != shares[4]  # the key moves on

    draws = batched(
        scheduled_sampling(CELL, cross_entropy, START, schedule=constant(0.0), feed=feed), 3
    )
    state = draws.init(PARAMS, KEY)
    _, _, state = draws.grad(PARAMS, state, jnp.stack([XS] * 3), jnp.stack([YS] * 3))
    assert far(state.h[0], state.h[1]) > 1e-3  # streams draw for themselves


def test_schedules_fall_as_published():
    i = jnp.array(10)
    assert abs(linear(0.02)(i) - 0.8) < 1e-12 and linear(0.02, 0.1)(jnp.array(99)) == 0.1
    assert abs(exponential(0.9)(i) - 0.9**10) < 1e-12
    assert abs(inverse_sigmoid(7.0)(i) - 7 / (7 + np.exp(10 / 7))) < 1e-12
    assert inverse_sigmoid(7.0)(jnp.array(10**6)) == 0.0
    for wrong in (lambda: exponential(1.0), lambda: inverse_sigmoid(0.5)):
        with pytest.raises(ValueError, match="schedule"):
            wrong()


def test_draws_follow_the_logits():
    logits = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    keys = jax.random.split(KEY, 4000)
    tokens = jax.vmap(lambda key: sampled(key, logits))(keys)
    shares = jnp.bincount(tokens, length=3) / 4000
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.04)
    assert most_likely(KEY, logits) == 1


# ---- professor forcing --------------------------------------------------------------------------

D = dict(M=drawn(6, H + V), c=0.1 * drawn(7))  # a discriminator of single steps, for the oracle


def discriminate(p, b):
    return b @ p["M"] + p["c"]


def behaviours(params):
    """b of both modes [T, H + V], by a loop."""
    both = []
    for true in (True, False):
        h, previous, rows = CELL.start(params), START, []
        for x, y in zip(XS, YS):
            h = CELL.step(params, h, feed(params, previous, x))
            out = params["O"] @ h
            previous = y if true else jnp.argmax(out)
            rows.append(jnp.concatenate([h, out]))
        both.append(jnp.stack(rows))
    return both


def surprise(logits):
    return -jnp.sum(jnp.log(jax.nn.sigmoid(logits)))


def professor(**options):
    return professor_forcing(
        CELL, cross_entropy, START, discriminate, draw=most_likely, feed=feed, **options
    )


@pytest.mark.share(1)
@pytest.mark.parametrize("both", [False, True])
def test_professor_forcing_is_its_three_losses(both):
    players = Players(PARAMS, D)
    learner = professor(band=(-1.0, 1.0), weight=0.7, both=both)
    loss, grads, state = learner.grad(players, learner.init(players, KEY), XS, YS)

    def generator(params):
        forced, free = (discriminate(D, b) for b in behaviours(params))
        fool = surprise(free) + (surprise(-forced) if both else 0)
        return told(params) + 0.7 * fool

    def detector(d):
        forced, free = (discriminate(d, b) for b in behaviours(PARAMS))
        return surprise(forced) + surprise(-free)

    assert abs(loss - told(PARAMS)) < 1e-12
    assert far(grads.generator, jax.grad(generator)(PARAMS)) < 1e-10
    assert far(grads.discriminator, jax.grad(detector)(D)) < 1e-10
    way = jax.tree.map(lambda p: drawn(8, *p.shape), PARAMS)  # finite differences arbitrate
    ahead, back = (
        generator(jax.tree.map(lambda p, d, e=e: p + e * d, PARAMS, way)) for e in (1e-6, -1e-6)
    )
    slope = sum(jnp.sum(grads.generator[k] * way[k]) for k in way)
    assert abs((ahead - back) / 2e-6 - slope) < 1e-6 * abs(slope)
    forced, free = (discriminate(D, b) for b in behaviours(PARAMS))
    right = float(jnp.sum(forced > 0) + jnp.sum(free <= 0))
    assert abs(state.accuracy - (0.9 * 0.5 + 0.1 * right / (2 * T))) < 1e-12


def test_professor_forcing_plays_inside_its_band():
    players = Players(PARAMS, D)
    learner = professor(decay=1.0)  # the accuracy stays what the state says
    plain = teacher_forcing(CELL, cross_entropy, START, feed=feed)
    teacher = plain.grad(PARAMS, plain.init(PARAMS), XS, YS)[1]
    for accuracy, fools, detects in ((0.6, False, True), (0.9, True, True), (0.995, True, False)):
        state = learner.init(players, KEY)._replace(accuracy=jnp.array(accuracy))
        _, grads, after = learner.grad(players, state, XS, YS)
        assert (far(grads.generator, teacher) > 1e-3) is fools
        assert (far(grads.discriminator, jax.tree.map(jnp.zeros_like, D)) > 1e-3) is detects
        assert after.accuracy == accuracy and after.previous == YS[-1]
    with pytest.raises(ValueError, match="key"):
        learner.init(players)


@pytest.mark.thorough
def test_the_discriminator_learns_to_tell_the_modes():
    read, phi = discriminator(H + V, hidden=4, rngs=nnx.Rngs(0))
    forced, free = behaviours(PARAMS)

    def both(phi):
        return surprise(read(phi, forced)) + surprise(-read(phi, free))

    # It reads in both directions: the first logit knows of the last step and the other way round.
    reach = jax.jacobian(lambda b: read(phi, b))(forced)
    assert reach.shape == (T, T, H + V)
    assert jnp.all(jnp.max(jnp.abs(reach), axis=2) > 0)
    adam, before = optax.adam(0.03), both(phi)

    def body(carry, _):
        phi, moments = carry
        updates, moments = adam.update(jax.grad(both)(phi), moments)
        return (optax.apply_updates(phi, updates), moments), None

    with jax.numpy_dtype_promotion("standard"):  # optax's adam promotes its counter
        phi = jax.jit(lambda c: lax.scan(body, c, length=200))((phi, adam.init(phi)))[0][0]
    assert both(phi) < 0.1 * before


def test_fed_is_a_cell_for_any_learner():
    run = fed(CELL, feed)
    before = jnp.concatenate([START[None], YS[:-1]])
    grads = bptt(run, cross_entropy).grad(PARAMS, BPTTState(jnp.zeros(H)), (before, XS), YS)[1]
    assert far(grads, jax.grad(told)(PARAMS)) < 1e-12
