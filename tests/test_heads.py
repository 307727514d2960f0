"""Heads that share are heads that are alike: the ops with fewer of q and k, or of k and v."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL
from flax import nnx

import seqjax
from seqjax.nn.base import cast_parameters
from seqjax.ops.log_linear_attention import Levels
from seqjax.zoo import make

EVALUATORS = ("naive", "sequential", "chunked")
T, K, V, LEVELS = 11, 3, 2, 4
HEADS = {"queries": (6, 1, 2), "keys": (2, 1, 4), "all but keys": (4, 2, 4)}  # of q, k and v


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def decay(seed, *shape):
    return -jnp.abs(draw(seed, *shape))


def arguments(name, heads):
    """name -> array [T, heads, ...] of one example, and the initial state [heads, ...]."""
    Q, G, H = heads
    q, k, v, S = draw(0, T, Q, K), draw(1, T, G, K), draw(2, T, H, V), draw(3, H, K, V)
    gate = decay(4, T, H)
    if name == "linear_attention":
        return dict(q=q, k=k, v=v, log_a=decay(4, T, H, K), log_b=decay(5, T, H, V)), S
    if name == "normalised":
        return dict(q=q**2, k=k**2, v=v, log_a=gate), (S, draw(6, H, K) ** 2)
    if name == "gated_delta_rule":
        beta = jax.nn.sigmoid(draw(5, T, H, V))
        return dict(q=q, k=k / 2, v=v, beta=beta, log_a=gate, log_b=decay(6, T, H, V)), S
    if name == "dplr":
        return dict(q=q, k=k, v=v, a=draw(5, T, G, K) / 4, b=draw(6, T, G, K) / 4, log_w=gate), S
    if name == "stabilised_attention":
        state = S, draw(6, H, K), draw(7, H)
        return dict(q=q, k=k, v=v, log_i=draw(5, T, H), log_f=gate), state
    scales = jnp.exp(draw(5, T, Q if Q > H else H, LEVELS))
    return dict(q=q, k=k, v=v, log_a=gate, scales=scales), draw(3, LEVELS, H, K, V)


def levels(q, k, v, log_a, scales, state, **options):
    """Of a state that has seen nothing, without its count."""
    state = Levels(state, jnp.int32(0))
    y, h = seqjax.log_linear_attention(q, k, v, log_a, scales, state, **options)
    return y, h.S


FUNCTIONS = {
    "linear_attention": seqjax.linear_attention,
    "normalised": partial(seqjax.linear_attention, normalise=True),
    "gated_delta_rule": seqjax.gated_delta_rule,
    "dplr": seqjax.dplr,
    "stabilised_attention": seqjax.stabilised_attention,
    "log_linear_attention": levels,
}


def flags():
    where = np.random.default_rng(8)
    return dict(resets=jnp.asarray(where.random(T) < 0.2), mask=jnp.asarray(where.random(T) < 0.8))


def run(name, arrays, state, evaluator, chunk):
    chunk = {} if evaluator == "naive" else chunk
    return FUNCTIONS[name](**arrays, state=state, **flags(), **chunk, evaluator=evaluator)


def repeated(x, axis, heads):
    return jnp.repeat(x, heads // x.shape[axis], axis=axis)


@pytest.mark.share(1)
@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_heads_that_share_are_heads_that_are_alike(name, shape):
    """In value and gradient, for every evaluator, under resets and masks."""
    heads = HEADS[shape]
    most, states = max(heads), heads[2]
    axis = 1 if name == "log_linear_attention" else 0  # of the heads of a state

    def alike(arrays, state, evaluator):
        arrays = {k: repeated(x, 1, most) for k, x in arrays.items()}
        state = jax.tree.map(lambda s: repeated(s, axis, most), state)
        y, state = run(name, arrays, state, evaluator, {})
        each = jnp.arange(states) * (most // states)
        return y, jax.tree.map(lambda s: jnp.take(s, each, axis), state)

    def loss(function, given):
        found = function(*given)
        weights = [draw(n, *x.shape) for n, x in enumerate(jax.tree.leaves(found))]
        products = [jnp.sum(w * x) for w, x in zip(weights, jax.tree.leaves(found))]
        return sum(products), found

    @partial(jax.jit, static_argnums=(0, 1))
    def answer(function, evaluator, given):
        if function == "shared":
            call = partial(run, name, evaluator=evaluator, chunk=dict(chunk_size=4))
        else:
            call = partial(alike, evaluator=evaluator)
        return jax.value_and_grad(partial(loss, call), has_aux=True)(given)

    given = arguments(name, heads)
    expected = answer("alike", "naive", given)
    for evaluator in EVALUATORS if FULL else ("chunked",):
        found = answer("shared", evaluator, given)
        assert found[0][1][0].shape == (T, most, V)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-9 * max(1, np.abs(y).max()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_heads_that_cannot_share_are_named(name):
    arrays, state = arguments(name, (2, 2, 2))
    for wrong in ("q", "k"):
        given = {**arrays, wrong: draw(0, T, 3, K)}
        if name == "dplr" and wrong == "k":
            given |= {n: draw(0, T, 3, K) for n in "ab"}
        with pytest.raises(ValueError, match=f"{wrong} has 3 heads and v 2; expected a divisor"):
            run(name, given, state, None, {})


def test_the_states_of_grouped_queries_are_computed_once():
    """Of the products of n queries only those that read grow with n."""

    def cost(queries):
        arrays, state = arguments("linear_attention", (queries, 2, 2))
        del arrays["log_b"]
        shapes = jax.tree.map(lambda x: jnp.zeros((64, *x.shape[1:])), arrays)
        lowered = jax.jit(
            lambda xs: seqjax.linear_attention(**xs, state=state, evaluator="chunked")[1]
        ).lower(shapes)
        return lowered.compile().cost_analysis()["flops"]

    assert cost(16) < 1.1 * cost(2)


@pytest.mark.thorough
def test_groups_of_a_signed_decay():
    """Mamba-2 with groups of B and C, and eigenvalues that may be negative."""
    layer = make("mamba2", 4, state=3, heads=4, groups=2, eigenvalues="[-1,1]", rngs=nnx.Rngs(0))
    layer = cast_parameters(layer, jnp.float64)
    x = draw(0, 2, T, 4)
    expected = layer(x, evaluator="naive")
    for found, one in zip(jax.tree.leaves(layer(x)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, one, atol=1e-10)


@pytest.mark.share(1)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_steps_and_16_bits(name):
    """No step leaves the state as it is; of 16 bits the outputs are, and the state is not."""
    arrays, state = arguments(name, HEADS["queries"])
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), arrays)
    state = jax.tree.map(lambda s: s.astype(jnp.float32), state)
    run = partial(FUNCTIONS[name], state=state)
    y, end = run(**low)
    assert y.dtype == jnp.bfloat16 and y.shape == (T, 6, V) and jnp.isfinite(y).all()
    assert jax.tree.leaves(end)[0].dtype == jnp.float32
    y, end = run(**jax.tree.map(lambda x: x[:0], low))
    assert y.shape == (0, 6, V)
    for x, given in zip(jax.tree.leaves(end), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, given)


@pytest.mark.parametrize("reverse", [False, True])
def test_decays_per_value_of_several_corrections(reverse):
    """One decay before the n corrections of a step, of every state of its own."""
    n, (arrays, S) = 2, arguments("gated_delta_rule", (4, 2, 2))
    k, v = draw(10, T, n, 2, K) / 2, draw(11, T, n, 2, V)
    beta = jax.nn.sigmoid(draw(12, T, n, 2, V))
    micro = [x.reshape(T * n, *x.shape[2:]) for x in (k, v, beta)]
    options = {name: arrays[name] for name in ("log_a", "log_b")}
    y, last = seqjax.gated_delta_product(arrays["q"], *micro, state=S, reverse=reverse, **options)
    expected = np.zeros(y.shape)
    q, k, v, beta, S = (np.asarray(z) for z in (arrays["q"], k, v, beta, S))
    a, b = (np.exp(np.asarray(z)) for z in options.values())
    for t in range(T)[:: -1 if reverse else 1]:
        S = a[t][:, None, None] * S * b[t][:, None]
        for j in range(n):
            error = v[t, j] - np.einsum("hk,hkv->hv", k[t, j], S)
            S = S + k[t, j][:, :, None] * (beta[t, j] * error)[:, None]
        for h in range(4):
            expected[t, h] = q[t, h] @ S[h // 2]
    np.testing.assert_allclose(y, expected, atol=1e-10)
    np.testing.assert_allclose(last, S, atol=1e-10)
