"""Two forms of one function: which of them runs, in every way a derivative can be taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.export import export

import seqjax
from seqjax.core.forms import by_platform, two_forms
from seqjax.ops import OPS
from seqjax.ops.op import calls_met

x = jnp.linspace(0.1, 1.0, 5)


def value(x, n):
    return jnp.where(n > 0, 1000.0, x)  # other numbers on purpose, so that it is seen what runs


def differentiable(x, n):
    return jnp.where(n > 0, jnp.sin(x), x)


f = two_forms(value, differentiable)
total = lambda x: jnp.sum(f(x, jnp.int32(1))) if x.ndim else f(x, jnp.int32(1))  # noqa: E731
scanned = lambda x: lax.scan(lambda c, z: (c + f(z, jnp.int32(1)), None), 0.0, x)[0]  # noqa: E731
DERIVATIVES = {
    "grad": jax.grad(total),
    "grad of jit": jax.grad(jax.jit(total)),
    "grad of scan": jax.grad(scanned),
    "grad of checkpoint": jax.grad(jax.checkpoint(total)),
    "jacfwd": jax.jacfwd(total),
    "vmap of grad": jax.vmap(jax.grad(total)),
    "grad of vmap": jax.grad(lambda x: jnp.sum(jax.vmap(total)(x))),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_are_those_of_the_differentiable_form(name):
    np.testing.assert_allclose(DERIVATIVES[name](x), jnp.cos(x), rtol=1e-12)


def test_the_value_is_that_of_the_form_that_runs():
    for run in (total, jax.jit(total), jax.checkpoint(total)):
        assert run(x) == 5000
        np.testing.assert_allclose(jax.value_and_grad(run)(x)[0], jnp.sum(jnp.sin(x)))
        np.testing.assert_allclose(jax.jvp(run, (x,), (x,))[0], jnp.sum(jnp.sin(x)))
    assert scanned(x) == 5000 and jnp.all(jax.vmap(total)(x) == 1000)


def test_second_order_and_inputs_without_a_derivative():
    np.testing.assert_allclose(jax.hessian(total)(x), jnp.diag(-jnp.sin(x)), rtol=1e-12)
    met = []

    def spy(x, y):
        met.append((isinstance(x, jax.core.Tracer), isinstance(y, jax.core.Tracer)))
        return x * y

    jax.grad(lambda x: two_forms(jnp.multiply, spy)(x, 2.0))(3.0)
    assert met == [(True, False)]  # y is no input of the derivative


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name", ["linear_attention", "gated_delta_rule", "dplr", "stabilised_attention"]
)
def test_an_op_loops_on_cpu_where_no_derivative_is_taken(name):
    op, run = OPS[name], getattr(seqjax, name)
    assert op.explain(512, platform="cpu", differentiated=False).evaluator == "sequential"
    assert op.explain(512, platform="gpu", differentiated=False).evaluator == "chunked"
    assert op.explain(512, platform="cpu").evaluator == "chunked"
    given = {k: v if v is None else jax.tree.map(jnp.asarray, v) for k, v in
             op.example(op.specs[0], 0).items()}  # fmt: skip
    steps = {n: run(**given, evaluator=n) for n in ("sequential", "chunked")}
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)  # noqa: E731
    same(run(**given), steps["sequential"])
    q = given.pop("q")
    beside, _ = jax.vjp(lambda q: run(q, **given), q)
    same(beside, jax.vjp(lambda q: run(q, **given, evaluator="chunked"), q)[0])


def test_mesa_answers_alike_with_and_without_a_derivative():
    """With fewer iterations than keys chunks are not the loop: only one of them may run."""
    op = OPS["mesa"]
    given = jax.tree.map(jnp.asarray, op.example(op.specs[0], 0))
    q = given.pop("q")
    run = lambda q: seqjax.mesa(q, **given, iterations=1)[0]  # noqa: E731
    np.testing.assert_array_equal(run(q), jax.jvp(run, (q,), (q,))[0])


@pytest.mark.parametrize(
    "platform, function", [("cpu", "sine"), ("cuda", "cosine"), ("tpu", "tan")]
)
def test_a_form_is_chosen_where_the_program_is_lowered_for(platform, function):
    run = by_platform({"cpu": jnp.sin, "gpu": jnp.cos, "tpu": jnp.tan})
    np.testing.assert_array_equal(run(x), jnp.sin(x))
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(run)))(x), jnp.cos(x))
    program = export(jax.jit(run), platforms=[platform])(x).mlir_module()
    found = {name for name in ("sine", "cosine", "tan") if f"stablehlo.{name} " in program}
    assert found == {function}


def test_an_op_is_lowered_to_the_form_of_another_machine():
    op = OPS["linear_attention"]
    given = jax.tree.map(jnp.asarray, op.example(op.specs[0], 0))

    def products(platform, evaluator=None):
        run = jax.jit(lambda given: seqjax.linear_attention(**given, evaluator=evaluator))
        return export(run, platforms=[platform])(given).mlir_module().count("dot_general")

    for platform, name in (("cpu", "sequential"), ("tpu", "chunked"), ("cuda", "chunked")):
        assert products(platform) == products(platform, name)
    assert products("cpu") != products("tpu")


def test_a_call_sees_the_examples_and_the_shapes():
    layer = seqjax.make("gla", 8, heads=2)
    with calls_met() as met:
        jax.eval_shape(layer, jnp.zeros((3, 16, 8), jnp.float32))
        jax.eval_shape(jax.grad(lambda x: layer(x)[0].sum()), jnp.zeros((5, 16, 8)))
        q, v = jnp.zeros((7, 16, 2, 4), jnp.bfloat16), jnp.zeros((7, 16, 2, 3), jnp.bfloat16)
        jax.eval_shape(seqjax.linear_attention, q, q, v, None)
    assert {op.name for op, _ in met} == {"linear_attention"}
    assert [call.examples for _, call in met] == [3, 5, 7]
    assert [call.shapes["v"] for _, call in met] == [(16, 2, 4), (16, 2, 4), (16, 2, 3)]
    assert [call.dtype for _, call in met] == [jnp.float32, jnp.float64, jnp.bfloat16]
