"""Implicit learners give the gradient of a fixed point; FPTT holds its updates together."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments import settling
from seqjax.learn.bptt import BPTTState, bptt
from seqjax.learn.cell import Cell
from seqjax.learn.fptt import Anchor, follow_up, fptt
from seqjax.learn.implicit import ImplicitState, cg_rbp, crbp, neumann_rbp, rbp, settle
from seqjax.learn.learner import batched, follow, squared_error
from seqjax.learn.transforms import monitor_norm
from seqjax.testing import distance

N, T = 4, 3
EXACT = dict(tolerance=1e-14, steps=500)


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def tanh_cell(scale):
    """h = (tanh(W h_1 + U x + b), tanh(h_1)): the state is a tree, W of spectral norm `scale`."""
    W = drawn(0, N, N)
    params = dict(
        W=scale * W / jnp.linalg.norm(W, 2), U=drawn(1, N, 2), b=0.3 * drawn(2, N),
        V=drawn(3, 2, 2 * N),
    )  # fmt: skip

    def step(p, h, x):
        return jnp.tanh(p["W"] @ h[0] + p["U"] @ x + p["b"]), jnp.tanh(h[0])

    def readout(p, h, x):
        return p["V"] @ jnp.concatenate(h)

    return Cell(lambda p: (jnp.zeros(N), jnp.zeros(N)), step, readout), params


XS, YS = drawn(4, T, 2), drawn(5, T, 2)


def far(a, b):
    gap = float(distance(a, b))
    assert gap < float("inf"), "not finite"  # and so far from nothing
    return gap


def settled_loss(cell, params, xs=XS, ys=YS, steps=200):
    """Every x held for many steps from scratch, by autodiff through all of them."""

    def one(x, y):
        h = jax.lax.fori_loop(0, steps, lambda _, h: cell.step(params, h, x), cell.start(params))
        return squared_error(cell.readout(params, h, x), y)

    return jnp.sum(jax.vmap(one)(xs, ys))


def grads_of(make, cell, params, **options):
    learner = make(cell, squared_error, **EXACT, **options)
    return jax.jit(learner.grad)(params, learner.init(params), XS, YS)


def test_exact_solvers_equal_autodiff_through_the_settling():
    cell, params = tanh_cell(0.9)
    total, expected = jax.jit(jax.value_and_grad(partial(settled_loss, cell)))(params)
    for make, options in ((rbp, {}), (cg_rbp, dict(k=2 * N)), (neumann_rbp, dict(k=400))):
        loss, grads, state = grads_of(make, cell, params, **options)
        assert abs(loss - total) < 1e-10 and far(grads, expected) < 1e-9, make.__name__
        assert state.residual <= 1e-14 and 10 < state.iterations < 500
    # An approximation is one: fewer terms are further off, and none is exact.
    errors = [
        far(grads_of(make, cell, params, k=k)[1], expected)
        for make, k in ((neumann_rbp, 0), (neumann_rbp, 3), (neumann_rbp, 8), (cg_rbp, 2))
    ]
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2] > 1e-6 and errors[3] > 1e-3


@pytest.mark.parametrize("k", [0, 1, 4])
def test_neumann_k_is_backpropagation_through_k_plus_1_identical_steps(k):
    cell, params = tanh_cell(0.9)
    x, y = XS[0], YS[0]
    h, residual, _ = settle(cell, params, cell.start(params), x, **EXACT)
    assert residual <= 1e-14

    def last_only(out, now):
        target, counts = now
        return jnp.where(counts, squared_error(out, target), 0)

    through = bptt(cell, last_only)
    held = jnp.broadcast_to(x[None], (k + 1, 2)), (
        jnp.broadcast_to(y[None], (k + 1, 2)), jnp.arange(k + 1) == k,
    )  # fmt: skip
    truncated = through.grad(params, BPTTState(h), *held)[1]
    series = neumann_rbp(cell, squared_error, k=k, **EXACT)
    start = ImplicitState(h, jnp.zeros(()), jnp.zeros((), jnp.int32))
    _, grads, after = series.grad(params, start, x[None], y[None])
    assert after.iterations == 1  # it was there already
    assert far(grads, truncated) < 1e-12
    assert far(neumann_rbp(cell, squared_error, k=k + 1).grad(params, start, x[None], y[None])[1],
               truncated) > 1e-4  # fmt: skip


def penalised(cell, params, weight, lipschitz):
    """Loss and penalty through the settling, of which the penalty looks at the last step."""
    total = settled_loss(cell, params)
    for x in XS:
        body = lambda _, h, x=x: cell.step(params, h, x)  # noqa: E731
        h = jax.lax.fori_loop(0, 200, body, cell.start(params))
        J = jax.jacobian(lambda v, x=x: jnp.concatenate(cell.step(params, (v[:N], v[N:]), x)))(
            jnp.concatenate(h)
        )
        over = jnp.maximum(jnp.sum(J, axis=0) - lipschitz, 0)
        total += weight * jnp.linalg.norm(over)
    return total


def test_crbp_is_the_gradient_of_loss_and_penalty():
    cell, params = tanh_cell(0.9)
    loss, grads, _ = grads_of(crbp, cell, params, weight=0.7, lipschitz=0.2)
    objective = jax.jit(lambda p: penalised(cell, p, 0.7, 0.2))
    assert objective(params) - loss > 0.1  # the penalty is felt; the loss is told without it
    for seed in range(3):  # finite differences arbitrate
        way = jax.tree.map(lambda p, s=seed: drawn(7 + s, *p.shape), params)
        ahead, back = (
            objective(jax.tree.map(lambda p, d, e=e: p + e * d, params, way)) for e in (1e-5, -1e-5)
        )
        slope = sum(jnp.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (grads, way))))
        assert abs((ahead - back) / 2e-5 - slope) < 1e-6 * (1 + abs(slope))
    # Where no column of J is too large it is rbp, also in its gradient (no 0/0).
    loose = grads_of(crbp, cell, params, lipschitz=50.0)[1]
    assert far(loose, grads_of(rbp, cell, params)[1]) < 1e-12
    assert far(grads, loose) > 1e-3


def test_a_cell_that_does_not_settle_says_so():
    cell, params = tanh_cell(0.9)
    wild = params | {"W": -20 * jnp.eye(N)}
    learner = batched(rbp(cell, squared_error, tolerance=1e-9, steps=60), 2)
    xs, ys = jnp.stack([XS, XS]), jnp.stack([YS, YS])
    for weights, settles in ((params, True), (wild, False)):
        state = learner.init(weights)
        _, grads, state = jax.jit(learner.grad)(weights, state, xs, ys)
        assert bool(jnp.all(state.residual <= 1e-9)) is settles
        assert bool(jnp.all(state.iterations == 60)) is not settles
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
    # The residual of a window is its worst: that of the first x here, the second starts settled.
    once = rbp(cell, squared_error, tolerance=0.0, steps=3)
    first, twice = (
        once.grad(params, once.init(params), jnp.repeat(XS[:1], n, 0), YS[:n])[2] for n in (1, 2)
    )
    assert twice.residual == first.residual > 0 and far(first.h, twice.h) > 1e-6
    with pytest.raises(ValueError, match="steps=0"):
        rbp(cell, squared_error, steps=0)
    with pytest.raises(ValueError, match="k is at least 0"):
        neumann_rbp(cell, squared_error, k=-1)


def test_memory_does_not_grow_with_the_steps_to_settle():
    cell = settling.chain(8)
    unrolled = [settling.memory(settling.unrolled(cell, steps), 8) for steps in (10, 40)]
    implicit = [
        settling.memory(neumann_rbp(cell, settling.error, k=5, steps=steps), 8)
        for steps in (10, 40)
    ]
    assert unrolled[1] > 3 * unrolled[0] > 3 * implicit[0] and implicit[1] == implicit[0]


def test_the_puzzles_of_the_experiment_are_right():
    x, connected = settling.puzzles(jax.random.key(0), 20, 9)
    opened, source = x[:, :, 0] > 0, x[:, :, 1] > 0
    for row, first, answer in zip(opened, jnp.argmax(source, axis=1), connected):
        expected = [all(row[min(n, first) : max(n, first) + 1]) for n in range(9)]
        assert answer.tolist() == [bool(e) for e in expected]
    right, settled = settling.asked(settling.parameters(jax.random.key(0)), length=9, steps=30)
    assert 0 <= right < 0.5 and 0 <= settled <= 1


# ---- FPTT ---------------------------------------------------------------------------------------


def test_fptt_moves_its_anchor_by_the_parameters_it_is_given():
    cell, params = tanh_cell(0.9)
    alpha, beta, rate = 0.3, 0.6, 0.05
    learner = fptt(cell, squared_error, alpha=alpha, beta=beta, weight=1.5)
    xs, ys = drawn(6, 4, 2, 2), drawn(7, 4, 2, 2)  # four windows of two steps
    optimiser = optax.sgd(rate)
    run = jax.jit(partial(follow, learner, optimiser))
    found = run(params, optimiser.init(params), learner.init(params), xs, ys)

    plain = bptt(cell, squared_error)
    w, s, mean = params, jax.tree.map(jnp.zeros_like, params), params
    state, losses = plain.init(params), []
    for x, y in zip(xs, ys):
        loss, grads, state = plain.grad(w, state, x, y)
        losses.append(loss)
        grads = {k: grads[k] - s[k] + 1.5 * alpha * (w[k] - mean[k]) for k in w}
        w = {k: w[k] - rate * grads[k] for k in w}
        s = {k: s[k] - alpha * (w[k] - mean[k]) for k in w}
        mean = {k: (1 - beta) * mean[k] + beta * w[k] - beta / alpha * s[k] for k in w}
    assert far(found.params, w) < 1e-12 and far(found.losses, jnp.stack(losses)) < 1e-12
    anchor = Anchor(found.state.s, found.state.w_bar)
    assert far(follow_up(anchor, found.params, alpha, beta), Anchor(s, mean)) < 1e-12
    assert far(found.state.h, state.h) < 1e-12


def test_fptt_is_descent_without_its_regulariser():
    """rho = 1 and weight = 0 take both terms off; with them the parameters go elsewhere."""
    cell, params = tanh_cell(0.9)
    xs, ys = drawn(6, 4, 2, 2), drawn(7, 4, 2, 2)

    def ends(learner):
        optimiser = optax.sgd(0.05)
        return follow(learner, optimiser, params, optimiser.init(params), learner.init(params),
                      xs, ys).params  # fmt: skip

    plain = ends(bptt(cell, squared_error))
    assert far(ends(fptt(cell, squared_error, rho=1.0, weight=0.0)), plain) < 1e-14
    assert far(ends(fptt(cell, squared_error)), plain) > 1e-4
    with pytest.raises(ValueError, match="alpha"):
        fptt(cell, squared_error, alpha=0.0)


def test_the_norm_is_watched_before_it_is_clipped():
    cell, params = tanh_cell(0.9)
    learner = bptt(cell, squared_error)
    optimiser = optax.chain(monitor_norm(), optax.clip_by_global_norm(0.1), optax.sgd(1.0))
    xs, ys = drawn(6, 3, 2, 2), 10 * drawn(7, 3, 2, 2)
    start = params, optimiser.init(params), learner.init(params)
    whole = follow(learner, optimiser, *start, xs, ys)
    w, state, norms = params, learner.init(params), []
    for x, y in zip(xs, ys):
        _, grads, state = learner.grad(w, state, x, y)
        norms.append(float(optax.tree.norm(grads)))
        w = jax.tree.map(lambda w, g, n=norms[-1]: w - min(1, 0.1 / n) * g, w, grads)
    assert min(norms) > 1 and far(whole.params, w) < 1e-12
    found = optax.tree.get(whole.moments, "NormState")
    expected = (3, norms[2], sum(norms) / 3, max(norms))
    assert all(abs(float(a) - b) < 1e-9 for a, b in zip(found, expected))
