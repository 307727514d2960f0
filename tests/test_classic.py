"""What the classic networks claim beyond the contract: attractors, carousels, equal networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_layers import build
from jax import lax
from oracle_tools import layer_of, normal, numbers

from seqjax.layers.classic.hopfield import (
    at_once,
    energy,
    hebb,
    modern_energy,
    one_by_one,
    retrieve,
)
from seqjax.zoo import make

N = 60
SIGNS = np.random.default_rng(0).choice([-1.0, 1.0], size=(4, N))


def test_a_hopfield_network_recalls_and_loses_energy():
    Xi, field = jnp.asarray(SIGNS), jnp.zeros(N)
    W = hebb(Xi)
    sweep = jax.jit(jax.vmap(one_by_one, (None, 0, None)))
    kept = jax.vmap(at_once, (None, 0, None))(W, Xi, field)
    np.testing.assert_array_equal(kept, Xi, "stored: fixed points")
    np.testing.assert_array_equal(sweep(W, Xi.at[:, :8].multiply(-1), field), Xi, "recalled")
    order = jnp.asarray(np.random.default_rng(1).permutation(N), jnp.int32)
    start, field = jnp.where(normal(1, N) < 0, -1.0, 1.0), 0.1 * normal(2, N)

    def one(s, i):
        s = one_by_one(W, s, field, order=i[None])
        return s, (s, energy(W, s, field))

    s, (states, energies) = jax.jit(lambda s: lax.scan(one, s, jnp.tile(order, 5)))(start)
    assert np.all(np.diff(energies) <= 1e-12)
    np.testing.assert_array_equal(states[N - 1], one_by_one(W, start, field, order=order))
    np.testing.assert_array_equal(sweep(W, s[None], field)[0], s, "settled")


def test_a_modern_hopfield_network_holds_more_patterns_than_it_has_units():
    Xi, size = normal(3, 40, 12), 12
    Xi = Xi / jnp.linalg.norm(Xi, axis=1, keepdims=True) * size**0.5
    s, energies = Xi[5] + 0.3 * normal(4, size), []
    for _ in range(4):
        energies.append(modern_energy(Xi, s, 4.0))
        s = retrieve(Xi, s, 4.0)
    assert np.all(np.diff(energies) <= 1e-12)
    np.testing.assert_allclose(s, Xi[5], atol=1e-3)


@pytest.mark.thorough  # the goldens of both hold them
def test_a_jordan_network_is_an_elman_network_of_few_ranks():
    """A linear output folds into the recurrent weights, and its bias into that of the next step."""
    jordan = layer_of("jordan", hidden=5, outputs=2)
    p, x = numbers(jordan), normal(1, 2, 9, 4)
    values = {
        "W.kernel": p["W.kernel"],
        "W.bias": p["W.bias"] + p["V.bias"] @ p["U.kernel"],
        "U": (p["V.kernel"] @ p["U.kernel"]).T,
        "C.kernel": p["V.kernel"],
    }
    elman = build("elman", 4, values, hidden=5, outputs=2)
    first = jnp.broadcast_to(p["V.bias"], (2, 2))  # as if it had answered an h of 0
    y = jordan(x, first)[0]
    np.testing.assert_allclose(np.asarray(y) - p["V.bias"], elman(x)[0], atol=1e-12)


@pytest.mark.thorough
def test_a_convlstm_of_kernel_1_is_an_lstm_in_each_place():
    conv = layer_of("convlstm", shape=(2, 2), features=12, channels=5, kernel_size=(1,))
    p, x = numbers(conv), normal(1, 2, 7, 2, 2, 3)
    y = conv(x.reshape(2, 7, 12))[0].reshape(2, 7, 2, 2, 5)
    order = np.r_[0:10, 10:15, 15:20]
    for place in ((0, 0), (1, 0)):
        values = {
            "W.kernel": p["W_x.kernel"][0, 0][:, order],
            "W.bias": p["W_x.bias"],
            "U": p["W_h.kernel"][0, 0].T,
            "p": p["W_c"][:, *place],
        }
        lstm = build("lstm", 3, values, hidden=5, peepholes=True)
        np.testing.assert_allclose(y[:, :, *place], lstm(x[:, :, *place])[0], atol=1e-12)


def test_the_carousel_of_1997_passes_an_error_on_unchanged():
    """dc_T/dc_0 = I where the gates do not see the past; with a forget gate it fades."""
    x, H = normal(1, 1, 1000, 3), 3

    def through(layer, c):
        h = layer.batch_state(1, x.dtype)
        return layer(x, h._replace(c=c[None]))[1].c[0]

    for name, kept in (("lstm_1997", True), ("lstm", False)):
        layer = layer_of(name, features=3)
        layer.U[...] = jnp.zeros_like(layer.U[...])
        J = jax.jit(jax.jacrev(lambda c, layer=layer: through(layer, c)))(
            jnp.linspace(-1.0, 1.0, H)
        )
        if kept:
            np.testing.assert_array_equal(J, np.eye(H))
        else:
            assert np.abs(J).max() < 1e-6


@pytest.mark.parametrize("name, options, named", [
    ("convlstm", dict(shape=(3,)), "features=4 are no frames of shape"),
    ("convlstm", dict(shape=(1, 1, 2, 2)), "one to three dimensions"),
    ("convlstm", dict(kernel_size=(2,)), "kernel_size is one odd number"),
    ("md_lstm", dict(columns=3), "features=4 are no rows of columns=3"),
    ("on_lstm", dict(hidden=5, chunk=2), "hidden=5 is not a multiple of chunk=2"),
    ("hopfield", dict(form="modern", asynchronous=True), "sets all units at once"),
    ("lstm", dict(non_recurrent=2), "non_recurrent is that of the projection"),
    ("lstm", dict(cap_input_gate=True, coupled=True), "cap_input_gate needs gates i and f"),
    ("mgu", dict(bias=False, chrono=9.0), "needs bias=True"),
    ("log_polynomial", dict(groups=3), "groups must divide the 4 units"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(name, options, named):
    with pytest.raises(ValueError, match=named) as refused:
        make(name, 4, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("name, options", [("gru", {}), ("gru", dict(reset="after")), ("lstm", {})])
def test_heads_are_blocks_of_a_dense_layer(name, options, heads):
    x = np.random.default_rng(0).normal(size=(2, 7, 3))
    layer = layer_of(name, features=3, hidden=4, heads=heads, **options)
    dense = layer_of(name, features=3, hidden=4, **options)
    for part in ("W", "p", "c_n"):
        setattr(dense, part, getattr(layer, part, None))
    blocks = [jax.scipy.linalg.block_diag(*block) for block in layer.U[...]]
    dense.U = nnx.Param(jnp.concatenate(blocks))
    assert (layer.jacobian, dense.jacobian) == ("block_diagonal", "dense")
    (y, h), (expected, end) = layer(x), dense(x)
    np.testing.assert_allclose(y, expected, atol=1e-14)
    for one, other in zip(jax.tree.leaves(h), jax.tree.leaves(end), strict=True):
        np.testing.assert_allclose(one.reshape(2, -1), other, atol=1e-14)


def test_heads_leave_out_what_mixes_them():
    with pytest.raises(ValueError, match="heads see themselves only: no norm"):
        make("lstm", 4, heads=2, projection=2)
    with pytest.raises(ValueError, match="leave heads out"):
        make("gru", 4, heads=2, reset="after", norm=True)
    with pytest.raises(ValueError, match="hidden = 4 cannot be split into 3 equal parts"):
        make("gru", 4, heads=3)
