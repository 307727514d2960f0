"""Claims of the state-space layers from HiPPO to Mamba-3 that the contract does not make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.core.flow import Carry, Flow
from seqjax.layers.ssm import hippo
from seqjax.layers.ssm.mamba3 import turn
from seqjax.layers.ssm.s4 import coordinates, dense, row
from seqjax.nn.base import cast_parameters
from seqjax.zoo import make


def build(name, features, **options):
    return cast_parameters(make(name, features, rngs=nnx.Rngs(1), **options), jnp.float64)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "measure, window, options",
    [
        ("legs", 200, dict(discretisation="zoh")),
        ("legt", 100, dict(dt=2 / 100)),
        ("fout", 100, dict(dt=2 / 100)),
        ("lagt", 200, dict(dt=0.05)),
    ],
)
def test_hippo_approximates_the_past(measure, window, options):
    """The history read off the coefficients: better with more of them, under each measure."""
    t = np.arange(200)
    f = np.sin(t / 12) + 0.3 * np.cos(t / 5)
    place = np.arange(window) + (0 if measure == "lagt" else 0.5)
    age = place * options["dt"] if measure == "lagt" else place / window
    errors = []
    for N in (4, 8, 24):
        layer = build("hippo", 1, measure=measure, state=N, **options)
        c = np.asarray(layer(jnp.asarray(f)[None, :, None])[0][0, -1])
        seen = hippo.basis(measure, N, age) @ c
        errors.append(float(np.sqrt(np.mean((seen - f[::-1][:window]) ** 2) / np.mean(f**2))))
    assert errors[0] > errors[1] > errors[2], errors
    assert errors[2] < {"legs": 0.1, "legt": 0.02, "fout": 0.2, "lagt": 0.4}[measure], errors


def test_scaled_legendre_knows_no_time_scale():
    """Theorem: stretching the input stretches the coefficients, up to the step of the solver."""
    f = np.cos(np.linspace(0, 3, 100))
    layer = build("hippo", 1, state=6, discretisation="zoh")
    slow = layer(jnp.repeat(jnp.asarray(f), 4)[None, :, None])[0][0, -1]
    fast = layer(jnp.asarray(f)[None, :, None])[0][0, -1]
    np.testing.assert_allclose(slow, fast, atol=0.02)


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
def test_normal_plus_low_rank(measure):
    """Half of the conjugate pairs gives the HiPPO matrix back."""
    form, (A, B) = hippo.nplr(measure, 6), hippo.transition(measure, 6)
    inner = np.diag(form.Lambda) - form.P.T @ form.P.conj()
    crossed = -form.P.T @ form.P  # from the half to its conjugates
    V = form.V
    got = 2 * (V @ inner @ V.conj().T + V @ crossed @ V.T).real
    np.testing.assert_allclose(got, A, atol=1e-10)
    np.testing.assert_allclose(2 * (V @ form.B).real, B, atol=1e-10)


def test_s4d_starts_where_the_paper_says():
    n, N = np.arange(4), 8
    starts = {
        "lin": -0.5 + 1j * np.pi * n,
        "inv": -0.5 + 1j * N / np.pi * (N / (2 * n + 1) - 1),
        "inv2": -0.5 + 1j * N / np.pi * (N / (n + 1) - 1),
        "quad": -0.5 + 1j / np.pi * (2 * n + 1) ** 2,
        "real": -(n + 1.0),
    }
    for init, expected in starts.items():
        layer = make("s4d", 3, state=N, init=init)
        A = -np.exp(layer.log_A_re[...]) + 1j * np.asarray(layer.A_im[...])
        np.testing.assert_allclose(A, np.broadcast_to(expected, (3, 4)), rtol=1e-5, atol=1e-6)
    imag = np.log(make("s4d", 500, state=N, init="random").A_im[...])
    assert abs(imag.mean()) < 0.1 and abs(imag.std() - 1) < 0.1 and (imag[0] != imag[1]).all()


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name, options",
    [
        ("dss", dict(state=2)),
        ("lssl", dict(state=3, channels=2)),
        ("s4", dict(state=4)),
        pytest.param("s4", dict(state=4, hurwitz=False), marks=pytest.mark.thorough),
        pytest.param("s4", dict(state=4, measure="legt", length=12), marks=pytest.mark.thorough),
        pytest.param("s4", dict(state=4, length=5), marks=pytest.mark.thorough),
    ],
)
def test_convolution_is_the_recurrence(name, options):
    """Outputs, last state and gradients from any entering state."""
    layer = build(name, 2, **options)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    x, h = normal(0, 1, 9, 2), layer(normal(1, 1, 5, 2))[1]

    def loss(params, x, h, evaluator):
        y, last = nnx.merge(graph, params, rest)(x, h, evaluator=evaluator)
        return jnp.sum(jnp.sin(y)) + jnp.sum(last.real * jnp.cos(last.imag)), (y, last)

    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    for got, expected in zip(
        jax.tree.leaves(run(params, x, h, "fft")),
        jax.tree.leaves(run(params, x, h, "sequential")),
        strict=True,
    ):
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.share(1)
@pytest.mark.parametrize("hurwitz", [True, False])
def test_s4_matches_its_dense_matrices(hurwitz):
    """Bilinear steps of the full complex matrix, at an even length (a root of unity is -1)."""
    layer = build("s4", 1, state=6, mix=False, hurwitz=hurwitz)
    if not hurwitz:
        layer.Q.set_value(0.7 * layer.Q[...] + 0.1)
        layer.A_re.set_value(layer.A_re[...] + jnp.array([[0.6, 0.0, -0.2]]))  # one grows
    c, C = layer.continuous(), layer.system().C[0]
    A = np.diag(np.append(c.A[0], c.A[0].conj()))
    P, Q = (np.append(z[0, 0], z[0, 0].conj()) for z in (c.P, c.Q))
    assert np.allclose(P, Q) == hurwitz
    A = A - np.outer(P, Q.conj())
    B, C, dt = np.append(c.B[0], c.B[0].conj()), np.append(C, C.conj()), float(c.dt[0])
    left = np.eye(6) - dt / 2 * A
    Abar, x = np.linalg.solve(left, np.eye(6) + dt / 2 * A), np.linalg.solve(left, dt * B)
    K = []
    for _ in range(8):
        K.append((C @ x).real)
        x = Abar @ x
    np.testing.assert_allclose(layer.kernel(8)[0], K, atol=1e-10)


@pytest.mark.share(1)
@pytest.mark.parametrize("how", ["zoh", "bilinear", "forward", "dirac", "async"])
def test_s5_irregular_steps(how):
    """Each step runs by its own time: the equations of the discretisations in numpy."""
    layer = build("s5", 1, state=4, discretisation=how, mix=False)
    us, times = np.asarray(normal(0, 3)), np.array([1.0, 2.0, 0.5])
    h = layer(jnp.asarray(us)[None, :, None], dt=jnp.asarray(times)[None])[1]
    real = (np.asarray(layer.Lambda[...]), np.asarray(layer.B[...])[:, :, 0])
    Lambda, B = (z[0] + 1j * z[1] for z in real)
    expected = np.zeros(2, complex)
    for u, time in zip(us, times):
        dt = np.exp(np.asarray(layer.log_dt[...]))
        long = dt * time
        A, b = {
            "zoh": (np.exp(Lambda * long), (np.exp(Lambda * long) - 1) / Lambda),
            "bilinear": ((2 + Lambda * long) / (2 - Lambda * long), 2 * long / (2 - Lambda * long)),
            "forward": (1 + Lambda * long, long),
            "dirac": (np.exp(Lambda * long), 1.0),
            "async": (np.exp(Lambda * long), (np.exp(Lambda * dt) - 1) / Lambda),
        }[how]
        expected = A * expected + b * B * u
    np.testing.assert_allclose(h[0], expected, atol=1e-12)


def test_s5_both_directions():
    """Turned around in time, and with the halves of C swapped, it gives the turned outputs."""
    layer = build("s5", 2, state=4, bidirectional=True)
    x, resets = normal(0, 1, 6, 2), jnp.zeros((1, 6), bool).at[0, 4].set(True)
    y = layer(x, resets=resets)[0]
    np.testing.assert_allclose(y[:, :4], layer(x[:, :4])[0], atol=1e-12)
    np.testing.assert_allclose(y[:, 4:], layer(x[:, 4:])[0], atol=1e-12)
    C = layer.C[...]
    layer.C.set_value(jnp.concatenate([C[..., 2:], C[..., :2]], axis=-1))
    np.testing.assert_allclose(layer(x[:, ::-1])[0][:, ::-1], build("s5", 2, state=4,
        bidirectional=True)(x)[0], atol=1e-12)  # fmt: skip


@pytest.mark.parametrize("kernel", ["pb", "kb"])
def test_liquid_s4_is_its_recurrence_while_no_product_is_left_out(kernel):
    """x_k = (Abar + Bbar 1^T u_k) x_{k-1} + Bbar u_k over as many steps as `degree`."""
    layer = build("liquid_s4", 1, state=4, kernel=kernel, degree=2, mix=False)
    system = layer.system()
    u = np.asarray(normal(0, 2))
    A, b = dense(system)[0], coordinates(system.B)[0]
    ones = np.array([2.0, 2.0, 0.0, 0.0])  # the sum over both halves, of (Re x, Im x)
    first = b * u[0]
    second = A @ first + b * (ones @ first) * u[1] + b * u[1]
    C = row(system.C)[0]
    y = np.array([C @ first, C @ second]) + np.asarray(layer.D[...]) * u
    np.testing.assert_allclose(layer(jnp.asarray(u)[None, :, None])[0][0, :, 0], y, atol=1e-12)


def test_what_a_mamba3_forgets_at_least():
    """Where `floor` is above all rates the input has no say in them: A = -floor."""
    run = nnx.jit(lambda layer: layer(normal(0, 1, 3, 4))[0])
    outputs = {}
    for floor in (1e-4, 9.0):
        layer = build("mamba3", 4, state=4, heads=2, floor=floor)
        first = run(layer)
        rates = slice(sum(layer.sizes[:5]), sum(layer.sizes[:6]))
        layer.W_in.kernel[...] = layer.W_in.kernel[...].at[:, rates].set(0)
        outputs[floor] = first, run(layer)
    np.testing.assert_array_equal(*outputs[9.0])
    assert not np.allclose(*outputs[1e-4], rtol=0, atol=1e-6)


@pytest.mark.thorough
def test_mamba3_with_several_inputs():
    """The recurrence as the paper writes it, rank-R writes and all, against the stretched scan."""
    layer = build("mamba3", 2, state=4, heads=1, expand=1, rank=3)
    T, R, N, P = 5, 3, 4, 2
    C, B, x, z = (
        normal(0, T, R, 1, N),
        normal(1, T, R, 1, N),
        normal(2, T, 1, P),
        normal(3, T, 1, P),
    )
    log_alpha, dt, lam, phi = (
        -jax.nn.softplus(normal(4, T, 1)),
        jax.nn.softplus(normal(5, T, 1)),
        jax.nn.sigmoid(normal(6, T, 1)),
        normal(7, T, 1, 1),
    )
    shift = 0.5 * normal(8, R, 1, P)
    for name in ("X", "Z", "O"):
        getattr(layer, name).set_value(getattr(layer, name)[...] + shift)
    h = layer.initial()._replace(theta=jnp.full((1, 1), 6.0), B=normal(9, R, 1, N), x=x[0] + 1)
    X, Z, O = (np.asarray(w[...])[:, 0] for w in (layer.X, layer.Z, layer.O))
    S, theta = np.zeros((N, P)), 6.0
    B_last, v_last = np.asarray(h.B[:, 0]), np.asarray(h.x[0]) * X
    outputs = []
    for t in range(T):
        theta += np.pi * np.tanh(phi[t, 0, 0]) * dt[t, 0]
        q, k = (
            np.asarray(turn((w[t, :, 0] + b[...][:, 0]), jnp.full((1, 1), theta)))
            for w, b in ((C, layer.C_bias), (B, layer.B_bias))
        )
        v, alpha = np.asarray(x[t, 0]) * X, np.exp(log_alpha[t, 0])
        S = alpha * S + (1 - lam[t, 0]) * dt[t, 0] * alpha * B_last.T @ v_last
        S = S + lam[t, 0] * dt[t, 0] * k.T @ v
        y = (q @ S + v) * np.asarray(jax.nn.silu(np.asarray(z[t, 0]) * Z))
        outputs.append(np.sum(y * O, axis=0))
        B_last, v_last = k, v
    for evaluator in ("sequential", "chunked"):
        flow = Flow(evaluator=evaluator)
        y, last = layer.mix(C, B, x, z, log_alpha, dt, lam, phi, Carry(h, h), flow)
        np.testing.assert_allclose(y[:, 0], outputs, atol=1e-10)
        np.testing.assert_allclose(last.S[0], S, atol=1e-10)
        np.testing.assert_allclose(last.theta[0, 0], theta % (2 * np.pi), atol=1e-10)


@pytest.mark.thorough
def test_sashimi_by_tokens_is_sashimi_by_steps():
    """At its own rate, from any place within a token, the level below says the same."""
    layer = build("sashimi", 2, depth=1, pool=(2, 2), state=2, ff=1)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    x = normal(0, 1, 8, 2)
    for taken in (0, 3):
        h = layer.batch_state(1, x.dtype)
        if taken:
            h = layer(normal(1, 1, taken, 2), h)[1]

        def loss(params, x, h, mask):
            y, last = nnx.merge(graph, params, rest)(x, h, mask=mask)
            return jnp.sum(jnp.sin(y)), (y, last)

        run = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        tokens = run(params, x, h, None)  # 8 divides: at the lower rates
        steps = run(params, x, h, jnp.ones((1, 8), bool))
        for got, expected in zip(jax.tree.leaves(tokens), jax.tree.leaves(steps), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)
