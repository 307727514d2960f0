"""What rows of the segment family are in a limit, from other layers or closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from oracle_tools import Weights, layer_of, numbers

from seqjax.core.flow import Carry, Flow
from seqjax.layers.segment.r_transformer import LocalRNN
from seqjax.nn.base import cast_parameters
from seqjax.zoo import make

T, D = 7, 4


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


@pytest.mark.thorough
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_local_rnn_as_wide_as_the_sequence_is_the_rnn(cell):
    """Its biases start at zero: then inputs of zero leave a state of zero where it is."""
    local = cast_parameters(LocalRNN(D, T, cell, rngs=nnx.Rngs(0)), jnp.float64)
    x, window = normal(T, D), jnp.zeros((T - 1, D))
    y = local(x, Carry(window, window), Flow())[0]
    np.testing.assert_allclose(y, local.rnn(x[None])[0][0], atol=1e-12)
    narrow = LocalRNN(D, T - 1, cell, rngs=nnx.Rngs(0))
    narrow.rnn = local.rnn
    short = narrow(x, Carry(window[1:], window[1:]), Flow())[0]
    np.testing.assert_allclose(short[-1], local.rnn(x[None, 1:])[0][0, -1], atol=1e-12)
    assert np.max(np.abs(short[-1] - y[-1])) > 1e-4


@pytest.mark.thorough
def test_a_linear_rnn_is_a_sum_of_rems():
    """One head for each real eigenvalue, one of each cyclical kind for each complex pair."""
    draw = np.random.default_rng(0)
    eigenvalues, pairs = [0.9, -0.6], [(0.8, 0.7)]
    J = np.diag([0.9, -0.6, 0.0, 0.0])
    gamma, theta = pairs[0]
    J[2:, 2:] = gamma * np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    B, W_x = draw.normal(size=(2, D, D))
    inverse = np.linalg.inv(B)
    W_h, x = B @ J @ inverse, draw.normal(size=(T, D))
    assert sorted(np.linalg.eigvals(W_h).real.round(6)) == sorted(
        np.round([*eigenvalues, *[gamma * np.cos(theta)] * 2], 6)
    )
    # J^j is a sum of lambda^j, gamma^j cos(j theta) and gamma^j sin(j theta), each times one matrix
    shares = np.zeros((4, D, D))
    shares[0, 0, 0] = shares[1, 1, 1] = shares[2, 2, 2] = shares[2, 3, 3] = 1
    shares[3, 2, 3], shares[3, 3, 2] = 1, -1
    values = [B @ share @ inverse @ W_x for share in shares]

    layer = cast_parameters(make("rsa", D, heads=4, head_size=D, window=T), jnp.float64)
    layer.eta[...] = np.arctanh(eigenvalues)
    layer.nu[...], layer.theta[...] = np.full(2, np.log(gamma / (1 - gamma))), np.full(2, theta)
    layer.mu[...] = np.full(4, 40.0)  # a sigmoid of 1
    layer.W_v.kernel[...] = np.concatenate([v.T for v in values], axis=1)
    layer.W_o.kernel[...] = np.tile(np.eye(D), (4, 1))
    h, states = np.zeros(D), []
    for u in x:
        h = W_h @ h + W_x @ u
        states.append(h)
    y = layer(jnp.asarray(x)[None])[0][0]
    np.testing.assert_allclose(y + x @ W_x.T, np.stack(states), atol=1e-12)


@pytest.mark.thorough
def test_a_block_state_without_a_state_space_is_attention_in_blocks():
    """C = 0 and D = 1: the context of a step is its input."""
    C, heads = 3, 2
    layer = cast_parameters(
        make("block_state", D, form="single", length=C, heads=heads), jnp.float64
    )
    layer.ssm.C[...] = jnp.zeros_like(layer.ssm.C[...])
    layer.ssm.D[...] = jnp.ones_like(layer.ssm.D[...])
    blocks = make("attention", D, heads=heads, window=C, positions="none")
    for name in ("W_q", "W_k", "W_v", "W_o"):
        getattr(blocks, name).kernel = getattr(layer, name).kernel
    x, resets = normal(1, T, D), (jnp.arange(T) % C == 0)[None]
    y = layer.attention(x)[0] + blocks(x, resets=resets)[0]
    np.testing.assert_allclose(layer(x)[0], y, atol=1e-12)


@pytest.mark.thorough
def test_parallel_heads_are_a_weighed_mean_of_normed_layers():
    layers = (("lru", {}), ("gru", {}), ("attention", dict(heads=2, window=3)))
    side = layer_of("parallel", features=D, layers=layers)
    x, W = normal(1, T, D), Weights(numbers(side))
    z = [W.rms(f"norms.{n}", np.asarray(f(x)[0][0]), 1e-6) for n, f in enumerate(side.layers)]
    np.testing.assert_allclose(side(x)[0][0], W.linear("W_o", sum(z) / 3), atol=1e-12)


def test_layers_side_by_side_have_one_width():
    with pytest.raises(ValueError, match=r"outputs of one width, got \[3, 4\]"):
        make("parallel", D, layers=("lru", ("gru", dict(hidden=3))))
