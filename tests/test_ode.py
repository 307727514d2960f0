"""What the papers prove of oscillators and of constrained matrices, over thousands of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import FULL
from flax import nnx
from oracle_tools import layer_of
from scipy.integrate import solve_ivp
from scipy.optimize import root as scipy_root

from seqjax.layers.constrained.skew import cayley, exponential, from_upper, stiefel_step
from seqjax.layers.ode.koopman_ae import consistency
from seqjax.nn.ode import SOLVERS, integrate
from seqjax.zoo import make

STEPS = 10_000 if FULL else 2000


def trajectory(layer, steps=STEPS, scale=1.0):
    """All states under normal inputs of that size."""
    x = scale * jax.random.normal(jax.random.key(3), (1, steps, layer.features))
    return jax.jit(lambda x: layer(x, every=1)[1])(x)


def test_states_stay_within_the_bounds_of_the_papers():
    """coRNN: gamma |y|^2 + |z|^2 <= hidden n dt (2010.00951, prop. 3.1); LEM: |y|, |z| <= 1."""
    for damping in ("explicit", "implicit"):
        layer = layer_of("cornn", hidden=8, dt=0.04, damping=damping)
        h = trajectory(layer, scale=100.0)
        energy = np.asarray(layer.gamma * jnp.sum(h.y**2, -1) + jnp.sum(h.z**2, -1))
        n = 1 + np.arange(STEPS)[None]
        assert np.all(energy <= 8 * n * layer.dt) and np.max(energy) > 0.1
    h = trajectory(layer_of("lem", hidden=8), scale=100.0)
    assert np.max(np.abs(h.y)) <= 1 and np.max(np.abs(h.z)) <= 1 and np.max(np.abs(h.y)) > 0.9


def test_oscillators_without_damping_keep_volume_and_run_backwards():
    """UnICORNN: det dh_n/dh_0 = 1 for each unit, and h_0 is found again from h_n and the inputs."""
    layer = layer_of("unicornn", hidden=5, dt=0.3)
    x = jax.random.normal(jax.random.key(1), (1, 1000, layer.features))
    h_0 = jax.random.normal(jax.random.key(2), (1, 5, 2))
    run = jax.jit(lambda h: layer(x, h)[1])
    moved = jax.jacfwd(run)(h_0)[0, :, :, 0]  # [5, 2, 5, 2]
    blocks = jnp.stack([moved[n, :, n] for n in range(5)])
    np.testing.assert_allclose(jnp.linalg.det(blocks), 1, atol=1e-9)
    (y, z), ds = run(h_0)[0].T, layer.dt * jax.nn.sigmoid(layer.c[...])
    for u in layer.V(x[0])[::-1]:
        y = y - ds * z
        z = z + ds * (jnp.tanh(layer.w[...] * y + u) + layer.alpha * y)
    np.testing.assert_allclose(jnp.stack([y, z], 1), h_0[0], atol=1e-9)


def test_a_stable_lipschitz_network_forgets_where_it_began():
    """Theorem 1 of 2006.12070: A's symmetric part below -|W| contracts all trajectories."""
    layer = layer_of("lipschitz_rnn", hidden=6, dt=0.05, beta=1.0, gamma_A=2.0, init_std=0.5)
    A, W = layer.shared()
    top = jnp.linalg.eigvalsh((A + A.T) / 2)[-1] + jnp.linalg.norm(W, 2)
    assert top < 0
    starts = 5 * jax.random.normal(jax.random.key(4), (2, 6))
    x = jax.random.normal(jax.random.key(5), (1, 200, layer.features)).repeat(2, 0)
    h = jax.jit(lambda h: layer(x, h, every=1)[1])(starts)
    gap = np.linalg.norm(h[0] - h[1], axis=-1)
    assert np.all(np.diff(gap) < 0) and gap[-1] < np.exp(0.5 * top * 0.05 * 200) * gap[0]


@pytest.mark.share(1)
@pytest.mark.parametrize("solver, order", [("euler", 1), ("midpoint", 2), ("rk4", 4), ("rk38", 4)])
def test_solvers_have_their_order(solver, order):
    assert solver in SOLVERS

    def field(s, h):
        return jnp.cos(s) * h + jnp.sin(h)

    h_0, end = jnp.array([1.0, -0.3]), 1.5
    exact = solve_ivp(field, (0, end), h_0, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]

    def error(substeps):
        h = integrate(field, h_0, jnp.asarray(end), solver=solver, substeps=substeps)
        return np.max(np.abs(h - exact))

    assert abs(np.log2(error(16) / error(32)) - order) < 0.35


TIMES = jnp.array([[0.3, 0.0, 1.7, 0.01]])  # of four observations, two of them at once


@pytest.mark.thorough  # minutes of compiling
@pytest.mark.parametrize("adjoint", ["backsolve", "checkpointed", "direct"])
@pytest.mark.parametrize("name", ["neural_ode", "ode_rnn", "neural_cde"])
def test_adaptive_solutions_and_their_adjoints(name, adjoint):
    """Values and gradients, of parameters, inputs and times, against many small steps."""
    x = jax.random.normal(jax.random.key(7), (1, 4, 2))

    def gradient(**options):
        layer = layer_of(name, features=2, hidden=3, **options)
        graph, params, rest = nnx.split(layer, nnx.Param, ...)

        def loss(params, x, dt):
            y = nnx.merge(graph, params, rest)(x, dt=dt)[0]
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(params, x, TIMES)

    fixed = gradient(solver="rk4", substeps=64)
    found = gradient(solver="dopri5", tolerance=1e-9, adjoint=adjoint)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-7), found, fixed)


def test_a_solver_whose_library_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^solver 'dopri5' needs diffrax: pip install 'seqjax\["):
        make("neural_ode", 4, solver="dopri5")


def test_noise_is_drawn_in_training_alone():
    """One step from h = 0 with no input: what the key adds is a_t, and scales is m_t."""
    options = dict(hidden=40, dt=0.5, add_noise=0.3)
    layer = make("noisy_rnn", 1, mult_noise=0.0, **options)
    x, key = jnp.ones((100, 1, 1), jnp.float32), jax.random.key(0)
    added = layer(x, key=key)[0] - layer(x)[0]
    assert abs(float(added.std()) - 0.3) < 0.02 and abs(float(added.mean())) < 0.02
    layer = make("noisy_rnn", 1, mult_noise=0.4, **options | dict(add_noise=0.0))
    factor = layer(x, key=key)[0] / layer(x)[0]
    assert 0.6 <= float(factor.min()) < 0.61 and 0.99 < float(factor.max()) <= 1


@pytest.mark.parametrize("of", [exponential, cayley])
def test_orthogonal_after_thousands_of_updates(of):
    """In float32, far from the start, to 1e-6 (1901.08428): nothing accumulates."""
    target = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0], jnp.float32)
    optimiser, steps = optax.adam(1e-2), 10_000

    def loss(skew):
        return jnp.sum((of(from_upper(skew, 4)) - target) ** 2)

    def update(carry, _):
        skew, state = carry
        change, state = optimiser.update(jax.grad(loss)(skew), state, skew)
        return (optax.apply_updates(skew, change), state), None

    start = jnp.zeros(6, jnp.float32)
    with jax.numpy_dtype_promotion("standard"):  # as optax counts
        run = jax.jit(lambda c: jax.lax.scan(update, c, None, length=steps)[0][0])
        Q = of(from_upper(run((start, optimiser.init(start))), 4))
    Q = np.asarray(Q)
    assert float(loss(start)) > 1 and np.max(np.abs(Q.T @ Q - np.eye(4))) < 1e-6


def test_steps_on_the_unitary_matrices_stay_there():
    """10^4 of `stiefel_step` towards a unitary target: they arrive, and are unitary to 1e-6."""
    draw = np.random.default_rng(1)
    X, target = (
        jnp.asarray(np.linalg.qr(draw.normal(size=(4, 4)) + 1j * draw.normal(size=(4, 4)))[0])
        for _ in range(2)
    )
    rate = jnp.asarray(0.01 + 0j)
    found = jax.jit(
        lambda X: jax.lax.fori_loop(0, 10_000, lambda _, X: stiefel_step(X, X - target, rate), X)
    )(X)
    found = np.asarray(found)
    assert np.max(np.abs(found.conj().T @ found - np.eye(4))) < 1e-6
    assert np.max(np.abs(found - target)) < 1e-6 < np.max(np.abs(X - target))


def test_an_equilibrium_is_a_root_and_its_derivative_is_minus_one():
    layer = layer_of("incremental_rnn", hidden=4, substeps=None, alpha=1.5)
    x, h = jnp.asarray(np.random.default_rng(2).normal(size=(1, 1, 4))), jnp.full((1, 4), 0.3)
    W, b, U = (np.asarray(p[...]) for p in (layer.W.kernel, layer.W.bias, layer.U))
    u = x[0, 0] @ W + b
    expected = scipy_root(lambda s: np.tanh(U @ s + u) - 1.5 * s, np.zeros(4), tol=1e-13).x
    np.testing.assert_allclose(layer(x, h)[0][0, 0], expected - 0.3, atol=1e-10)
    moved = jax.jacfwd(lambda h: layer(x, h[None])[0][0, 0])(h[0])
    np.testing.assert_allclose(moved, -np.eye(4), atol=1e-12)
    # dU by the implicit function, against a difference
    value = jax.jit(lambda x: jnp.sum(layer(x, h)[0]))
    slope, e = jax.grad(value)(x), 1e-6
    for n in range(4):
        step = np.zeros((1, 1, 4))
        step[0, 0, n] = e
        assert abs((value(x + step) - value(x - step)) / (2 * e) - slope[0, 0, n]) < 1e-7


def test_units_start_on_a_limit_cycle():
    """Eigenvalues gain exp(+-i t); from near 0 a pair goes around for good, in 2 pi / t steps."""
    layer = make("limit_cycle_rnn", 2, hidden=6)
    values = np.linalg.eigvals(layer.U[...])
    np.testing.assert_allclose(np.abs(values), 1.5, rtol=1e-6)
    angle = np.sort(np.abs(np.angle(values)))[::2]
    assert np.pi / 21 <= angle.min() and angle.max() <= np.pi / 3.8
    start = jnp.full((1, 6), 1e-2)
    h = np.asarray(layer(jnp.zeros((1, 2000, 2)), start)[0][0, 500:]).reshape(-1, 3, 2)
    assert 0.5 < np.linalg.norm(h, axis=-1).min()
    turns = np.unwrap(np.angle(h[..., 0] + 1j * h[..., 1]), axis=0)
    per_step = np.sort(np.abs(turns[-1] - turns[0]) / (len(h) - 1))
    np.testing.assert_allclose(per_step, angle, rtol=0.15)


def test_a_koopman_layer_forecasts_as_its_functions_do():
    """From its first frame alone, and all parameters learn from the four errors."""
    layer = layer_of("koopman_ae", features=3, hidden=4, forcing=0.0)
    x = jax.random.uniform(jax.random.key(0), (6, 3), minval=-1)
    np.testing.assert_allclose(layer(x[None])[0][0], layer.forecast(x[0], 6), atol=1e-12)
    graph, parameters = nnx.split(layer)
    for start in ("forecast", "backcast"):
        one = getattr(layer, start)(x[0], 1)[0]
        matrix = layer.C[...] if start == "forecast" else layer.D[...]
        np.testing.assert_allclose(one, layer.decode(matrix @ layer.chi_e(x[0])), atol=1e-12)
    slopes = jax.jit(jax.grad(lambda p: sum(nnx.merge(graph, p).losses(x, back=2))))(parameters)
    assert all(np.abs(slope).max() > 0 for slope in jax.tree.leaves(slopes))
    with pytest.raises(ValueError, match=r"at most as many steps back; got \[6, 3\] and back=6"):
        layer.losses(x, back=6)


def test_koopman_matrices_are_consistent_where_one_is_the_inverse_of_the_other():
    C = np.random.default_rng(0).normal(size=(4, 4))
    assert consistency(jnp.asarray(C), jnp.linalg.inv(C)) < 1e-20
    D, expected = C.T, 0.0
    for k in range(1, 5):
        for one, other in ((C, D), (D, C)):
            expected += np.sum((other[:k] @ one[:, :k] - np.eye(k)) ** 2) / (2 * k)
    np.testing.assert_allclose(consistency(jnp.asarray(C), jnp.asarray(D)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("nnrnn", dict(hidden=3), "hidden must be even, for pairs of units that turn, got 3"),
        ("limit_cycle_rnn", dict(hidden=5), "hidden must be even, for pairs of units, got 5"),
        ("wave_rnn", dict(kernel_size=2), "kernel_size must be odd, so that a site has a middle"),
        ("ct_rnn", dict(solver="exact"), "solver 'exact' is of activation='linear', got 'tanh'"),
        ("ltc", dict(hidden=3, outputs=4), "outputs are the first of the units: at most 3, got 4"),
        ("lipschitz_rnn", dict(gated=True, form="residual"), "the gate is of form='lipschitz'"),
        ("orthogonal_rnn", dict(hidden=2, negative=3), "of 2 entries, 3 cannot be negative"),
        ("plrnn", dict(hidden=3, forcing=0.5), "x forces the first units: at most 3 features"),
    ],
)
def test_options_that_do_not_fit(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, 4, **options)
