"""Theory: measures against closed forms, equalities computed on both sides."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.stacks.config import LayerConfig
from seqjax.tasks.synthetic.series import runge_kutta
from seqjax.theory import THEORY, gradient_flow, identities, jacobians, memory_capacity
from seqjax.theory.finding import Finding, draw, each
from seqjax.tools.cli import main

random = np.random.default_rng(0)


def layer_of(name, features, **options):
    ((_, layer),) = each([LayerConfig(name, options)], features, seed=0)
    return layer


def measured(layer, x):
    return jax.jit(lambda x: gradient_flow.measure(layer, x))(x)


def rotation(n):
    return np.linalg.qr(random.normal(size=(n, n)))[0]


def linear(U):
    """h_t = U h_{t-1} + x_t."""
    layer = layer_of("elman", len(U), activation="linear")
    layer.U[...] = jnp.asarray(U)
    layer.W.kernel[...] = jnp.eye(len(U), dtype=layer.W.kernel.dtype)
    return layer


def test_a_product_of_jacobians_that_no_float_holds():
    """|(c Q)^n| = c^n at 0.5^3000, which is 0 in float64; and d n log c / dc = n / c."""
    Q = rotation(3)

    def last(c):
        J = jnp.broadcast_to(c * Q, (3000, 3, 3))
        return jacobians.log_norms(J)[::1000]

    log = np.log(0.5)
    np.testing.assert_allclose(last(0.5), [log, 1001 * log, 2001 * log], rtol=1e-10)
    np.testing.assert_allclose(jax.jacrev(last)(0.5), [2, 2002, 4002], rtol=1e-10)


def test_products_are_from_the_last_step_back():
    J = random.normal(size=(5, 3, 3))
    products = [J[4]]
    for earlier in J[3::-1]:
        products.append(products[-1] @ earlier)
    expected = [np.log(np.linalg.norm(P, 2)) for P in products]
    np.testing.assert_allclose(jacobians.log_norms(jnp.asarray(J)), expected, rtol=1e-12)


def test_gradients_through_layers_of_closed_form():
    x = jnp.asarray(random.normal(size=(40, 4)))
    flow = measured(linear(0.9 * rotation(4)), x)
    np.testing.assert_allclose(flow.log_norm, np.arange(1, 40) * np.log(0.9), rtol=1e-10)
    np.testing.assert_allclose(flow.lipschitz, 0.9, rtol=1e-12)
    lru = layer_of("lru", 4)  # complex and diagonal: the largest modulus to the power
    modulus = np.exp(-np.exp(np.asarray(lru.nu_log[...])))
    found = measured(lru, x).log_norm
    np.testing.assert_allclose(found, np.arange(1, 40) * np.log(modulus.max()), rtol=1e-6)
    # h_t = h_{t-1} + f(x_t) alone: what Jacobians of a residual recurrence are
    J = jnp.broadcast_to(jnp.eye(4), (40, 4, 4))
    assert not np.any(jacobians.log_norms(J))
    nothing = jnp.zeros((5, 2, 2))
    assert np.all(np.isneginf(jacobians.log_norms(nothing)))


@pytest.mark.thorough
def test_jacobians_are_finite_differences():
    """Of states of several parts, a running maximum among them; the first step is left out."""
    for name, options in (("lstm", {}), ("mlstm", {"heads": 2}), ("gated_deltanet", {"heads": 2})):
        layer = layer_of(name, 4, **options)
        x = jnp.asarray(random.normal(size=(6, 4)))
        J, last = jax.jit(lambda x, layer=layer: jacobians.jacobians(layer, x))(x)
        step = jax.jit(jacobians.step_of(layer))
        h = layer.start()
        for at in x[:-1]:
            h = step(h, at)
        flat, back = jacobians.numbers(h)
        assert J.shape == (5, flat.size, flat.size) and np.all(np.isfinite(J))
        v = jnp.asarray(random.normal(size=flat.size)).astype(flat.dtype)
        near = [jacobians.numbers(step(back(flat + e * v), x[-1]))[0] for e in (1e-3, -1e-3)]
        size = float(jnp.max(jnp.abs(J[-1] @ v)))
        np.testing.assert_allclose(J[-1] @ v, (near[0] - near[1]) / 2e-3, atol=5e-3 * size)
        np.testing.assert_allclose(
            jacobians.numbers(last)[0], jacobians.numbers(step(h, x[-1]))[0], rtol=1e-5, atol=1e-6
        )


def test_no_eigenvalue_is_beyond_the_bound_of_gershgorin():
    J = jnp.asarray(random.normal(size=(20, 5, 5)))
    assert np.all(np.abs(np.linalg.eigvals(J)) <= np.asarray(jacobians.gershgorin(J))[:, None])
    triangle = jnp.asarray([[2.0, -3.0], [0.0, -1.0]])
    assert float(jacobians.gershgorin(triangle)) == 5


@pytest.mark.thorough
def test_lyapunov_exponents():
    """Of a linear map the moduli of its eigenvalues; of Lorenz's the sum -(sigma + 1 + beta)."""
    A = np.diag([1.2, 0.7, 0.1]) + np.triu(random.normal(size=(3, 3)), 1)
    found = memory_capacity.lyapunov(lambda h: jnp.asarray(A) @ h, jnp.ones(3), 2000)
    np.testing.assert_allclose(found, np.log([1.2, 0.7, 0.1]), atol=5e-3)
    layer = linear(A / 2)
    x = jnp.asarray(random.normal(size=(2000, 3)))
    found = memory_capacity.lyapunov_of(layer, x, skip=200)
    np.testing.assert_allclose(found, np.log([0.6, 0.35, 0.05]), atol=5e-3)

    def lorenz(h):
        x, y, z = h
        return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    step = runge_kutta(lorenz, 0.01, 1)
    found = memory_capacity.lyapunov(step, jnp.ones(3), 20_000, skip=1000) / 0.01
    np.testing.assert_allclose(found, [0.906, 0, -14.572], atol=0.05)
    np.testing.assert_allclose(jnp.sum(found), -(10 + 1 + 8 / 3), atol=1e-3)
    np.testing.assert_allclose(memory_capacity.dimension(found), 2.062, atol=5e-3)
    assert memory_capacity.dimension([-0.1, -1]) == 0 and memory_capacity.dimension([0.2, 0.1]) == 2


def test_capacities_of_a_delay_line():
    """N units that hold the last N inputs: N of degree 1, none of degree 2, and the products of
    inputs that are given as states have all theirs."""
    u = jnp.asarray(random.uniform(-1, 1, 20_000))
    line = linear(np.eye(5, k=-1))
    h = memory_capacity.states(line, u, jnp.eye(5, dtype=u.dtype)[0])
    np.testing.assert_allclose(h[10:, 3], u[7:-3])
    first = memory_capacity.capacities(h[8:], memory_capacity.targets(u, 1, 8))
    np.testing.assert_allclose(first, [1, 1, 1, 1, 1, 0, 0, 0, 0], atol=2e-3)
    x = np.linspace(-1, 1, 9)
    cubic = memory_capacity.legendre(jnp.asarray(x), 3)
    np.testing.assert_allclose(cubic, 7**0.5 * (5 * x**3 - 3 * x) / 2, atol=1e-14)
    y = memory_capacity.targets(u, 2, 3)
    assert y.shape == (20_000 - 3, 10)
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(10), atol=0.06)
    assert np.max(memory_capacity.capacities(h[3:], y)) < 3e-3
    found = memory_capacity.capacities(y[:, :4], y)
    np.testing.assert_allclose(found, [1] * 4 + [0] * 6, atol=3e-3)
    twice = jnp.concatenate([y, y, 0 * y], axis=1)  # nothing is counted twice
    np.testing.assert_allclose(memory_capacity.capacities(twice, y), 1, rtol=1e-9)


@pytest.mark.thorough
def test_no_state_has_more_capacity_than_numbers():
    found = memory_capacity.memory_capacity(
        memory_capacity.RESERVOIRS[3:5], steps=3000, longest=60, degree=3
    )
    assert found.columns[1:] == ("N", "degree 1", "degree 2", "degree 3", "sum", "Lyapunov")
    for row in found.rows:
        N, *by_degree, total, largest = map(float, row[1:])
        assert N == 60 and 0.3 * N < total <= 1.02 * N and largest < 0
        assert by_degree[1] < 1 < by_degree[0]  # an odd function of the inputs has no even part
    with pytest.raises(ValueError, match="steps must be at least 10 times longest = 100, got 50"):
        memory_capacity.memory_capacity(steps=50)


@pytest.mark.share(2)
@pytest.mark.parametrize("name", identities.IDENTITIES)
def test_identities(name):
    both = jax.jit(identities.IDENTITIES[name], static_argnums=1)
    assert 0 <= float(both(jax.random.key(1), 70)) < 1e-13


def test_a_difference_is_relative_to_the_larger_side():
    assert float(identities.difference(jnp.array([2.0, 4.0]), jnp.array([2.0, 3.0]))) == 0.25


@pytest.mark.thorough
def test_the_command_line(tmp_path, capsys):
    figure = tmp_path / "flow.png"
    assert main(["theory"]) == 0 and all(name in capsys.readouterr().out for name in ["identities"])
    words = ["theory", "gradient_flow", "--features", "3", "--steps", "3", "--model.layer"]
    assert main([*words, "elman", "leak=0.5", "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    assert "elman leak=0.5" in printed and figure.stat().st_size > 5000
    assert main([*words, "elman", "indrnn", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(curve[1]) for curve in found["curves"].values()] == [2, 2]
    assert found["rows"][0]["2 steps"] == f"{10 ** found['curves']['elman'][1][1]:.1e}"
    for wrong, message in (
        (["gradient_fow"], "unknown question 'gradient_fow'; did you mean 'gradient_flow'"),
        (["gradient_flow", "--steps", "1"], "steps must be at least 2, got 1"),
        (["gradient_flow", "--layer", "bidirectional", "layer=gru"], "reads the future"),
        (["gradient_flow", "--figure", "flow"], "figure must end in"),
        (["identities", "--figure", str(figure)], "a table, and no curves to draw"),
    ):
        assert main(["theory", *wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="no curves"):
        draw(Finding("t", (), ()), figure)
    assert set(THEORY) >= {"gradient_flow", "identities", "memory_capacity"}
