"""Complex arguments, any of them alone: promoted by all evaluators alike, or refused by name."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ops import CHUNK, example

import seqjax
from seqjax import ops
from seqjax.ops.op import Spec

CASES = {
    "linear_attention, key decay": ("q", "k", "v", "state"),
    "linear_attention, normalised": ("q", "k", "v"),
    "linear_attention, bonus": ("bonus",),
    "gated_delta_rule, head decay": ("q", "k", "v", "beta", "state"),
    "dplr, key decay": ("q", "k", "v", "a", "b", "state"),
    "selective_scan": ("A", "B", "u", "state"),
    "short_convolution": ("x", "kernel", "bias", "state"),
}


def turned(x):
    """x with an imaginary part."""
    return jax.tree.map(lambda v: jnp.asarray(np.asarray(v) * np.exp(0.7j) + 0.1j), x)


@pytest.mark.share(1)
@pytest.mark.parametrize("case, names", CASES.items(), ids=list(CASES))
def test_evaluators_agree(case, names):
    """Each name alone: the naive loop sees the imaginary part, and the others see what it does."""
    arrays, options = example(case, T=11)
    op = case.split(",")[0]
    function = jax.jit(partial(getattr(seqjax, op), **options), static_argnames=("evaluator",))
    real = function(**arrays, evaluator="naive")[0]
    for name in names:
        given = arrays | {name: turned(arrays[name])}
        y, state = function(**given, evaluator="naive")
        assert np.abs(np.asarray(y) - np.asarray(real)).max() > 1e-3, (
            f"{name} is cut to its real part"
        )
        assert jnp.iscomplexobj(y) == (name != "A")
        for evaluator in ops.OPS[op].evaluators:
            found = function(**given, evaluator=evaluator)
            for f, e in zip(jax.tree.leaves(found), jax.tree.leaves((y, state)), strict=True):
                np.testing.assert_allclose(f, e, atol=1e-9 * (1 + np.abs(e).max()))
                assert f.dtype == e.dtype


def test_a_complex_selective_scan_is_twice_the_real_part():
    """The same as the real scan over both of a pair of conjugate states."""
    draw = np.random.default_rng(0)
    u, delta = jnp.asarray(draw.normal(size=(2, 1, 9, 3)))
    A, B, C = draw.normal(size=(3, 3, 2)) + 1j * draw.normal(size=(3, 3, 2))
    A, B, C = map(jnp.asarray, (-np.abs(A.real) + 1j * A.imag, B, C))
    y, _ = seqjax.selective_scan(u, jnp.abs(delta), A, B, C)
    h, expected = np.zeros((3, 2), complex), []
    for u_t, dt in zip(np.asarray(u[0]), np.abs(np.asarray(delta[0]))):
        h = np.exp(dt[:, None] * np.asarray(A)) * h + (dt * u_t)[:, None] * np.asarray(B)
        expected.append(2 * (h * np.asarray(C)).sum(1).real)
    np.testing.assert_allclose(y[0], expected, atol=1e-12)
    pairs = (jnp.concatenate([v, v.conj()], axis=1) for v in (A, B, C))
    np.testing.assert_allclose(
        y, seqjax.selective_scan(u, jnp.abs(delta), *pairs)[0] / 2, atol=1e-12
    )


def test_a_complex_tap():
    y, _ = seqjax.short_convolution(jnp.ones((1, 5, 2)), jnp.full((3, 2), 1j))
    np.testing.assert_array_equal(y[0, :, 0], np.minimum(np.arange(1, 6), 3) * 1j)


@pytest.mark.parametrize(
    "op, name",
    [
        ("linear_attention", "log_a"),
        ("gated_delta_rule", "log_a"),
        ("dplr", "log_w"),
        ("stabilised_attention", "q"),
        ("stabilised_attention", "log_f"),
        ("selective_scan", "delta"),
    ],
)
def test_what_must_be_real_is_named(op, name):
    spec = Spec("", dict(B=1, T=3, H=1, K=2, V=2, D=2, N=2), dict(decay="head"))
    given = {k: v for k, v in ops.OPS[op].example(spec, 0).items() if k != "decay"}
    with pytest.raises(TypeError, match=f"{name} has dtype complex128, expected real"):
        getattr(seqjax, op)(**given | {name: turned(jnp.asarray(given[name]))})


def test_gradients_of_complex_attention():
    arrays, _ = example("linear_attention, key decay", T=11)
    arrays = {k: v if k == "log_a" else turned(v) for k, v in arrays.items()}

    def gradient(evaluator):
        def loss(arrays):
            y = seqjax.linear_attention(**arrays, evaluator=evaluator, chunk_size=CHUNK)[0]
            return jnp.sum(jnp.abs(y) ** 2)

        return jax.jit(jax.grad(loss))(arrays)

    for name, g in gradient("sequential").items():
        np.testing.assert_allclose(gradient("chunked")[name], g, atol=1e-9 * np.abs(g).max())
