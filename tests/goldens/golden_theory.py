"""Goldens of theory: Lyapunov exponents in closed form and of the literature; path signatures."""

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.tasks.synthetic.series import runge_kutta
from seqjax.theory.memory_capacity import lyapunov
from seqjax.theory.scyfi import Piecewise, cycles
from seqjax.theory.signatures import at, flat, logarithm, lyndon_words, signature


def cat_map(h):
    return jnp.stack([2 * h[0] + h[1], h[0] + h[1]]) % 1


def henon(h):
    return jnp.stack([1 - 1.4 * h[0] ** 2 + h[1], 0.3 * h[0]])


def logistic(h):
    return 4 * h * (1 - h)


def lorenz(h):
    x, y, z = h
    return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


# The step, where it starts, how many, and the time of one.
MAPS = {
    "cat_map": (cat_map, [0.2, 0.3], 1000, 1.0),
    "henon": (henon, [0.1, 0.1], 100_000, 1.0),
    "logistic_r4": (logistic, [0.3], 100_000, 1.0),
    "lorenz63": (runge_kutta(lorenz, 0.01, 1), [1.0, 1.0, 1.0], 60_000, 0.01),
}


def exponents(inputs, meta):
    if "A" in inputs:
        A = inputs["A"]
        # a start of full rank is all that a linear map needs
        step, h, steps, time = lambda h: A @ h, jnp.ones(len(A)), 20_000, 1.0
    else:
        step, h, steps, time = MAPS[meta["case"]]
    found = lyapunov(step, jnp.asarray(h), steps, skip=min(1000, steps // 10)) / time
    return {"exponents": found} | ({"sum": jnp.sum(found)} if meta["case"] == "lorenz63" else {})


def iterated_integrals(inputs, meta, evaluator):
    depth, letters = meta["depth"], inputs["x"].shape[-1]

    def one(x):
        S = signature(x, depth, evaluator=evaluator)
        log = logarithm(S)
        words = sorted(lyndon_words(letters, depth), key=lambda w: (len(w), w))
        return {"sig": flat(S), "logsig": jnp.stack([at(log, word) for word in words])}

    return jax.vmap(one)(inputs["x"])


def fixed_points(inputs, meta):
    """Cycles begin at their smallest point and are padded with NaN to the longest."""
    N = len(inputs["h"])
    eye, none = np.eye(N), np.zeros(N)
    of = Piecewise(inputs["A"], inputs["W"], eye, none, inputs["h"])
    found, longest = cycles(of, meta["max_order"]), meta["max_order"]
    points = np.full((len(found), longest, N), np.nan)
    for n, one in enumerate(found):
        points[n, : len(one.points)] = one.points
    return {
        "points": points,
        "period": np.array([len(one.points) for one in found]),
        "abs_eig": np.array([abs(one.eigenvalues) for one in found]),
    }


ADAPTERS = {
    "lyapunov": {"function": exponents},
    "path_signature": {
        evaluator: lambda inputs, meta, evaluator=evaluator: iterated_integrals(
            inputs, meta, evaluator
        )
        for evaluator in ("sequential", "associative", "chunked")
    },
    "plrnn_fixed_points": {"scyfi": fixed_points},
}
