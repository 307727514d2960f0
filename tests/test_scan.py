"""Every evaluator of `scan` is the sequential loop, in value and in every derivative."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from seqjax.core import monoid as m
from seqjax.core.scan import AUTOMATIC, EVALUATORS, choose, explain, scan

T, D = 11, 3


def problem(name, T=T):
    k = jax.random.split(jax.random.key(T), 4)
    if name == "diagonal":
        return (
            m.diagonal,
            tuple(jax.random.normal(k[:2][i], (T, D)) for i in (0, 1)),
            jax.random.normal(k[2], (D,)),
            jax.random.normal(k[3], (D,)),
        )
    if name == "diagonal complex":
        z = [jax.lax.complex(*jax.random.normal(key, (2, T, D))) for key in k]
        return m.diagonal, (z[0], z[1]), z[2].sum(0), z[3].sum(0)
    if name == "dense":
        A, b = jax.random.normal(k[0], (T, D, D)) / 2, jax.random.normal(k[1], (T, D))
        return m.dense, (A, b), jax.random.normal(k[2], (D,)), jax.random.normal(k[3], (D,))
    log_f, i = -jax.random.exponential(k[0], (T, D)), 3 * jax.random.normal(k[1], (T, D))
    x = jax.random.normal(k[2], (T, D, 2))
    zero = (jnp.zeros(D), jnp.zeros((D, 2)))
    return m.stabilised, (log_f, i, x), zero, (jnp.ones(D), jnp.ones((D, 2)))


PROBLEMS = ("diagonal", "diagonal complex", "dense", "stabilised")


def close(a, b, tolerance=1e-10):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def real(tree):
    return sum(
        jnp.sum(jnp.sin(v.real) + jnp.cos(v.imag) if jnp.iscomplexobj(v) else jnp.sin(v))
        for v in jax.tree.leaves(tree)
    )


@partial(jax.jit, static_argnames=("name", "evaluator", "reverse", "flags"))
def everything(name, evaluator, reverse, flags):
    """Value, gradient, tangent of one evaluator with respect to elements and both states."""
    algebra, *primals = problem(name)
    options = {"chunk_size": 4} if evaluator == "chunked" else {}
    resets = jnp.zeros(T, bool).at[jnp.array([2, 7])].set(True) if flags else None
    mask = jnp.ones(T, bool).at[jnp.array([0, 5, 7])].set(False) if flags else None

    def run(elements, state, initial):
        return scan(
            algebra,
            elements,
            state,
            evaluator=evaluator,
            reverse=reverse,
            resets=resets,
            start=initial,
            mask=mask,
            **options,
        )

    def value(states):  # a stabilised state is compared as what it stands for
        if name != "stabilised":
            return states
        return [jnp.exp(e)[..., None] * x for e, x in states]

    tangents = jax.tree.map(jnp.ones_like, primals)
    gradient = jax.grad(lambda *a: real(value(run(*a))), argnums=(0, 1, 2))(*primals)
    tangent = jax.jvp(lambda *a: value(run(*a)), primals, tangents)[1]
    return value(run(*primals)), gradient, tangent


@pytest.mark.share(1)
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(
    "reverse, flags",
    [
        pytest.param(False, True, marks=pytest.mark.thorough),
        (True, True),
        pytest.param(False, False, marks=pytest.mark.thorough),
    ],
)
def test_evaluators_agree(name, reverse, flags):
    expected = everything(name, "sequential", reverse, flags)
    names = [
        n
        for n in ("associative", "chunked", "primitive")
        if not EVALUATORS[n].supports(problem(name)[0].structure)
    ]
    assert "primitive" in names or not name.startswith("diagonal")
    for evaluator in names:
        close(everything(name, evaluator, reverse, flags), expected)


@pytest.mark.parametrize("length, chunk", [(0, 4), (1, 4), (3, 1), (3, 64), (8, 4), (9, 4)])
def test_any_length_and_chunk(length, chunk):
    algebra, elements, state, _ = problem("diagonal", length)
    expected = scan(algebra, elements, state, evaluator="sequential")
    assert expected[0].shape == (length, D)
    close(scan(algebra, elements, state, evaluator="chunked", chunk_size=chunk), expected)
    close(scan(algebra, elements, state, evaluator="primitive"), expected)
    if length == 0:
        close(expected[1], state)


def test_the_sequential_loop_is_the_equation():
    """The oracle itself, against numpy."""
    _, (a, b), h, initial = problem("diagonal")
    resets = np.zeros(T, bool)
    resets[4] = True
    states, last = scan(
        m.diagonal, (a, b), h, evaluator="sequential", resets=jnp.array(resets), start=initial
    )
    for t in range(T):
        h = a[t] * (initial if resets[t] else h) + b[t]
        np.testing.assert_allclose(states[t], h, rtol=1e-12)
    np.testing.assert_array_equal(last, states[-1])


@pytest.mark.parametrize("name", ["diagonal", "stabilised"])
def test_sharded_over_devices(name):
    """Time split over four devices, with resets: the states and gradients of one device."""
    algebra, elements, state, initial = problem(name, 12)
    resets = jnp.zeros(12, bool).at[5].set(True)
    mesh = jax.make_mesh((4,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))

    def run(elements, state, evaluator, resets=resets, **options):
        return scan(
            algebra, elements, state, evaluator=evaluator, resets=resets, start=initial, **options
        )[0]

    def sharded(elements, state):
        part = jax.shard_map(
            lambda e, h, resets: run(e, h, None, resets, axis="time"),
            mesh=mesh,
            in_specs=(P("time"), P(), P("time")),
            out_specs=P("time"),
        )
        return part(elements, state, resets)

    expected = run(elements, state, "sequential")
    value = (lambda s: jnp.exp(s[0])[..., None] * s[1]) if name == "stabilised" else lambda s: s
    close(value(jax.jit(sharded)(elements, state)), value(expected))
    gradient = jax.grad(lambda *a: real(value(sharded(*a))), (0, 1))
    close(
        jax.jit(gradient)(elements, state),
        jax.grad(lambda e, h: real(value(run(e, h, "sequential"))), (0, 1))(elements, state),
    )


def test_a_user_defined_monoid_runs_everywhere():
    """Running (count, mean, sum of squares): Welford's algorithm as a monoid nobody declared."""

    def combine(p, q):
        n = p[0] + q[0]
        delta = q[1] - p[1]
        safe = jnp.where(n > 0, n, 1)
        return n, p[1] + delta * q[0] / safe, p[2] + q[2] + delta**2 * p[0] * q[0] / safe

    welford = m.Monoid(
        combine, lambda e: jax.tree.map(jnp.zeros_like, e), lambda e, h: combine(h, e)
    )
    x = jax.random.normal(jax.random.key(0), (10,))
    elements, empty = (jnp.ones(10), x, jnp.zeros(10)), (jnp.zeros(()),) * 3
    for evaluator in ("sequential", "associative", "chunked", None):
        (n, mean, squares), _ = scan(welford, elements, empty, evaluator=evaluator)
        np.testing.assert_allclose(mean, [x[: t + 1].mean() for t in range(10)])
        np.testing.assert_allclose(squares / n, [x[: t + 1].var() for t in range(10)], atol=1e-12)


def test_low_precision_elements_are_combined_in_float32():
    """Thousands of bfloat16 decays near one: their product in bfloat16 would be far off."""
    a = jnp.full((2048, 1), 0.998, jnp.bfloat16)
    b = jnp.ones((2048, 1), jnp.bfloat16)
    exact, h = np.float64(a[0, 0]), 0.0
    for _ in range(2048):
        h = exact * h + 1
    for evaluator in ("sequential", "associative", "chunked", "primitive"):
        _, last = scan(m.diagonal, (a, b), jnp.zeros(1, jnp.float32), evaluator=evaluator)
        np.testing.assert_allclose(last[0], h, rtol=1e-4, err_msg=evaluator)


def test_choice_and_explanation():
    assert choose("diagonal", "cpu") == "primitive"
    assert choose("dense", "gpu") == "chunked"
    for table in AUTOMATIC.values():
        assert all(name in EVALUATORS for name in table.values())
    told = explain("dense", "tpu")
    assert told["chunked"].startswith("chosen")
    assert "cannot run" in told["primitive"] and "diagonal" in told["primitive"]
    assert set(told) == set(EVALUATORS)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(evaluator="asociative"), "did you mean 'associative'"),
        (dict(evaluator="chunked", chunk_size=0), "chunk_size must be at least 1"),
        (dict(resets=jnp.zeros(3, bool)), r"resets must be bool \[11\]"),
        (dict(mask=jnp.zeros(T)), "mask must be bool"),
    ],
)
def test_errors(wrong, message):
    algebra, elements, state, _ = problem("diagonal")
    with pytest.raises(ValueError, match=message):
        scan(algebra, elements, state, **wrong)


def test_errors_of_shape():
    with pytest.raises(ValueError, match="same leading time axis"):
        scan(m.diagonal, (jnp.ones((3, 2)), jnp.ones((4, 2))), jnp.zeros(2))
    with pytest.raises(ValueError, match="runs the diagonal monoid only"):
        scan(m.dense, (jnp.ones((3, 2, 2)), jnp.ones((3, 2))), jnp.zeros(2), evaluator="primitive")
