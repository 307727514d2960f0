"""How a gradient fares through time: the size of d h_T / d h_t against the distance T - t.

    |d h_T / d h_t| = |J_T .. J_{t+1}|,  J_t = d h_t / d h_{t-1}              Bengio et al. 1994

    elman      J_t = Diag(f'(z_t)) U: vanishes where |U| max f' < 1, and may explode above
    residual   h_t = h_{t-1} + f(x_t): J_t = I, and so is every product
    lstm       d c_t / d c_{t-1} along the cell alone is Diag(f_t), Hochreiter and Schmidhuber's
               constant error carousel where the forget gate f is 1

For any layer that has a state: "vanishes" and "explodes" are what its Jacobians say on inputs of a
size, at its initialisation. Beside the products there are two bounds that need no product: that of
Gershgorin on the moduli of eigenvalues, as recurrent highway networks use it (arXiv:1607.03474,
eq. 4), and the Lipschitz constant of a step on the way, max_t |J_t|, whose power bounds a product.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from seqjax.core.ranges import Count, NotNegative, Seed
from seqjax.nn.base import Layer
from seqjax.stacks.config import LayerConfig
from seqjax.theory.finding import Finding, Layers, each
from seqjax.theory.jacobians import gershgorin, jacobians, log_norms

CLASSIC = tuple(map(LayerConfig, ("elman", "gru", "lstm")))
LN10 = 2.302585092994046


class GradientFlow(NamedTuple):
    """Of one sequence."""

    log_norm: Array  # [T - 1], log |d h_T / d h_t| at the distances 1, 2, .., T - 1
    lipschitz: Array  # max_t |J_t|
    gershgorin: Array  # max_t of the bound on the eigenvalues of J_t


def measure(layer: Layer, x: Array) -> GradientFlow:
    """Of the steps of x [T, features], T at least 2, from the layer's first state."""
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x must be [T, features] with T at least 2, got {list(x.shape)}")
    J, _ = jacobians(layer, x)
    size = jnp.max(jnp.linalg.norm(J, 2, axis=(1, 2)))
    return GradientFlow(log_norms(J), size, jnp.max(gershgorin(J)))


def gradient_flow(
    layer: Layers = CLASSIC,
    *,
    features: Count = 16,
    steps: Count = 100,
    scale: NotNegative = 1.0,
    seed: Seed = 0,
) -> Finding:
    """The size of d h_T / d h_t, through each of several layers as they are initialised.

    Args:
        layer: layers, each by itself, with their options
        features: of the layers
        steps: of the sequence, at least 2
        scale: standard deviation of the inputs, which are normal
        seed: of weights and inputs
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    x = scale * jax.random.normal(jax.random.key(seed), (steps, features))
    distances = range(1, steps)
    shown = sorted({1, min(10, steps - 1), steps - 1})
    rows, curves = [], {}
    for label, one in each(layer, features, seed):
        found = jax.jit(partial(measure, one))(x)
        log10 = found.log_norm / LN10
        at = (f"{10.0 ** float(log10[n - 1]):.1e}" for n in shown)
        bounds = (f"{float(bound):.2f}" for bound in (found.lipschitz, found.gershgorin))
        rows.append((label, *at, f"{float(log10[-1]) / (steps - 1):.4f}", *bounds))
        curves[label] = (list(distances), log10)
    named = (f"{n} step{'s' * (n > 1)}" for n in shown)
    columns = ("layer", *named, "log10 of a step", "Lipschitz", "Gershgorin")
    title = f"|d h_T / d h_t|, {features} features, inputs of deviation {scale:g}"
    return Finding(title, columns, rows, "distance T - t", "log10 |d h_T / d h_t|", curves,
                   rule=(0.0, "kept"))  # fmt: skip
