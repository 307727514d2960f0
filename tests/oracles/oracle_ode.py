"""Oracles of steps of differential equations and of constrained matrices, of the options that no
golden has; see `test_equations`."""

import numpy as np
from oracle_tools import sigmoid
from scipy.linalg import expm


def cornn(W, x, *, hidden, dt, gamma, epsilon, **_):
    """2010.00951 eq. 3 with the damping of z_n, solved for z_n."""
    y, z, ys = np.zeros(hidden), np.zeros(hidden), []
    for u in x:
        a = np.tanh(W["W"] @ y + W["W_z"] @ z + W.affine("V", u)) - gamma * y
        z = (z + dt * a) / (1 + dt * epsilon)
        y = y + dt * z
        ys.append(y)
    return np.stack(ys)


def between(M, beta, gamma):
    return beta * (M - M.T) + (1 - beta) * (M + M.T) - gamma * np.eye(len(M))


def lipschitz_rnn(W, x, *, hidden, dt, alpha, beta, gamma_A, gamma_W, **_):
    """2006.12070 eq. 3, 5 by the midpoint rule, gated as released."""
    A, R = between(W["M_A"], beta, gamma_A), between(W["M_W"], beta, gamma_W)
    h, ys = np.zeros(hidden), []
    for u in x:
        z, g = np.split(W.affine("U", u), 2)

        def slope(h, z=z, g=g):
            return (alpha * A @ h + np.tanh(R @ h + z)) * sigmoid(R @ h + g)

        h = h + dt * slope(h + dt / 2 * slope(h))
        ys.append(h)
    return np.stack(ys)


def skew(numbers, size):
    S = np.zeros((size, size))
    S[np.triu_indices(size, 1)] = numbers
    return S - S.T


def orthogonal_rnn(W, x, *, hidden, negative, **_):
    """1707.09520: D of ones and minus ones times Cayley's map, tanh with a bias."""
    S, D = skew(W["skew"], hidden), np.diag([1.0] * (hidden - negative) + [-1.0] * negative)
    Q = D @ np.linalg.inv(np.eye(hidden) + S) @ (np.eye(hidden) - S)
    assert np.allclose(Q.T @ Q, np.eye(hidden))
    h, ys = np.zeros(hidden), []
    for u in x:
        h = np.tanh(W.linear("W", u) + Q @ h + W["b"])
        ys.append(h)
    return np.stack(ys)


def nnrnn(W, x, *, hidden, **_):
    """1905.12080 eq. 2 with P = exp(S), the modReLU of sign(z) max(|z| + b, 0)."""
    P, T = expm(skew(W["skew"], hidden)), np.zeros((hidden, hidden))
    T[np.triu_indices(hidden, 1)] = W["T"]
    for j, (a, t) in enumerate(zip(W["alpha"], W["theta"])):
        rows = slice(2 * j, 2 * j + 2)
        T[rows, rows] += a * np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    V = P @ T @ P.T
    h, ys = np.zeros(hidden), []
    for u in x:
        z = W.linear("U", u) + h @ V
        h = np.sign(z) * np.maximum(np.abs(z) + W["b"], 0)
        ys.append(h)
    return np.stack(ys)


def cfc(W, x, *, hidden, **_):
    """2106.13898 with no hidden layer: four maps of [x, h], a step of time 1."""
    h, ys = np.zeros(hidden), []
    for u in x:
        f, g, a, b = np.split(W.affine("W", u) + W["U"] @ h, 4)
        w = sigmoid(a + b)
        h = np.tanh(f) * (1 - w) + np.tanh(g) * w
        ys.append(h)
    return np.stack(ys)


def neural_ode(W, x, *, hidden, substeps, **_):
    """1806.07366 with the input held, by steps of the classical rule of order 4."""
    h, ys, ds = np.zeros(hidden), [], 1 / substeps
    for u in x:

        def slope(h, u=u):
            return W.affine("W_2", np.tanh(W.linear("W_1", h) + W.affine("V", u)))

        for _ in range(substeps):
            a = slope(h)
            b = slope(h + ds / 2 * a)
            c = slope(h + ds / 2 * b)
            h = h + ds / 6 * (a + 2 * b + 2 * c + slope(h + ds * c))
        ys.append(h)
    return np.stack(ys)


def neural_cde(W, x, *, hidden, **_):
    """2005.08926 on straight lines in time and x, Euler's steps of a two-layer field."""
    z, ys, before = W.affine("W_0", x[0]), [], x[0]
    for t, x_t in enumerate(x):
        moves = np.concatenate([[1.0], x_t - before])
        for _ in range(2 if t else 0):
            f = np.tanh(W.affine("W", np.maximum(W.affine("W_1", z), 0)))
            z = z + f.reshape(hidden, -1) @ moves / 2
        before = x_t
        ys.append(z)
    return np.stack(ys)


def koopman_ae(W, x, *, forcing, **_):
    """2003.02236 sec. 3: encoded, moved by C, decoded; D belongs to the losses."""

    def coded(name, u):
        for n in range(3):
            u = W.affine(f"{name}.layers.{n}", np.tanh(u) if n else u)
        return u

    W["D"]
    q, ys = None, []
    for u in x:
        z = coded("chi_e", u)
        q = W["C"] @ (z if q is None else forcing * z + (1 - forcing) * q)
        ys.append(np.tanh(coded("chi_d", q)))
    return np.stack(ys)


CASES = [
    ("koopman_ae", koopman_ae, dict(hidden=3, width=5, forcing=0.3)),
    ("cornn", cornn, dict(hidden=3, dt=0.5, gamma=1.0, epsilon=2.0, damping="implicit")),
    (
        "lipschitz_rnn",
        lipschitz_rnn,
        dict(
            hidden=3,
            dt=0.5,
            alpha=0.7,
            beta=0.6,
            gamma_A=0.2,
            gamma_W=0.1,
            gated=True,
            solver="midpoint",
        ),
    ),
    (
        "orthogonal_rnn",
        orthogonal_rnn,
        dict(hidden=5, parametrisation="cayley", negative=2, activation="tanh"),
    ),
    ("nnrnn", nnrnn, dict(hidden=4)),
    ("cfc", cfc, dict(hidden=3, depth=0)),
    ("neural_ode", neural_ode, dict(hidden=3, width=5, solver="rk4", substeps=2)),
    (
        "neural_cde",
        neural_cde,
        dict(hidden=3, width=5, path="linear", solver="euler", substeps=2),
    ),
]
