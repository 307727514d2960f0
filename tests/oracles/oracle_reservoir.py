"""Oracles of reservoirs, of the options that no golden has; see `test_equations`."""

import numpy as np
from oracle_tools import T, sigmoid

MAPS = {"tanh": np.tanh, "sigmoid": sigmoid, "relu": lambda a: np.maximum(a, 0)}


def plastic(W, x, *, hidden, activation="tanh", **_):
    """Units that leak before f; gain and shift as they are drawn, 1 and 0."""
    z, a, ys = np.zeros(hidden), W["a"], []
    y = MAPS[activation](W["shift"])
    for x_t in x:
        z = (1 - a) * z + a * (W["W"] @ y + W["W_in"] @ x_t + W["b"])
        y = MAPS[activation](W["gain"] * z + W["shift"])
        ys.append(y)
    return np.stack(ys)


def residual(W, x, *, hidden, skip="random", alpha=0.9, activation="tanh", **_):
    """The residual branch in words: a roll, or nothing; "random" only as what it is drawn as."""
    branch = {
        "random": lambda h: W["O"] @ h,
        "cyclic": lambda h: np.roll(h, 1),
        "identity": lambda h: h,
    }[skip]
    h, ys = np.zeros(hidden), []
    for x_t in x:
        new = MAPS[activation](W["W"] @ h + W["W_in"] @ x_t + W["b"])
        h = alpha * branch(h) + W["beta"] * new
        ys.append(h)
    return np.stack(ys)


def deep(W, x, *, units, cell, **options):
    layers = []
    for n, hidden in enumerate(units):
        own = {name: v[n] if isinstance(v, tuple) else v for name, v in options.items()}
        x = cell(W.under(f"reservoirs.{n}"), x, hidden=hidden, **own)
        layers.append(x)
    return np.hstack(layers)


def liquid(
    W, x, *, hidden, dt=1e-3, tau=0.03, synapse=3e-3, refractory=3e-3, trace=0.03, threshold=1.0,
    reset="zero", delayed=False, coding="current", reads="trace", **_,
):  # fmt: skip
    """A neuron at a time, each with a clock of its own."""
    x = np.clip(x, 0, 1) if coding == "rate" else x
    v, i, s, z = (np.zeros(hidden) for _ in range(4))
    until, ys = np.full(hidden, -1), []
    for t, x_t in enumerate(x):
        arrived = W["W"] @ z + W["W_in"] @ x_t
        z = np.zeros(hidden)
        for n in range(hidden):
            i[n] += arrived[n]
            crossed = v[n] > threshold
            if crossed and reset == "zero":
                v[n] = 0.0
            v[n] = np.exp(-dt / tau) * v[n] + (1 - np.exp(-dt / tau)) * i[n]
            if crossed and reset == "subtract":
                v[n] -= threshold
            if t <= until[n]:
                v[n] = 0.0
            elif v[n] > threshold:
                z[n], until[n] = 1.0, t + round(refractory / dt)
                if not delayed:
                    v[n] = 0.0 if reset == "zero" else v[n] - threshold
            i[n] *= np.exp(-dt / synapse) if synapse else 0.0
            s[n] = np.exp(-dt / trace) * s[n] + z[n]
        ys.append({"trace": s, "spikes": z, "potential": v}[reads].copy())
    assert len(ys) == T and (reads != "trace" or np.sum(s) > 0), "nothing fires"
    return np.stack(ys)


def nvar(W, x, *, delay=2, stride=1, constant=True, **_):
    """Of order 2, product by product."""
    rows = []
    for t in range(T):
        lags = [t - n * stride for n in range(delay)]
        seen = np.concatenate([x[s] if s >= 0 else np.zeros_like(x[0]) for s in lags])
        products = [seen[a] * seen[b] for a in range(len(seen)) for b in range(a, len(seen))]
        rows.append([1.0] * constant + list(seen) + products)
    return np.array(rows)


def deep_residual(W, x, *, units, **options):
    return deep(W, x, units=units, cell=residual, **options)


CASES = [
    (
        "esn",
        plastic,
        dict(hidden=5, leak=0.3, density=0.8, feedback=2, bias_scale=0.3, plastic=True),
    ),
    ("residual_esn", residual, dict(hidden=5, skip="cyclic", bias_scale=0.2, law="normal")),
    ("residual_esn", residual, dict(hidden=5, skip="identity", alpha=0.5, activation="relu")),
    (
        "deep_residual_esn",
        deep_residual,
        dict(units=(5, 4), skip="cyclic", alpha=(0.5, 0.8), bias_scale=0.2),
    ),
    ("liquid_state_machine", liquid, dict(hidden=30, dt=5e-3, input_density=1.0)),
    (
        "liquid_state_machine",
        liquid,
        dict(
            hidden=20,
            dt=5e-3,
            input_density=1.0,
            synapse=0.0,
            reset="subtract",
            delayed=True,
            threshold=0.5,
        ),
    ),
    (
        "liquid_state_machine",
        liquid,
        dict(hidden=20, dt=5e-3, coding="rate", reads="potential", reset="subtract"),
    ),
    ("nvar", nvar, dict(delay=3, stride=2)),
]
