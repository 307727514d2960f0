"""Claims of the fast-weight family that no contract states: equalities of forms and rules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle_tools import learn

from seqjax.core.flow import Carry, Flow
from seqjax.layers.fast_weights.comba import closed_loop_delta_rule
from seqjax.layers.fast_weights.gdn2 import decoupled_delta_rule
from seqjax.layers.fast_weights.neural_ode_fwp import SOLVERS, ODEState
from seqjax.nn.base import cast_parameters
from seqjax.ops.delta_rule import delta_rule, gated_delta_rule
from seqjax.ops.inner_model import Inner, Steps, start_of
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.mesa import mesa
from seqjax.ops.positions import rotary
from seqjax.zoo import make

T, H, D = 13, 2, 3
PLAIN = partial(Inner, loss="regression", output="plain", bias=False)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def agree(found, expected, tolerance=1e-10):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance)


def keys_and_values():
    q, k, v = normal(0, 3, T, H, D)
    k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
    return q, k, v, jax.nn.sigmoid(normal(1, T, H))


def optimiser(momentum):
    """Step sizes and, with `momentum`, the gates of it and of forgetting [T, H]."""
    theta, tau, eta, alpha = jax.nn.sigmoid(normal(2, 4, T, H))
    if not momentum:
        return dict(theta=theta, tau=tau)
    return dict(theta=theta / 4, log_eta=jnp.log(eta), log_keep=jnp.log1p(-alpha))


def learner(widths, momentum):
    W = tuple(0.5 * normal(5 + n, H, i + 1, o) for n, (i, o) in enumerate(zip(widths, widths[1:])))
    return start_of(W, momentum=momentum, decay=momentum)


@pytest.mark.parametrize(
    "widths, momentum",
    [((D, D), False), pytest.param((D, 5, D), True, marks=pytest.mark.thorough)],
    ids=["gradient", "momentum, decay"],
)
def test_dual_form_is_the_chain_of_chunks_is_the_step(widths, momentum):
    """A linear model and an MLP: whole, and cut into streams that end inside chunks, as one step
    after the other; without flags, and with resets and masks."""
    q, k, v, _ = keys_and_values()
    inner, norm = Inner(4), (1 + 0.1 * normal(8, H, D), 0.1 * normal(9, H, D))
    xs, h = Steps(q, k, v, **optimiser(momentum)), learner(widths, momentum)
    resets, mask = jnp.zeros(T, bool).at[jnp.array([6, 8])].set(True), jnp.arange(T) != 3

    def run(xs, now, resets=None, mask=None, evaluator=None):
        return learn(inner, xs, norm, Carry(now, h), Flow(resets, mask, evaluator=evaluator))

    @jax.jit
    def by_steps(resets, mask):
        return run(xs, h, resets, mask, "sequential")

    @jax.jit
    def in_pieces(resets, mask):
        now, ys = h, []
        for piece in (slice(0, 2), slice(2, 3), slice(3, 9), slice(9, T)):
            part = jax.tree.map(lambda z, piece=piece: z[piece], xs)
            y, now = run(part, now, resets[piece], mask[piece], "chunked")
            ys.append(y)
        return jnp.concatenate(ys), now

    never, always = jnp.zeros(T, bool), jnp.ones(T, bool)
    expected = by_steps(never, always)
    assert int(expected[1].count) == T % 4
    agree(jax.jit(lambda xs, h: run(xs, h, None, None, "chunked"))(xs, h), expected)
    agree(in_pieces(never, always), expected)
    (y, last), (found, end) = by_steps(resets, mask), in_pieces(resets, mask)
    assert int(last.count) == (T - 8) % 4
    agree((found[mask], end), (y[mask], last))


@pytest.mark.thorough
def test_titans_in_context_by_chunks_is_the_step_under_any_flags():
    """Streams that begin inside a chunk, resets and masks anywhere: values, states, gradients."""
    options = dict(placement="context", heads=2, size=4, hidden=(3,), conv=2)
    layer = cast_parameters(make("titans", 4, rngs=nnx.Rngs(0), **options), jnp.float64)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    B, T = 16, 13
    draw = np.random.default_rng(0)
    x, other = normal(1, B, T, 4), normal(2, B, 3, 4)
    resets, mask = jnp.asarray(draw.random((B, T)) < 0.15), jnp.asarray(draw.random((B, T)) < 0.8)
    before = jnp.arange(3)[None] < jnp.arange(B)[:, None] % 4  # 0 to 3 steps of the first chunk
    _, h = jax.jit(lambda x, mask: layer(x, mask=mask))(other, before)
    assert set(np.asarray(h.memory.learner.count)) == {0, 1, 2, 3}

    @partial(jax.jit, static_argnames="evaluator")
    @partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
    def run(params, W, x, evaluator):
        memory = h.memory._replace(learner=h.memory.learner._replace(W=W))
        layer = nnx.merge(graph, params, rest)
        y, end = layer(x, h._replace(memory=memory), resets, mask, evaluator=evaluator)
        floats = y, end.attention, end.memory.learner._replace(count=None)
        return sum(jnp.sum(jnp.sin(z)) for z in jax.tree.leaves(floats)), (y, end)

    W = h.memory.learner.W
    agree(run(params, W, x, "chunked"), run(params, W, x, "sequential"))


def test_learning_one_step_at_a_time_is_the_delta_rule():
    """A linear model, squared loss, mini-batches of one: DeltaNet."""
    q, k, v, beta = keys_and_values()
    h = start_of((normal(3, H, D, D),), momentum=False, decay=False)
    y, last = learn(PLAIN(1), Steps(q, k, v, beta), None, Carry(h, h), Flow())
    expected, S = delta_rule(q, k, v, beta, h.W[0])
    agree((y, last.W[0]), (expected, S))


def test_learning_in_one_batch_from_zero_is_linear_attention():
    """All gradients at W = 0 (2407.04620 theorem 1)."""
    q, k, v, beta = keys_and_values()
    h = start_of((jnp.zeros((H, D, D)),), momentum=False, decay=False)
    y, _ = learn(PLAIN(T), Steps(q, k, v, beta), None, Carry(h, h), Flow())
    agree(y, linear_attention(q, k, beta[..., None] * v)[0])


def test_forgetting_comes_after_the_read_of_the_gradient():
    """Titans without momentum, chunks of one step: M_t = (1 - alpha_t) M - theta_t grad at M."""
    q, k, v, beta = keys_and_values()
    alpha = jax.nn.sigmoid(normal(4, T, H))
    h = start_of((normal(3, H, D, D),), momentum=False, decay=True)
    xs = Steps(q, k, v, beta, log_keep=jnp.log1p(-alpha))
    y, last = learn(PLAIN(1), xs, None, Carry(h, h), Flow())
    S, reads = h.W[0], []
    for t in range(T):
        error = v[t] - jnp.einsum("hk,hkv->hv", k[t], S)
        S = (1 - alpha[t])[:, None, None] * S + jnp.einsum("h,hk,hv->hkv", beta[t], k[t], error)
        reads.append(jnp.einsum("hk,hkv->hv", q[t], S))
    agree((y, last.W[0]), (jnp.stack(reads), S))


def test_what_reduces_to_the_gated_delta_rule():
    q, k, v, beta = keys_and_values()
    log_a = jax.nn.log_sigmoid(normal(4, T, H))
    expected = gated_delta_rule(q, k, v, beta, log_a)
    # Comba's correction reads the state before it decays
    late = jnp.exp(log_a)[..., None] * k
    agree(closed_loop_delta_rule(q, k, v, late, beta, log_a), expected)
    wide = lambda z: jnp.broadcast_to(z[..., None], k.shape)  # noqa: E731
    agree(decoupled_delta_rule(q, k, v, wide(beta), wide(beta), wide(log_a)), expected)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["ttt_linear", "titans"])
def test_one_step_of_a_plain_linear_model_is_the_delta_rule(name):
    """Through the table of layers: the options take away norm, residual, momentum and decay."""
    options = {
        "ttt_linear": dict(mini_batch=1, residual=False, bias=False),
        "titans": dict(placement="memory", size=1, hidden=(), momentum=False, decay=False),
    }
    layer = cast_parameters(make(name, H * D, heads=H, **options[name]), jnp.float64)
    x, S = normal(0, 1, T, H * D), normal(1, H, D, D)
    if name == "titans":
        layer.memory.slow.W[0].set_value(S)
        window = layer.memory.conv.initial()
        q, k, v, _ = layer.memory.project(x[0], Carry(window, window), Flow())
        theta = jax.nn.sigmoid(layer.memory.gates(x[0]) + layer.memory.gate_bias[...][None])
        y, _ = delta_rule(q, k, v, 2 * theta, S)
        expected = layer.W_o(y.reshape(T, -1))
    else:
        layer.slow.W[0].set_value(S)
        q, k, v = (W(x[0]).reshape(T, H, D) for W in (layer.W_q, layer.W_k, layer.W_v))
        theta = jax.nn.sigmoid(layer.W_lr(x[0])) / D
        y, _ = delta_rule(q, k, v, theta, S)
        expected = layer.W_o(layer.norm(y.reshape(T, -1)))
    agree(layer(x)[0][0], expected)


@pytest.mark.thorough
def test_one_mini_batch_of_a_plain_linear_model_is_linear_attention():
    layer = make("ttt_linear", H * D, heads=H, mini_batch=T, residual=False, bias=False)
    layer = cast_parameters(layer, jnp.float64)
    layer.slow.W[0].set_value(jnp.zeros((H, D, D)))
    x, place = normal(0, 1, T, H * D), jnp.arange(T)
    q, k, v = (W(x[0]).reshape(T, H, D) for W in (layer.W_q, layer.W_k, layer.W_v))
    q, k = rotary(q, place), rotary(k, place)
    theta = jax.nn.sigmoid(layer.W_lr(x[0])) / D
    y, _ = linear_attention(q, theta[..., None] * k, v)
    y = y / (place + 1).astype(y.dtype)[:, None, None]
    agree(layer(x)[0][0], layer.W_o(layer.norm(y.reshape(T, -1))))


def test_comba_reads_before_the_decay():
    """With q = k = v = p = 1, beta = 1 and a decay of 1/2: S = 1, then 1/2 + (1 - 1)."""
    one = jnp.ones((2, 1, 1))
    y, S = closed_loop_delta_rule(one, one, one, one, one[..., 0], jnp.log(one[..., 0] / 2))
    agree((y[:, 0, 0], S), (jnp.array([1, 0.5]), jnp.full((1, 1, 1), 0.5)))


def test_the_mesa_read_is_ridge_regression_and_conjugate_gradients_reach_it():
    q, k, v, beta = keys_and_values()
    Lambda, log_gamma = 0.3 + jax.nn.sigmoid(normal(6, H, D)), jax.nn.log_sigmoid(normal(7, T, H))
    S = jnp.zeros((H, D, 2 * D))
    read = partial(mesa, q, k, v, log_gamma, beta, Lambda, S)
    o, _ = read(evaluator="sequential", iterations=D)
    for head in range(H):  # the least squares problem of the last step, with its prior as data
        since = jnp.sum(log_gamma[:, head]) - jnp.cumsum(log_gamma[:, head])
        weight = beta[:, head] * jnp.exp(since)
        rows = [jnp.sqrt(weight)[:, None] * k[:, head], jnp.diag(jnp.sqrt(Lambda[head]))]
        answers = [jnp.sqrt(weight)[:, None] * v[:, head], jnp.zeros((D, D))]
        M = jnp.linalg.lstsq(jnp.concatenate(rows), jnp.concatenate(answers))[0]
        agree(o[-1, head], q[-1, head] @ M)
    errors = [jnp.max(jnp.abs(read(evaluator="chunked", iterations=n)[0] - o)) for n in (1, 2, D)]
    assert errors[0] > 2 * errors[1] > 1e-3 and errors[2] < 1e-10


@pytest.mark.thorough
def test_continuous_rules_converge_with_the_order_of_their_solver():
    x = normal(1, 5, 4)

    def end(solver, substeps):
        options = dict(heads=2, rule="delta", solver=solver, substeps=substeps)
        layer = make("neural_ode_fwp", 4, rngs=nnx.Rngs(0), **options)
        layer = cast_parameters(layer, jnp.float64)
        return layer(x[None], layer.batch_state(1, jnp.float64))[1].W

    exact = end("rk4", 256)
    for solver, order in (("euler", 1), ("midpoint", 2), ("rk4", 4), ("rk38", 4)):
        coarse, fine = (float(jnp.max(jnp.abs(end(solver, n) - exact))) for n in (16, 32))
        assert abs(np.log2(coarse / fine) - order) < 0.2, (solver, coarse, fine)
    assert set(SOLVERS) == {"euler", "midpoint", "rk4", "rk38"}


def test_a_unit_step_of_euler_is_a_step_of_the_delta_net():
    """With beta and the key of the step before: the line is taken at its beginning."""
    layer = make("neural_ode_fwp", 4, rngs=nnx.Rngs(0), heads=2, solver="euler")
    layer = cast_parameters(layer, jnp.float64)
    W, before, x = normal(1, 2, 2, 2), normal(2, 4), normal(3, 4)
    h = layer.step(ODEState(W, before, jnp.ones((), bool)), (x, jnp.ones(())))
    u = layer.norm(layer.W_in(before))
    k, v = jax.nn.softmax(layer.W_k(u).reshape(2, 2)), jnp.tanh(layer.W_v(u).reshape(2, 2))
    beta = jax.nn.sigmoid(layer.w_b(u))
    _, S = delta_rule(k[None], k[None], v[None], beta[None], jnp.swapaxes(W, 1, 2))
    agree(h.W, jnp.swapaxes(S, 1, 2))


@pytest.mark.thorough
def test_the_context_of_titans_begins_anew_with_every_chunk():
    """MAC attends inside its chunk: what was before reaches it through the memory only."""
    options = dict(placement="context", heads=2, size=3, hidden=(), conv=1)
    layer = cast_parameters(make("titans", 4, rngs=nnx.Rngs(0), **options), jnp.float64)
    x, other = normal(1, 1, 6, 4), normal(2, 1, 6, 4)
    _, h = layer(x[:, :3])
    _, elsewhere = layer(other[:, :3])
    assert int(h.memory.learner.count[0]) == 0
    swapped = h._replace(attention=elsewhere.attention)
    agree(layer(x[:, 3:], swapped), layer(x[:, 3:], h))
    forgotten = h._replace(memory=elsewhere.memory)
    assert jnp.max(jnp.abs(layer(x[:, 3:], forgotten)[0] - layer(x[:, 3:], h)[0])) > 1e-6
