"""Supervised memory training: teacher, students, losses and both learners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.learn.bptt import bptt
from seqjax.learn.learner import cross_entropy
from seqjax.learn.smt import (
    DMTWeights,
    Weights,
    decoding_loss,
    dmt,
    dmt_loss,
    smt,
    smt_optimiser,
    uniformity_loss,
)
from seqjax.learn.smt_students import as_student_cell, make_student, roll
from seqjax.learn.smt_teacher import Teacher
from seqjax.nn.base import cast_parameters
from seqjax.testing import distance

V, T, K, D, B = 5, 6, 2, 8, 3
SIZES = dict(features=D, memory=K, heads=2)


def teacher(causal=False, depth=1):
    built = Teacher(
        V, **SIZES, encoder_depth=depth, decoder_depth=1, causal=causal, rngs=nnx.Rngs(0)
    )
    return cast_parameters(built, jnp.float64)


def student(name="elman", **options):
    built = make_student(name, V, **SIZES, readout_depth=1, rngs=nnx.Rngs(1), **options)
    return cast_parameters(built, jnp.float64)


def tokens(seed, *shape):
    return jax.random.randint(jax.random.key(seed), shape, 0, V)


X, Y = tokens(0, B, T), tokens(1, B, T).at[0, 2].set(-1)


def close(a, b, tolerance=1e-10):
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(a) == len(b)
    for x, y in zip(a, b):
        np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance)


def largest(tree):
    size = float(distance(tree, jax.tree.map(jnp.zeros_like, tree)))
    assert size < float("inf"), "not finite"
    return size


# ---- teacher ------------------------------------------------------------------------------------


def test_padding_is_not_seen():
    x = tokens(2, 4)
    for t in (teacher(), teacher(causal=True)):
        encode = jax.jit(t.encode)
        alone = encode(x)
        close(encode(jnp.concatenate([jnp.full(3, -1), x])), alone)
        assert largest(encode(x.at[0].set((x[0] + 1) % V)) - alone) > 1e-3
        close(jnp.mean(alone**2, axis=1), jnp.ones(K))  # RMS-normalised tokens


def test_all_prefixes_in_one_pass_are_the_prefixes():
    x = X[1]
    contexts = jnp.stack([jnp.concatenate([jnp.full(T - n, -1), x[:n]]) for n in range(T + 1)])
    for t in (teacher(), teacher(causal=True, depth=2)):
        close(jax.jit(t.prefixes)(x), jax.jit(jax.vmap(t.encode))(contexts))


def test_a_bidirectional_encoder_is_no_causal_one():
    x, both, one = X[1], teacher(depth=2), teacher(causal=True, depth=2)
    assert largest(jax.jit(both.encode)(x) - jax.jit(one.encode)(x)) > 1e-3


def test_the_decoder_is_causal_and_starts_at_the_memory():
    t, x = teacher(), X[1]
    m, decode = jax.jit(t.encode)(x), jax.jit(t.decode)
    logits = decode(m, x)
    assert logits.shape == (T, V)
    close(logits[0], jax.jit(t.readout)(m))
    changed = decode(m, x.at[2].set((x[2] + 1) % V))
    close(changed[:3], logits[:3])
    assert largest(changed[3:] - logits[3:]) > 1e-3


# ---- students -----------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name, options",
    [
        ("smt_memory_rnn", {"depth": 1}),
        pytest.param("elman", {"hidden": 7}, marks=pytest.mark.thorough),
        ("gru", {}),
        pytest.param("lru", {"state": 4}, marks=pytest.mark.thorough),  # a complex state
        ("lstm", {}),  # a pair
    ],
)
def test_a_student_is_a_cell_that_every_learner_takes(name, options):
    s = student(name, **options)
    cell, params = as_student_cell(s)
    learner = bptt(cell, cross_entropy)

    def whole(params):
        m, total = cell.start(params), 0.0
        for x, y in zip(X[0], Y[0]):
            m = cell.step(params, m, x)
            total += cross_entropy(cell.readout(params, m, x), y)
        return total, m

    (loss, m), expected = jax.jit(jax.value_and_grad(whole, has_aux=True))(params)
    got = jax.jit(learner.grad)(params, learner.init(params), X[0], Y[0])
    close((got[0], got[1], got[2].h), (loss, expected, m))
    close(jnp.mean(m**2, axis=1), jnp.ones(K))
    rolled = jax.jit(roll)(s, s.start(), X[0])
    assert rolled.shape == (T + 1, K, D)
    close(rolled[-1], m)


def test_a_student_needs_a_layer_with_a_step():
    with pytest.raises(ValueError, match="step"):
        student("gla")


# ---- losses -------------------------------------------------------------------------------------


def test_uniformity():
    m = jax.random.normal(jax.random.key(0), (700, D))
    assert abs(float(uniformity_loss(jnp.ones((4, K, D))))) < 1e-12  # collapsed
    poles = jnp.array([[1.0, 0], [-3.0, 0]])  # |u - v|^2 = 4
    close(uniformity_loss(poles), jnp.asarray(-8.0))
    with pytest.raises(ValueError, match="key"):
        uniformity_loss(m)
    with pytest.raises(ValueError, match="pairs"):
        uniformity_loss(m[:1])
    u = np.asarray(m / jnp.linalg.norm(m, axis=1, keepdims=True))
    square = np.sum((u[:, None] - u[None]) ** 2, axis=2)[np.triu_indices(len(u), 1)]
    sampled = jax.jit(uniformity_loss)(m, jax.random.key(1))
    assert abs(float(sampled) - np.log(np.mean(np.exp(-2 * square)))) < 0.02
    at_zero = jax.jit(jax.grad(uniformity_loss))(jnp.zeros((3, D)).at[0, 0].set(1))
    assert bool(jnp.all(jnp.isfinite(at_zero)))


def test_an_answer_that_is_not_asked_weighs_nothing():
    logits = jax.random.normal(jax.random.key(0), (4, V))
    y = jnp.array([1, -1, 2, -1])
    loss, first = decoding_loss(logits, y, 0.5)
    terms = [-jax.nn.log_softmax(logits[n])[y[n]] for n in (0, 2)]
    close(loss, (terms[0] + 0.25 * terms[1]) / 2)
    close(first, terms[0])
    assert float(decoding_loss(logits, jnp.full(4, -1))[0]) == 0


# ---- smt ----------------------------------------------------------------------------------------


def by_hand(teacher, student, x, y, context, horizon, detach=False):
    """One cut at `context` of every sequence, written out."""
    m, following, predicted, terms = [], [], [], []
    for x_, y_ in zip(x, y):
        before, after = teacher.encode(x_[:context]), teacher.encode(x_[1 : context + 1])
        logits = jax.nn.log_softmax(teacher.decode(before, x_[context : context + horizon]))
        asked = y_[context - 1 : context - 1 + horizon]
        terms += [-logits[j, c] for j, c in enumerate(asked) if c >= 0]
        predicted.append(student(jax.lax.stop_gradient(before) if detach else before, x_[context]))
        m.append(before)
        following.append(jax.lax.stop_gradient(after) if detach else after)
    error = (jnp.stack(predicted) - jnp.stack(following)) ** 2
    points = jnp.stack(m).reshape(-1, D)
    u = points / jnp.linalg.norm(points, axis=1, keepdims=True)
    square = jnp.sum((u[:, None] - u[None]) ** 2, axis=2)[np.triu_indices(len(u), 1)]
    dec, dyn = sum(terms) / len(terms), jnp.mean(error)
    return dec + 0.1 * dyn + 0.001 * jnp.log(jnp.mean(jnp.exp(-2 * square)))


@pytest.mark.share(1)
@pytest.mark.parametrize("detach", [False, True])
def test_smt_is_the_published_loss(detach):
    t, s, context, horizon = teacher(), student(), 3, 3
    learner, params = smt(t, s, horizon=horizon, context=context, batch=B, detach=detach)
    parts = {n: nnx.split(m, nnx.Param, ...) for n, m in (("teacher", t), ("student", s))}

    def loss(params):
        modules = [nnx.merge(parts[n][0], params[n], parts[n][2]) for n in ("teacher", "student")]
        return by_hand(*modules, X, np.asarray(Y), context, horizon, detach)

    expected = jax.jit(jax.value_and_grad(loss))(params)
    got = jax.jit(learner.grad)(params, learner.init(params), X, Y)
    close(got[:2], expected)
    assert got[2].h.shape == learner.init(params).h.shape == (B, K, D)


def test_smt_learns_at_every_step_of_a_sequence():
    """A causal teacher: the dynamics loss of all steps, in the gradient of the student alone."""
    t, s = teacher(causal=True), student()
    weights = Weights(decoding=0.0, dynamics=1.0, uniformity=0.0)
    learner, params = smt(t, s, horizon=2, cuts=2, weights=weights)
    start = learner.init(params, jax.random.key(0))
    loss, grads, state = jax.jit(learner.grad)(params, start, X[1], Y[1])
    m, step = jax.jit(t.prefixes)(X[1]), jax.jit(s)
    stepped = jnp.stack([step(m[n], X[1][n]) for n in range(T)])
    close(loss, jnp.mean((stepped - m[1:]) ** 2))
    close(state.h, m[-1])
    assert largest(grads["student"]["embed"]) > 0 and largest(grads["teacher"]["registers"]) > 0
    assert largest(grads["teacher"]["decoder"]) == 0 and largest(grads["student"]["head"]) == 0


def test_smt_refuses():
    t, s = teacher(causal=True), student()
    with pytest.raises(ValueError, match="causal teacher"):
        smt(t, s, horizon=2, context=3)
    learner, params = smt(t, s, horizon=2, cuts=2)
    with pytest.raises(ValueError, match="init\\(params, key\\)"):
        learner.grad(params, learner.init(params), X[0], Y[0])
    learner, params = smt(teacher(), s, horizon=4, context=3)
    with pytest.raises(ValueError, match="no context of 3"):
        learner.grad(params, learner.init(params), X[0], Y[0])


def test_smt_trains():
    """Both networks move, the loss falls, the clipped gradients stay finite."""
    learner, params = smt(teacher(causal=True), student(), horizon=3, cuts=2, batch=B)
    optimiser = smt_optimiser(1e-2)

    @jax.jit
    def run(params, key):
        def body(carry, _):
            params, moments, state = carry
            loss, grads, state = learner.grad(params, state, X, X)
            updates, moments = optimiser.update(grads, moments, params)
            return (jax.tree.map(jnp.add, params, updates), moments, state), loss

        return jax.lax.scan(
            body, (params, optimiser.init(params), learner.init(params, key)), length=60
        )

    with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
        (after, *_), losses = run(params, jax.random.key(0))
    assert float(jnp.mean(losses[-5:])) < 0.6 * float(losses[0])
    for name in ("teacher", "student"):
        moved = jax.tree.map(jnp.subtract, after[name]["embed"], params[name]["embed"])
        assert largest(moved) > 0


# ---- dmt ----------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    "causal, context, every",
    [(True, None, 2), pytest.param(False, 2, 1, marks=pytest.mark.thorough)],
)
def test_dmt_imitates_along_its_own_way_one_step_at_a_time(causal, context, every):
    t, s = teacher(causal), student()
    learner, params = dmt(t, s, context=context, every=every, batch=B)
    graph, _, rest = nnx.split(s, nnx.Param, ...)
    first = context or 0

    def memory(x, n):
        return t.encode(x[:n] if context is None else x[n - context : n])

    def loss(params):
        s, errors, terms = nnx.merge(graph, params, rest), [], []
        for x, y in zip(X, np.asarray(Y)):
            m = memory(x, first)
            for n in range(first, T + 1):
                if n > first:
                    m = s(jax.lax.stop_gradient(m), x[n - 1])
                if (n - first) % every == 0:
                    errors.append((m - memory(x, n)) ** 2)
                if n and y[n - 1] >= 0:
                    logits = s.readout(jax.lax.stop_gradient(m))
                    terms.append(-jax.nn.log_softmax(logits)[y[n - 1]])
        return 10 * jnp.mean(jnp.stack(errors)) + sum(terms) / len(terms)

    expected = jax.jit(jax.value_and_grad(loss))(params)
    start = learner.init(params)
    got = jax.jit(learner.grad)(params, start, X, Y)
    close(got[:2], expected)
    close(got[2].teacher, start.teacher)  # frozen
    assert got[2].h.shape == start.h.shape


def test_the_readout_of_dmt_does_not_enter_the_memory():
    s = student()
    gradients = []
    for readout in (0.0, 1.0):
        weights = DMTWeights(readout=readout)
        learner, params = dmt(teacher(causal=True), s, weights=weights)
        gradients.append(jax.jit(learner.grad)(params, learner.init(params), X[1], Y[1])[1])
    without, with_it = gradients
    close(without["update"], with_it["update"])
    close(without["embed"], with_it["embed"])
    assert largest(without["head"]) == 0 and largest(with_it["head"]) > 0
    assert largest(without["update"]) > 0


def test_the_stops_of_dmt_are_options():
    """Without them the gradient is that of the losses of a rollout that nothing cuts."""
    t, s = teacher(causal=True), student()
    learner, params = dmt(t, s, every=2, detach_steps=False, detach_readout=False)
    graph, _, rest = nnx.split(s, nnx.Param, ...)
    m = jax.jit(t.prefixes)(X[1])

    def loss(params):
        s = nnx.merge(graph, params, rest)
        own = roll(s, m[0], X[1])
        targets = jnp.concatenate([jnp.array([-1]), Y[1]])
        return dmt_loss(m[::2], own[::2], jax.vmap(s.readout)(own), targets).total

    got = jax.jit(learner.grad)(params, learner.init(params), X[1], Y[1])
    close(got[:2], jax.jit(jax.value_and_grad(loss))(params))
    cut = dmt(t, s, every=2)[0]
    stopped = jax.jit(cut.grad)(params, cut.init(params), X[1], Y[1])[1]
    assert largest(jax.tree.map(jnp.subtract, stopped["update"], got[1]["update"])) > 1e-3


@pytest.mark.thorough
def test_uniformity_of_whole_memories():
    t, s = teacher(), student()
    learner, params = smt(t, s, horizon=2, batch=B, over_tokens=False)
    by_token = smt(t, s, horizon=2, batch=B)[0]
    losses = [float(jax.jit(f.grad)(params, f.init(params), X, Y)[0]) for f in (learner, by_token)]
    m = jnp.stack([jax.jit(t.prefixes)(x)[:T] for x in X])  # every cut with a memory after it
    apart = uniformity_loss(m.reshape(B, T, -1)) - uniformity_loss(m)
    np.testing.assert_allclose(losses[0] - losses[1], 0.001 * apart, atol=1e-12)


def test_dmt_refuses_a_window_that_is_too_short():
    learner, params = dmt(teacher(), student(), context=3, steps=5)
    with pytest.raises(ValueError, match="no 5 memories"):
        learner.grad(params, learner.init(params), X[0], Y[0])
