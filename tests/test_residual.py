"""What residual recurrences claim of their gradient through time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_layers import build
from oracle_tools import layer_of, normal, numbers

T, H = 1000, 3


def jacobian(layer, evaluator=None):
    """dh_T/dh_0 over T steps, in float64."""
    x = normal(0, 1, T, H)
    run = jax.jit(jax.jacrev(lambda h: layer(x, h[None], evaluator=evaluator)[1][0]))
    return np.asarray(run(jnp.linspace(-1.0, 1.0, H)))


@pytest.mark.parametrize("form", ["pure", "gated"])
def test_e59_passes_the_gradient_on_as_it_is(form):
    make = partial(layer_of, "e59", features=H, form=form)
    for evaluator in make().evaluators:
        np.testing.assert_array_equal(jacobian(make(), evaluator), np.eye(H), evaluator)
    assert np.linalg.svd(jacobian(make(norm=True)), compute_uv=False).max() < 1e-6


def test_a_residual_keeps_what_a_plain_recurrence_loses():
    """Of recurrent weights of spectral radius below 1: h_t = U h_{t-1} + x_t against h_{t-1} added.

    Plain, the gradient through T steps is U^T and fades as radius^T; with a residual of strength 1
    and a recurrent part that is 0 at first it is the identity, and it grows with the radius.
    """
    for radius in (0.5, 0.9, 0.99):
        plain = layer_of("elman", features=H, activation="linear", recurrent_scale=0.0)
        U = radius * np.linalg.qr(np.random.default_rng(0).normal(size=(H, H)))[0]
        plain.U[...] = jnp.asarray(U)
        J = jacobian(plain)
        np.testing.assert_allclose(np.linalg.svd(J, compute_uv=False), radius**T, rtol=1e-9)
        kept = layer_of("heterogeneous_residual", features=H)
        kept.W[...] = jnp.zeros((H, H))
        for alpha in (1.0, 0.999):
            kept.alpha[...] = jnp.full(H, alpha)
            np.testing.assert_allclose(jacobian(kept), alpha**T * np.eye(H), rtol=1e-12)
    added = layer_of("residual_rnn", features=H)
    added.U[...] = jnp.zeros_like(added.U[...])
    np.testing.assert_array_equal(jacobian(added), np.eye(H))


def test_a_skip_through_time_is_a_shorter_way_back():
    """Without weights on h, a leap keeps strength / (strength + leak) of it; a step 1 - leak."""
    leak, strength, skip = 0.1, 0.5, 50
    kept, x = {}, normal(0, 1, T, H)
    for s in (0.0, strength):
        layer = layer_of("sctt_rnn", features=H, leak=leak, strength=s, skip=skip)
        layer.U[...] = jnp.zeros((H, H))
        run = jax.jit(lambda c, layer=layer: layer(x, c * jnp.ones((1, skip, H)))[0][0, -1])
        kept[s] = float(jax.jacfwd(run)(1.0).min())
        if s == 0.0:
            options = dict(hidden=H, activation="relu", leak=leak)
            elman = build("elman", H, numbers(layer), **options)
            np.testing.assert_allclose(layer(x)[0], elman(x)[0], atol=1e-12)
    assert kept[0.0] < 1e-40
    leaps = (strength / (strength + leak)) ** (T / skip)
    assert 0.5 * leaps < kept[strength] < 2 * leaps


def test_log_polynomials_have_a_slope_far_out():
    """dh_t/dv_t in logarithms is alpha in (1, 2] as far as the quotient lets it, never that of a
    saturated tanh: what |v| = 20 adds to log n is 1/(1 + |v|^alpha) of alpha, not exp(-40)."""
    layer = layer_of("log_polynomial", features=H)
    slope = jax.vmap(jax.grad(lambda v: layer.step(jnp.zeros(H), (v * jnp.ones(H), 1.5, 1.0))[0]))
    v = jnp.array([0.01, 1.0, 20.0])
    powers = np.asarray(v) ** 1.5
    np.testing.assert_allclose(slope(v), 1.5 * powers / np.asarray(v) / (1 + powers) ** 2)
    assert float(slope(v)[2]) > 1e-4 > 1e-15 > float(jax.grad(jnp.tanh)(20.0))
