"""The linear-scan primitive: its meaning against numpy, its rules against finite differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.test_util import check_grads

from seqjax.core import primitive
from seqjax.core.primitive import linear_scan, linear_scan_p
from seqjax.zoo import LAYERS, make

N, T, D = 2, 5, 3


def loop(a, b, h0, reset, reverse, adjoint):
    a = np.broadcast_to(a, b.shape)
    reset = np.zeros((N, T), bool) if reset is None else np.broadcast_to(reset, (N, T))
    c, h = np.array(h0), np.zeros_like(b)
    for t in range(T)[::-1] if reverse else range(T):
        if adjoint:
            h[:, t] = b[:, t] + c
            c = np.where(reset[:, t, None], 0, a[:, t] * h[:, t])
        else:
            c = np.where(reset[:, t, None], 0, c)
            c = h[:, t] = a[:, t] * c + b[:, t]
    return h


def operands(a_shape, reset, dtype=jnp.float64):
    k = jax.random.split(jax.random.key(0), 4)
    draw = lambda key, shape: jax.random.normal(key, shape, dtype)  # noqa: E731
    flags = None if reset is None else jax.random.bernoulli(k[3], 0.4, reset)
    return draw(k[0], a_shape), draw(k[1], (N, T, D)), draw(k[2], (N, D)), flags


CASES = list(
    itertools.product(
        (False, True),
        (False, True),
        [((N, T, D), None), ((N, T, D), (N, T)), ((1, 1, D), None), ((1, T, D), (1, T))],
    )
)


@pytest.mark.share(2)
@pytest.mark.parametrize("reverse, adjoint, shapes", CASES)
def test_meaning_and_derivatives(reverse, adjoint, shapes):
    a, b, h0, reset = operands(*shapes)
    run = lambda a, b, h0: linear_scan(  # noqa: E731
        a, b, h0, reset, reverse=reverse, adjoint=adjoint
    )
    expected = loop(a, b, h0, reset, reverse, adjoint)
    np.testing.assert_allclose(run(a, b, h0), expected, rtol=1e-12)
    tree = primitive._tree(a, b, h0, reset, reverse=reverse, adjoint=adjoint)
    np.testing.assert_allclose(tree, expected, rtol=1e-12, err_msg="the associative form")
    order = 2 if shapes[1] else 1
    check_grads(jax.jit(run), (a, b, h0), order=order, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_complex():
    a, b, h0, reset = operands((N, T, D), (N, T), jnp.complex128)
    np.testing.assert_allclose(linear_scan(a, b, h0, reset), loop(a, b, h0, reset, False, False))
    check_grads(lambda *x: linear_scan(*x, reset), (a, b, h0), order=1, atol=1e-5, rtol=1e-5)


def test_transformations():
    """vmap in any position, inside lax.scan, under checkpoint, linearize and jacfwd."""
    a, b, h0, _ = operands((N, T, D), None)
    expected = linear_scan(a, b, h0)
    batched = jnp.stack([b, 2 * b], axis=2)  # [N, T, 2, D]
    got = jax.vmap(linear_scan, in_axes=(None, 2, None), out_axes=2)(a, batched, h0)
    np.testing.assert_allclose(got[:, :, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(got[:, :, 1], linear_scan(a, 2 * b, h0), rtol=1e-12)

    shared = jax.vmap(lambda b: linear_scan(a[:1], b[None], h0[:1])[0])  # N = 1 stays unexpanded
    np.testing.assert_allclose(shared(b), linear_scan(a[:1], b, jnp.tile(h0[:1], (N, 1))))
    (bound,) = [e for e in jax.make_jaxpr(shared)(b).eqns if e.primitive is linear_scan_p]
    assert [v.aval.shape for v in bound.invars[:2]] == [(1, T, D), (N, T, D)]

    def in_loop(a):
        return jax.lax.scan(lambda c, x: (linear_scan(a, c, h0) * x, c.sum()), b, jnp.ones(2))[0]

    direct = linear_scan(a, linear_scan(a, b, h0), h0)
    np.testing.assert_allclose(in_loop(a), direct, rtol=1e-12)
    plain = jax.grad(lambda a: jnp.sin(in_loop(a)).sum())(a)
    saved = jax.grad(lambda a: jnp.sin(jax.checkpoint(in_loop)(a)).sum())(a)
    np.testing.assert_allclose(saved, plain, rtol=1e-12)

    value, push = jax.linearize(lambda b: linear_scan(a, b, h0), b)
    np.testing.assert_allclose(value, expected)
    jacobian = jax.jacfwd(lambda b: linear_scan(a, b, h0))(b)
    np.testing.assert_allclose(jnp.einsum("abcdef,def->abc", jacobian, b), push(b), rtol=1e-10)


def test_low_precision_is_accumulated_in_float32():
    """4096 bfloat16 steps of a slow decay: the float32 carry keeps what bfloat16 would lose."""
    b = jnp.full((1, 4096, 1), 1e-3, jnp.bfloat16)
    h = linear_scan(jnp.ones((1, 1, 1), jnp.bfloat16), b, jnp.zeros((1, 1), jnp.float32))
    assert h.dtype == jnp.float32
    np.testing.assert_allclose(h[0, -1, 0], 4096 * float(b[0, 0, 0]), rtol=1e-4)


@pytest.mark.parametrize(
    "platform, custom_call, dtype",
    [
        ("tpu", "tpu_custom_call", jnp.float32),
        ("tpu", "tpu_custom_call", jnp.complex64),
        ("cuda", "mosaic_gpu", jnp.bfloat16),
        ("cuda", "mosaic_gpu", jnp.complex64),
        ("tpu", None, jnp.float64),
        ("cuda", None, jnp.float64),
        ("rocm", None, jnp.float32),
    ],
)
def test_lowering_by_platform(platform, custom_call, dtype):
    """Value and gradient are exported with the kernel where there is one, without it elsewhere."""
    a, b, h0, _ = operands((N, T, D), None)
    wide = jnp.float32 if dtype == jnp.bfloat16 else dtype
    run = lambda a, b, h0: jnp.sum(jnp.abs(linear_scan(a, b, h0)))  # noqa: E731
    lowered = export.export(
        jax.jit(jax.value_and_grad(run)),
        platforms=[platform],
        disabled_checks=[
            export.DisabledSafetyCheck.custom_call(name)
            for name in ("mosaic_gpu", "mosaic_gpu_v2", "tpu_custom_call")
        ],
    )(a.astype(dtype), b.astype(dtype), h0.astype(wide))
    text = lowered.mlir_module()
    assert text.count("tpu_custom_call") + text.count("mosaic_gpu") == 0 or custom_call
    assert custom_call is None or text.count(custom_call) >= 2, "forward and adjoint"


def test_nan_before_a_reset_stays_there():
    a, b, h0, _ = operands((N, T, D), None)
    reset = jnp.zeros((N, T), bool).at[:, 2].set(True)
    bad = b.at[:, 1].set(jnp.nan)
    tail = lambda b: jnp.sin(linear_scan(a, b, h0, reset)[:, 2:]).sum()  # noqa: E731
    value, gradient = jax.value_and_grad(tail)(bad)
    assert jnp.isfinite(value) and jnp.all(jnp.isfinite(gradient))
    np.testing.assert_allclose(gradient, jax.grad(tail)(b), rtol=1e-12)


def test_without_jit():
    """The primitive is compiled there too, like jax's own; its impl does not call itself."""
    a, b, h0, reset = operands((N, T, D), (N, T))
    loss = lambda a, b, h0: jnp.sin(linear_scan(a, b, h0, reset)).sum()  # noqa: E731
    layer = make("rg_lru", 4, **LAYERS["rg_lru"].smoke)
    x = jnp.ones((2, 3, 4))
    expected = jax.value_and_grad(loss, (0, 1, 2))(a, b, h0), layer(x)
    with jax.disable_jit():
        found = jax.value_and_grad(loss, (0, 1, 2))(a, b, h0), layer(x)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r"a \[N\|1, T\|1, D\]"):
        linear_scan(jnp.ones((2, 4, 3)), jnp.ones((2, 5, 3)), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="reset bool"):
        linear_scan(jnp.ones((2, 5, 3)), jnp.ones((2, 5, 3)), jnp.ones((2, 3)), jnp.ones((2, 5)))
    assert linear_scan_p.name == "linear_scan"
