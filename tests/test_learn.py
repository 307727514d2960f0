"""Learners: the exact ones equal autodiff, the others are exact where they say and only there."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from jax.flatten_util import ravel_pytree

from seqjax.learn.bptt import bptt, tbptt
from seqjax.learn.cell import Cell, as_cell, stack
from seqjax.learn.columnar import StagedParams, ccn, columnar, columns, constructive
from seqjax.learn.influence import influence
from seqjax.learn.learner import batched, cross_entropy, follow, squared_error
from seqjax.learn.online_lru import online_lru
from seqjax.learn.rtrl import rtrl, rtrl_elementwise, rtrl_sparse
from seqjax.learn.snap import eprop, snap
from seqjax.learn.uoro import uoro
from seqjax.nn.base import cast_parameters
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks.task import Features, Spec, Values
from seqjax.zoo import make

D, T = 2, 6


def layer_cell(name, features=D, seed=0, learned=False, **options):
    """The cell of a layer in float64, its parameters moved off their first zeros and ones."""
    layer = cast_parameters(make(name, features, rngs=nnx.Rngs(seed), **options), jnp.float64)
    if learned:
        layer.learn_initial()
    cell, params = as_cell(layer)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys)]
    return cell, jax.tree.unflatten(tree, moved), layer.out_features


def linear(inputs, outputs, seed=9):
    """A readout: a cell without a state."""
    W = jax.random.normal(jax.random.key(seed), (outputs, inputs)) / inputs**0.5
    return Cell(lambda W: (), lambda W, h, x: (), lambda W, h, x: W @ x), W


def stream(steps=T, inputs=D, outputs=2, seed=5):
    keys = jax.random.split(jax.random.key(seed))
    return jax.random.normal(keys[0], (steps, inputs)), jax.random.normal(keys[1], (steps, outputs))


def network(*names, learned=False, **options):
    """Layers with a linear readout on top: cells and parameters, apart."""
    cells, params, width = [], [], D
    for n, name in enumerate(names):
        cell, p, width = layer_cell(name, width, seed=3 * n, learned=learned, **options)
        cells.append(cell)
        params.append(p)
    cell, p = linear(width, 2)
    return (*cells, cell), (*params, p)


@partial(jax.jit, static_argnums=0)
def exact(cell, params, xs, ys):
    """Loss and gradient by autodiff through the whole stream, the first state included."""

    def run(params):
        def body(h, now):
            h = cell.step(params, h, now[0])
            return h, squared_error(cell.readout(params, h, now[0]), now[1])

        return jnp.sum(lax.scan(body, cell.start(params), (xs, ys))[1])

    loss, grads = jax.value_and_grad(run)(params)
    return loss, ravel_pytree(grads)[0]


@partial(jax.jit, static_argnums=(0, 4))
def windows(learner, params, xs, ys, size=2, key=None):
    """The same by a learner that sees the stream in windows of `size`: gradients add up."""
    cut = jax.tree.map(lambda v: v.reshape(len(v) // size, size, *v.shape[1:]), (xs, ys))

    def body(carry, window):
        state, total, grads = carry
        loss, new, state = learner.grad(params, state, *window)
        return (state, total + loss, grads + ravel_pytree(new)[0]), None

    state = learner.init(params) if key is None else learner.init(params, key)
    start = state, jnp.zeros(()), jnp.zeros_like(ravel_pytree(params)[0])
    return lax.scan(body, start, cut)[0][1:]


def both(learner, cell, params, xs, ys, size=2):
    """The learner's loss and gradient, and the oracle's."""
    return windows(learner, params, xs, ys, size), exact(cell, params, xs, ys)


def equal(got, expected, tolerance=1e-10):
    np.testing.assert_allclose(got[0], expected[0], rtol=tolerance)
    size = float(jnp.max(jnp.abs(expected[1])))
    assert size > 1e-3
    np.testing.assert_allclose(got[1], expected[1], atol=tolerance * size)


def gap(got, expected):
    """Relative error of a gradient."""
    return float(jnp.linalg.norm(got[1] - expected[1]) / jnp.linalg.norm(expected[1]))


CELLS = {
    "elman": {},
    "gru": dict(hidden=3),
    "lru": dict(state=3),
    "mamba": dict(state=2, expand=1, conv=2),
}
EXACT = {
    "rtrl online": lambda cell, params, xs: rtrl(cell, squared_error),
    "rtrl scan": lambda cell, params, xs: rtrl(cell, squared_error, mode="scan"),
    "rtrl window": lambda cell, params, xs: rtrl(cell, squared_error, mode="window"),
    "rtrl sparse": lambda cell, params, xs: rtrl_sparse(cell, squared_error, params, xs),
}


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name",
    ["elman", "lru", *(pytest.param(n, marks=pytest.mark.thorough) for n in ("gru", "mamba"))],
)
def test_exact_learners_are_autodiff(name):
    cells, params = network(name, learned=True, **CELLS[name])
    cell, (xs, ys) = stack(*cells), stream()

    @jax.jit
    def run(params):
        expected = exact(cell, params, xs, ys)
        return expected, {k: windows(f(cell, params, xs), params, xs, ys) for k, f in EXACT.items()}

    expected, found = run(params)
    for got in found.values():
        equal(got, expected)


def test_an_online_learner_is_autodiff_step_by_step():
    cells, params = network("gru", hidden=3)
    cell, (xs, ys) = stack(*cells), stream()
    expected = exact(cell, params, xs, ys)
    for make_learner in EXACT.values():
        learner = make_learner(cell, params, xs)
        equal(windows(learner, params, xs, ys, 1), expected)


def test_finite_differences_agree():
    cells, params = network("elman")
    cell, (xs, ys) = stack(*cells), stream()
    theta, unravel = ravel_pytree(params)
    _, grads = windows(rtrl(cell, squared_error), params, xs, ys)
    direction = jax.random.normal(jax.random.key(1), theta.shape)
    step = 1e-5

    @jax.jit
    def loss(theta):
        return exact(cell, unravel(theta), xs, ys)[0]

    slope = (loss(theta + step * direction) - loss(theta - step * direction)) / (2 * step)
    np.testing.assert_allclose(grads @ direction, slope, rtol=1e-7)


@pytest.mark.thorough
def test_a_model_learns_online_exactly():
    pattern = LayerConfig("min_gru"), LayerConfig("elman")
    config = ModelConfig(layer=pattern, features=3, depth=2, compute="float64")
    model = Model(config, Spec(Features(D), Values(2, per_step=True)), rngs=nnx.Rngs(0))
    cell, params = as_cell(cast_parameters(model, jnp.float64))
    xs, ys = stream(4)
    equal(*both(rtrl(cell, squared_error), cell, params, xs, ys))


def test_bptt_is_exact_in_its_window_and_truncated_beyond():
    cells, params = network("gru", hidden=3)
    cell, (xs, ys) = stack(*cells), stream(12)
    expected = exact(cell, params, xs, ys)
    learners = {
        "plain": bptt(cell, squared_error),
        "chunks": bptt(cell, squared_error, chunks=(4, 2)),
        "long": tbptt(cell, squared_error, params, xs, k1=4, k2=12),
    }
    for learner in learners.values():
        equal(windows(learner, params, xs, ys, 12), expected)
    equal(windows(learners["long"], params, xs, ys, 4), expected)
    for k1, k2 in ((1, 1), (1, 3), (3, 5)):
        assert gap(windows(tbptt(cell, squared_error, params, xs, k1=k1, k2=k2), params, xs, ys, 4),
                   expected) > 1e-3  # fmt: skip
    with pytest.raises(ValueError, match="chunks of 5 steps do not divide 12"):
        windows(bptt(cell, squared_error, chunks=(5,)), params, xs, ys, 12)
    with pytest.raises(ValueError, match="1 <= k1 <= k2"):
        tbptt(cell, squared_error, params, xs, k1=3, k2=2)


def test_parallel_backward_is_bptt():
    cell, params, _ = layer_cell("gru", hidden=3)
    xs, ys = stream(outputs=3)
    learner = bptt(cell, squared_error, evaluator="parallel_backward")
    equal(*both(learner, cell, params, xs, ys, T))


@pytest.mark.thorough
def test_elementwise_rtrl_is_exact_and_small():
    xs, ys = stream(outputs=3)
    for name, units in (("indrnn", 1), ("min_gru", 1), ("lru", 2)):
        options = dict(hidden=3) if name == "indrnn" else dict(state=3) if name == "lru" else {}
        cell, params, width = layer_cell(name, **options)
        learner = rtrl_elementwise(cell, squared_error, params, xs)
        equal(*both(learner, cell, params, xs, ys[:, :width]))
        assert learner.init(params).M.shape[1] == units
    cell, params, _ = layer_cell("elman", hidden=4)
    with pytest.raises(ValueError, match="takes element-wise recurrences: here a unit sees 4"):
        rtrl_elementwise(cell, squared_error, params, xs)


@pytest.mark.thorough
@pytest.mark.parametrize("name, options", [
    ("gla", dict(heads=2)),
    pytest.param("gated_deltanet", dict(heads=1, key_size=2, value_size=2, conv=2),
                 marks=pytest.mark.thorough),
])  # fmt: skip
def test_matrix_states_have_exact_rtrl(name, options):
    """The kept part of M is the whole of it; how much that is depends on who moves whom."""
    cell, params, width = layer_cell(name, 4, **options)
    xs, ys = stream(4, inputs=4, outputs=width)
    learner = rtrl_sparse(cell, squared_error, params, xs)
    equal(*both(learner, cell, params, xs, ys))


@pytest.mark.thorough
def test_snap_is_exact_where_nothing_reaches_further_and_differs_elsewhere():
    xs, ys = stream()
    cells, params = network("indrnn")
    near = snap(stack(*cells), squared_error, params, xs)
    equal(*both(near, stack(*cells), params, xs, ys))
    cell, params, _ = layer_cell("elman", hidden=4)
    ys = jnp.concatenate([ys, ys], axis=1)
    expected = exact(cell, params, xs, ys)
    learner = snap(cell, squared_error, params, xs)
    assert learner.init(params).M.shape[1] == 1  # as many numbers as parameters
    assert gap(windows(learner, params, xs, ys), expected) > 0.01
    equal(windows(snap(cell, squared_error, params, xs, n=2), params, xs, ys), expected)
    # e-prop without its own is the diagonal of the Jacobian, that is SnAp-1 of a dense network
    traces = windows(eprop(cell, squared_error, params, xs), params, xs, ys)
    equal(traces, windows(learner, params, xs, ys))
    with pytest.raises(ValueError, match="n >= 1"):
        snap(cell, squared_error, params, xs, n=0)


@pytest.mark.thorough
def test_online_lru_is_exact_for_one_layer_and_for_the_upper_of_two():
    xs, ys = stream()
    cells, params = network("lru", state=3)
    for mode in ("online", "scan"):
        learner = online_lru(stack(*cells), squared_error, params, xs, mode=mode)
        equal(*both(learner, stack(*cells), params, xs, ys))
    cells, params = network("lru", "lru", state=3)
    expected = exact(stack(*cells), params, xs, ys)
    found = [
        windows(online_lru(stack(*cells), squared_error, params, xs, mode=mode), params, xs, ys)
        for mode in ("online", "scan")
    ]
    equal(found[0], found[1])
    lower = ravel_pytree(params[0])[0].size
    np.testing.assert_allclose(found[0][1][lower:], expected[1][lower:], atol=1e-9)
    assert gap((0, found[0][1][:lower]), (0, expected[1][:lower])) > 0.01


def test_uoro_is_unbiased_and_rank_lowers_its_variance():
    cells, params = network("elman")
    cell, (xs, ys) = stack(*cells), stream(4)
    expected = exact(cell, params, xs, ys)[1]
    count, spread = 4000, {}
    for rank in (1, 4):
        run = jax.jit(jax.vmap(lambda key, rank=rank: windows(
            uoro(cell, squared_error, rank=rank), params, xs, ys, key=key)[1]))  # fmt: skip
        drawn = run(jax.random.split(jax.random.key(rank), count))
        error, deviation = jnp.mean(drawn, axis=0) - expected, jnp.std(drawn, axis=0)
        assert float(jnp.max(jnp.abs(error) / (deviation / count**0.5 + 1e-9))) < 5  # 5 sigma
        spread[rank] = float(jnp.sum(deviation**2))
    assert spread[1] > 1e-2 and 3 < spread[1] / spread[4] < 5.3, spread
    with pytest.raises(ValueError, match="init\\(params, key\\)"):
        uoro(cell, squared_error).init(params)


def test_columns_are_exact_and_small():
    one, _, _ = layer_cell("elman", hidden=1)
    _, params, _ = layer_cell("elman", hidden=1)
    many = jax.tree.map(lambda p: jnp.stack([p, 0.5 * p, -p]), params)
    xs, ys = stream(outputs=3)
    cell = columns(one)
    learner = columnar(cell, squared_error, many, xs)
    equal(*both(learner, cell, many, xs, ys))
    assert learner.init(many).M.shape[1] == 1


@pytest.mark.thorough
def test_a_constructive_network_learns_one_stage_at_a_time():
    stages, per_stage, period = 2, 2, 5
    one, _, _ = layer_cell("elman", D + stages * per_stage, hidden=1)
    p = [layer_cell("elman", D + stages * per_stage, seed=n, hidden=1)[1] for n in range(4)]
    stacked = jax.tree.map(lambda *v: jnp.stack(v).reshape(stages, per_stage, *v[0].shape), *p)
    params = StagedParams(stacked, 0.3 * jnp.ones((2, 4)), jnp.zeros(2))
    xs, ys = stream(2 * period)
    learner = ccn(one, squared_error, params, xs[0], period=period)
    state = learner.init(params)

    @jax.jit
    def grad(params, state, xs, ys):
        return learner.grad(params, state, xs, ys)

    def loss(params, state, xs, ys):  # autodiff through the same features
        def body(state, now):
            told, _, new = learner.grad(params, state, now[0][None], now[1][None])
            return new._replace(mean=lax.stop_gradient(new.mean),
                                variance=lax.stop_gradient(new.variance)), told  # fmt: skip

        return jnp.sum(lax.scan(body, state, (xs, ys))[1])

    for stage in range(stages):
        part = slice(stage * period, (stage + 1) * period)
        _, grads, after = grad(params, state, xs[part], ys[part])
        whole = jax.jit(jax.grad(loss))(params, state, xs[part], ys[part])
        for learned, told in zip(jax.tree.leaves(grads.columns), jax.tree.leaves(whole.columns)):
            np.testing.assert_allclose(learned[stage], told[stage], atol=1e-10)
            assert float(jnp.abs(learned[stage]).max()) > 0
            assert float(jnp.abs(learned[1 - stage]).max()) == 0  # frozen, or not yet there
        np.testing.assert_allclose(grads.readout, whole.readout, atol=1e-10)
        state = after
    with pytest.raises(ValueError, match="one column per stage, got 2"):
        constructive(one, squared_error, params, xs[0], period=period)


LONG = {
    "rtrl_elementwise": lambda cells, params, xs: rtrl_elementwise(
        stack(*cells), squared_error, params, xs
    ),
    "online_lru": lambda cells, params, xs: online_lru(stack(*cells), squared_error, params, xs),
    "uoro": lambda cells, params, xs: uoro(stack(*cells), squared_error),
    "snap": lambda cells, params, xs: snap(stack(*cells), squared_error, params, xs),
    "tbptt": lambda cells, params, xs: tbptt(stack(*cells), squared_error, params, xs, k1=1, k2=4),
}


@pytest.mark.share(1)
@pytest.mark.parametrize("name", LONG)
def test_an_endless_stream_takes_constant_memory(name):
    """10^5 online updates of a tracking task: it learns, stays finite, and needs no more memory."""
    cells, params = network("indrnn")
    learner, optimiser = LONG[name](cells, params, stream()[0]), optax.sgd(3e-3)
    moments = optimiser.init(params)

    def run(steps):
        state = learner.init(params, jax.random.key(0))
        xs = jax.random.normal(jax.random.key(1), (steps, 1, D))
        ys = jnp.concatenate([jnp.zeros((1, 1, D)), xs[:-1]])  # the input before
        return follow(learner, optimiser, params, moments, state, xs, ys).losses

    sizes = [
        jax.jit(partial(run, n)).lower().compile().memory_analysis().temp_size_in_bytes / n
        for n in (1000, 2000)
    ]
    assert abs(sizes[1] - sizes[0]) < 0.2 * sizes[0] < 200  # the stream itself, and nothing else
    losses = jax.jit(partial(run, 100_000))()
    assert jnp.isfinite(losses).all()
    assert float(losses[-5000:].mean()) < 0.7 * float(losses[:200].mean())


def test_streams_side_by_side():
    cells, params = network("elman")
    cell, (xs, ys) = stack(*cells), stream()
    learner = batched(rtrl(cell, squared_error), 2)
    pair = jnp.stack([xs, 2 * xs]), jnp.stack([ys, ys])
    loss, grads, _ = learner.grad(params, learner.init(params), *pair)
    alone = [exact(cell, params, x, y) for x, y in zip(*pair)]
    equal((loss, ravel_pytree(grads)[0]), jax.tree.map(lambda *v: sum(v) / 2, *alone))
    drawn = batched(uoro(cell, squared_error), 3).init(params, jax.random.key(0))
    assert drawn.a.shape[0] == 3 and not jnp.array_equal(drawn.a[0], drawn.a[1])


def test_cross_entropy():
    y = jnp.array([0.1, 2.0, -1.0])
    np.testing.assert_allclose(cross_entropy(y, jnp.int32(1)), -jax.nn.log_softmax(y)[1])
    assert cross_entropy(y, jnp.int32(-1)) == 0


def test_what_is_no_cell():
    with pytest.raises(ValueError, match="reads the future"):
        as_cell(make("bidirectional", 2, layer=("gru", dict(hidden=3)), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="a layer or a model, got Linear"):
        as_cell(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="mode of rtrl"):
        rtrl(layer_cell("elman")[0], squared_error, mode="sideways")


def test_a_rectifier_that_is_mostly_off_is_found():
    cell, params, _ = layer_cell("indrnn", hidden=64, activation="relu")
    kept = influence(cell, params, stream()[0][:1]).pattern
    assert kept.jacobian.sum() == 64 and kept.direct.sum() == len(kept.units)


def test_the_pattern_of_a_network():
    cell, params, _ = layer_cell("elman", hidden=4)
    xs = stream()[0]
    kept = influence(cell, params, xs, steps=1).pattern
    assert kept.units.shape[1] == 1 and kept.rows.max() == 0 and kept.columns.max() == 3
