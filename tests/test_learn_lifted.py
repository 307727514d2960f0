"""States as variables: closed forms on linear cells, and BPTT where the constraint is met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.learn.bptt import bptt, tbptt
from seqjax.learn.cell import Cell
from seqjax.learn.learner import batched, squared_error
from seqjax.learn.lifted import lifted_admm, lifted_bcd, lifted_penalty, local_propagation
from seqjax.learn.predictive import predictive_coding
from seqjax.testing import distance

N, D, O, T = 3, 2, 2, 5


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


PARAMS = dict(A=0.5 * drawn(0, N, N), B=drawn(1, N, D), C=drawn(2, O, N))
LINEAR, TANH = (
    Cell(
        lambda p: jnp.full(N, 0.3),
        lambda p, h, x, f=f: f(p["A"] @ h + p["B"] @ x),
        lambda p, h, x: p["C"] @ h,
    )
    for f in (lambda a: a, jnp.tanh)
)
XS, YS = drawn(3, T, D), drawn(4, T, O)


def window(learner, params=PARAMS, state=None):
    state = learner.init(params) if state is None else state
    return jax.jit(learner.grad)(params, state, XS, YS)


def gap(a, b):
    return float(distance(a, b)) / max(float(jnp.max(jnp.abs(v))) for v in jax.tree.leaves(b))


def matrices():
    """r = M v - b of the linear cell, and readouts S v, v as one vector [T N], by numpy."""
    A, B, C = (np.asarray(PARAMS[k]) for k in "ABC")
    M = np.eye(T * N) - np.kron(np.eye(T, k=-1), A)
    b = (np.asarray(XS) @ B.T).reshape(-1)
    b[:N] += A @ np.full(N, 0.3)
    return M, b, np.kron(np.eye(T), C), np.asarray(YS).reshape(-1)


def minimum(mu):
    """v that minimises 1/2 |S v - y|^2 + mu/2 |M v - b|^2: least squares."""
    M, b, S, y = matrices()
    rows, right = np.vstack([S, mu**0.5 * M]), np.concatenate([y, mu**0.5 * b])
    return np.linalg.lstsq(rows, right, rcond=None)[0].reshape(T, N)


@pytest.mark.parametrize("mu", [1.0, 7.0])
@pytest.mark.parametrize("rule", ["penalty", "bcd"])
def test_penalties_find_the_least_squares_of_a_linear_cell(rule, mu):
    learner = {
        "penalty": lifted_penalty(LINEAR, squared_error, weight=mu, steps=T,
                                  rate=min(mu / 10, 0.3), iterations=3000),
        "bcd": lifted_bcd(LINEAR, squared_error, weight=mu, sweeps=300, steps=T),
    }[rule]  # fmt: skip
    loss, grads, state = window(learner)
    assert abs(loss - window(bptt(LINEAR, squared_error))[0]) < 1e-12
    v = minimum(mu)
    np.testing.assert_allclose(state.vs, v, atol=1e-9)
    # dL/dtheta there, by hand
    A, B, C = (np.asarray(PARAMS[k]) for k in "ABC")
    before = np.vstack([np.full(N, 0.3), v[:-1]])
    r = v - before @ A.T - np.asarray(XS) @ B.T
    by_hand = dict(
        A=-mu * r.T @ before, B=-mu * r.T @ XS, C=(v @ C.T - np.asarray(YS)).T @ v
    )  # fmt: skip
    assert gap(grads, by_hand) < 1e-8


def test_one_sweep_minimises_a_single_step():
    learner = lifted_bcd(LINEAR, squared_error, weight=2.0, sweeps=1, steps=1)
    _, _, state = learner.grad(PARAMS, learner.init(PARAMS), XS[:1], YS[:1])
    M, b, S, y = (v[:k] for v, k in zip(matrices(), (N, N, O, O), strict=True))
    rows = np.vstack([S[:, :N], 2**0.5 * M[:, :N]])
    v = np.linalg.lstsq(rows, np.concatenate([y, 2**0.5 * b]), rcond=None)[0]
    np.testing.assert_allclose(state.vs[0], v, atol=1e-12)


@pytest.mark.share(2)
@pytest.mark.parametrize("cell", [LINEAR, TANH], ids=["linear", "tanh"])
@pytest.mark.parametrize("rule", ["admm", "local"])
def test_multipliers_meet_the_constraint_and_backpropagation(rule, cell):
    options = dict(weight=4.0, rate=0.2, steps=T)
    learner = {
        "admm": lifted_admm(cell, squared_error, rounds=300, iterations=30, **options),
        "local": local_propagation(cell, squared_error, ascent=0.3, iterations=8000, **options),
    }[rule]
    exact = bptt(cell, squared_error)
    _, expected, _ = window(exact)
    _, grads, state = window(learner)
    assert gap(grads, expected) < 1e-7
    # KKT: v is what the cell goes through, lambda_t minus what the loss owes to h_t
    h, hs = cell.start(PARAMS), []
    for x in XS:
        h = cell.step(PARAMS, h, x)
        hs.append(h)
    np.testing.assert_allclose(state.vs, jnp.stack(hs), atol=1e-7)

    def from_there(t, push):
        h, total = hs[t] + push, 0.0
        for s in range(t, T):
            h = h if s == t else cell.step(PARAMS, h, XS[s])
            total += squared_error(cell.readout(PARAMS, h, XS[s]), YS[s])
        return total

    credit = jnp.stack([jax.grad(lambda p, t=t: from_there(t, p))(jnp.zeros(N)) for t in range(T)])
    np.testing.assert_allclose(state.duals, -credit, atol=1e-6)


def test_a_penalty_is_backpropagation_as_it_grows():
    """To O(1/mu): ten times the weight, a tenth of the error."""
    expected = window(bptt(TANH, squared_error))[1]
    far = [
        gap(window(make(TANH, squared_error, weight=mu, **options))[1], expected)
        for mu in (1e3, 1e4)
        for make, options in (
            (lifted_penalty, dict(iterations=800)), (lifted_bcd, dict(sweeps=100)),
        )
    ]  # fmt: skip
    assert far[0] / far[2] == pytest.approx(10, rel=0.1)
    assert far[1] / far[3] == pytest.approx(10, rel=0.1)
    grown = lifted_penalty(TANH, squared_error, weight=10.0, growth=10.0, iterations=800)
    _, _, state = window(grown)
    again = state._replace(visits=jnp.array(2, jnp.int32), h=TANH.start(PARAMS))
    assert gap(window(grown, state=again)[1], expected) == pytest.approx(far[0], rel=1e-6)


@pytest.mark.parametrize("rule", ["admm", "local"])
def test_examples_seen_again_are_learned_to_their_least_squares(rule):
    """One visit does little: v and lambda go on, and training ends where least squares are."""
    count, steps = 12, 1
    xs, ys = drawn(5, count, steps, D), drawn(6, count, steps, O)
    cell = Cell(lambda p: jnp.zeros(O), lambda p, h, x: p["W"] @ x, lambda p, h, x: h)
    options = dict(weight=1.0, rate=0.3, iterations=1, steps=steps)
    learner = batched(
        lifted_admm(cell, squared_error, rounds=1, **options) if rule == "admm"
        else local_propagation(cell, squared_error, ascent=0.3, **options),
        count,
    )  # fmt: skip

    def visit(carry, _):
        params, state = carry
        _, grads, state = learner.grad(params, state, xs, ys)
        return (jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), state), None

    params = dict(W=jnp.zeros((O, D)))
    run = jax.jit(lambda c: jax.lax.scan(visit, c, length=1000)[0])
    params, state = run((params, learner.init(params)))
    W = np.linalg.lstsq(np.asarray(xs[:, 0]), np.asarray(ys[:, 0]), rcond=None)[0].T
    np.testing.assert_allclose(params["W"], W, atol=1e-8)
    # each example has its own multiplier: what its target misses
    np.testing.assert_allclose(state.duals[:, 0], ys[:, 0] - xs[:, 0] @ W.T, atol=1e-8)


def test_a_stream_goes_on_and_an_example_begins_again():
    stream, example = (lifted_penalty(TANH, squared_error, steps=s) for s in (None, T))
    for learner, where in ((stream, None), (example, TANH.start(PARAMS))):
        _, first, state = window(learner)
        _, second, after = window(learner, state=state)
        assert gap(first, second) > 1e-5 and after.visits == 2
        assert where is None or gap(state.vs, after.vs) > 1e-6
    with pytest.raises(ValueError, match="the example has 4 steps, got a window of 5"):
        window(lifted_bcd(TANH, squared_error, steps=4))
    for wrong in (dict(weight=0.0), dict(rate=-1.0), dict(steps=0), dict(growth=0.0)):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
            lifted_penalty(TANH, squared_error, **wrong)


# ---- predictive coding --------------------------------------------------------------------------


def test_fixed_predictions_are_backpropagation():
    exact = window(bptt(TANH, squared_error))
    found = window(predictive_coding(TANH, squared_error))
    assert abs(found[0] - exact[0]) < 1e-12 and gap(found[1], exact[1]) < 1e-12
    assert gap(found[2].h, exact[2].h) < 1e-12
    slow = window(predictive_coding(TANH, squared_error, rate=0.2, iterations=400))
    assert gap(slow[1], exact[1]) < 1e-12


def test_an_error_moves_a_step_an_iteration():
    """k iterations send every loss back over k steps, as TBPTT(1, k) does."""
    for k in (1, 2, 4):
        cut = tbptt(TANH, squared_error, PARAMS, XS, k1=1, k2=k)
        assert gap(window(predictive_coding(TANH, squared_error, iterations=k))[1],
                   window(cut)[1]) < 1e-12  # fmt: skip
    assert gap(window(cut)[1], window(bptt(TANH, squared_error))[1]) > 1e-4


def test_moving_predictions_rest_at_the_energy():
    """On a linear cell the energy is the penalty of weight 1, whose minimum is a least squares."""
    learner = predictive_coding(LINEAR, squared_error, fixed=False, rate=0.1, iterations=3000)
    penalty = lifted_penalty(LINEAR, squared_error, rate=0.1, iterations=3000)
    assert gap(window(learner)[1], window(penalty)[1]) < 1e-12
    # an output of large variance: a tenth of the loss, a tenth of what is between them
    expected, far = window(bptt(TANH, squared_error))[1], []
    for size in (1e-2, 1e-3):
        made = predictive_coding(
            TANH, lambda y, to, size=size: size * squared_error(y, to), fixed=False, rate=0.3,
            iterations=800,
        )  # fmt: skip
        far.append(gap(jax.tree.map(lambda g, size=size: g / size, window(made)[1]), expected))
    assert far[0] / far[1] == pytest.approx(10, rel=0.1) and far[1] < 1e-2
    for wrong in (dict(rate=0.0), dict(iterations=-1)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            predictive_coding(TANH, squared_error, **wrong)
