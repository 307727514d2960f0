"""The truncation of 1997: the paper's forward accumulations, and backpropagation at U = 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.learn.bptt import bptt
from seqjax.learn.cell import Cell, as_cell, stack
from seqjax.learn.influence import influence
from seqjax.learn.learner import squared_error
from seqjax.learn.truncated import truncated_lstm_1997
from seqjax.nn.base import cast_parameters
from seqjax.testing import distance
from seqjax.zoo import make

D, H, O, T = 2, 3, 2, 6


def drawn(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


XS, YS = drawn(1, T, D), drawn(2, T, O)
TOP = Cell(lambda V: (), lambda V, h, x: (), lambda V, h, x: V @ x)


def network(name, **options):
    layer = cast_parameters(make(name, D, hidden=H, rngs=nnx.Rngs(0), **options), jnp.float64)
    cell, params = as_cell(layer)
    params = jax.tree.map(lambda p: p + 0.3 * drawn(3, *p.shape), params)
    return layer, stack(cell, TOP), (params, drawn(4, O, H))


def in_windows(learner, params, size):
    state, total = learner.init(params), jax.tree.map(jnp.zeros_like, params)
    grad = jax.jit(learner.grad)
    for at in range(0, T, size):
        _, grads, state = grad(params, state, XS[at : at + size], YS[at : at + size])
        total = jax.tree.map(jnp.add, total, grads)
    return total


def accumulated(W, U, b, V, forget):
    """Gradients of W, U, b by the forward sums of the appendix, in numpy, unit by unit."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    tanh, half = np.tanh, lambda a: np.tanh(a / 2)
    blocks = "ifgo" if forget else "igo"
    h, c = np.zeros(H), np.zeros(H)
    S = {k: np.zeros((len(blocks), H, n)) for k, n in (("W", D), ("U", H), ("b", 1))}
    found = {k: np.zeros_like(v) for k, v in S.items()}
    for x, y in zip(np.asarray(XS), np.asarray(YS), strict=True):
        net = dict(zip(blocks, (W @ x + U @ h + b).reshape(-1, H), strict=True))
        i, o = sigmoid(net["i"]), sigmoid(net["o"])
        f = sigmoid(net["f"]) if forget else np.ones(H)
        g = tanh(net["g"]) if forget else 2 * half(net["g"])
        slope = 1 - g**2 if forget else 1 - half(net["g"]) ** 2
        push = {"i": i * (1 - i) * g, "f": f * (1 - f) * c, "g": i * slope}
        reads = {"W": x, "U": h, "b": np.ones(1)}
        c = f * c + i * g
        out = tanh(c) if forget else half(c)
        through = o * (1 - out**2) * (1.0 if forget else 0.5)
        h = o * out
        e = V.T @ (V @ h - y)
        for k in S:
            for n, block in enumerate(blocks):
                if block == "o":
                    found[k][n] += (e * out * o * (1 - o))[:, None] * reads[k]
                else:
                    S[k][n] = f[:, None] * S[k][n] + push[block][:, None] * reads[k]
                    found[k][n] += (e * through)[:, None] * S[k][n]
    return found


@pytest.mark.parametrize("name", ["lstm_1997", "lstm"])
@pytest.mark.share(1)
def test_it_is_the_papers_forward_sums(name):
    layer, cell, params = network(name)
    learner = truncated_lstm_1997(cell, squared_error, params, XS)
    merged = nnx.merge(nnx.graphdef(layer), params[0], nnx.split(layer, nnx.Param, ...)[2])
    W, b, U = (np.asarray(v[...]) for v in (merged.W.kernel, merged.W.bias, merged.U))
    expected = accumulated(W.T, U.reshape(-1, H), b, np.asarray(params[1]), name == "lstm")
    for size in (1, 3, 6):  # whatever the windows
        grads, _ = in_windows(learner, params, size)
        found = {
            "W": grads["W"]["kernel"][...].T,
            "U": grads["U"][...],
            "b": grads["W"]["bias"][...],
        }
        for k, v in found.items():
            np.testing.assert_allclose(v.reshape(expected[k].shape), expected[k], atol=1e-12)
    whole = in_windows(bptt(cell, squared_error), params, T)
    assert distance(grads, whole[0]) > 1e-2  # it is no backpropagation
    kept = influence(
        cell._replace(step=lambda p, h, x: cell.step(p, jax.lax.stop_gradient(h), x)), params, XS
    )
    assert learner.init(params).M.shape == kept.pattern.units.shape  # O(P), two units a parameter


@pytest.mark.parametrize("name", ["lstm_1997", "lstm"])
@pytest.mark.share(1)
def test_without_recurrent_weights_it_is_backpropagation(name):
    _, cell, (params, V) = network(name)
    params["U"] = jax.tree.map(jnp.zeros_like, params["U"])
    learner = truncated_lstm_1997(cell, squared_error, (params, V), XS)
    found, exact = (in_windows(way, (params, V), T) for way in (learner, bptt(cell, squared_error)))
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(exact), strict=True
    ):
        assert distance(a, b) < 1e-12, path


def test_it_needs_a_carousel():
    _, cell, params = network("gru")
    with pytest.raises(ValueError, match="needs a state with a field 'c'"):
        truncated_lstm_1997(cell, squared_error, params, XS)
