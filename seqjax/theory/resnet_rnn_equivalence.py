"""A residual network whose layers share their weights is a recurrence; depth is its time.

    deep        h_k = h_{k-1} + F(h_{k-1}, x_k; theta_k),  k = 1 .. K
    recurrent   h_t = h_{t-1} + F(h_{t-1}, x_t; theta)                         arXiv:1604.03640

theta_k = theta makes them one: an image that is shown all the time is x_k = x ("constant"), one
that enters a network at the bottom is x_1 = x and 0 after ("first"). Of the gradients, that by
theta is the sum of those by all theta_k, which is backpropagation through time. With weights of its
own in each layer the network is a recurrence that varies in time: theta_t is one more input of the
step. So what solves a nonlinear recurrence in parallel (`seqjax.newton`) solves all layers of a
network at once, derivatives included, and what is known of Jacobian products holds of depth.

h + F is the paper's; here the step is that of any layer that has a state. Each side is computed by
itself: copies one after the other in a loop, the layer over time as a model runs it, and Newton's
method over stacked weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.core.newton import newton
from seqjax.core.ranges import Count, Seed
from seqjax.nn.base import Layer
from seqjax.stacks.config import LayerConfig
from seqjax.testing.promises import distance
from seqjax.theory.finding import Finding, Layers, each
from seqjax.theory.jacobians import numbers, step_of

RESIDUAL = tuple(map(LayerConfig, ("residual_rnn", "e59", "highway_rnn", "gru", "elman")))
INPUTS = ("constant", "first")


def shown(x: Array, depth: int, inputs: str) -> Array:
    """x [features] as it enters the steps [depth, features]."""
    every = jnp.broadcast_to(x, (depth, *x.shape))
    return every if inputs == "constant" else jnp.where(jnp.arange(depth)[:, None] > 0, 0, every)


def deep(layers: Sequence[Layer], xs: Array) -> Array:
    """h [K, N] after each of K layers, one applied to what the one before makes."""
    h, found = layers[0].start(), []
    for layer, x in zip(layers, xs, strict=True):
        h = step_of(layer)(h, x)
        found.append(numbers(h)[0])
    return jnp.stack(found)


def recurrent(layer: Layer, xs: Array) -> Array:
    """h [N] after all steps of one layer, run over time as it is in a model."""
    start = layer.start()
    return numbers(layer.example(xs, Carry(start, start), Flow())[1])[0]


def at_once(graph: Any, weights: Any, xs: Array) -> Array:
    """h [K, N] after each of K layers, of stacked weights [K, ...], by Newton's method."""
    first = nnx.merge(graph, jax.tree.map(lambda w: w[0], weights))
    flat, back = numbers(first.start())

    def step(h: Array, now: Any) -> Array:
        w, x = now
        return numbers(step_of(nnx.merge(graph, w))(back(h), x))[0].astype(h.dtype)

    return newton(step, (weights, xs), flat).states


def differences(layers: Sequence[Layer], xs: Array, key: Array) -> dict[str, Array]:
    """The largest relative differences, of a network of K layers that are made alike.

    tied: K copies of the first against that layer over time, in the last state, and in the gradient
    of a random projection of it. untied: the K layers in a loop against all of them at once.
    """
    graph = nnx.split(layers[0])[0]
    weights = [nnx.state(layer) for layer in layers]
    v = jax.random.normal(key, numbers(layers[0].start())[0].shape)

    def copies(weights: Sequence[Any]) -> Array:
        return deep([nnx.merge(graph, w) for w in weights], xs)[-1]

    def over_time(weights: Any) -> Array:
        return recurrent(nnx.merge(graph, weights), xs)

    def stacked(weights: Sequence[Any]) -> Array:
        return at_once(graph, jax.tree.map(lambda *w: jnp.stack(w), *weights), xs)[-1]

    def both(one: Any, weights: Any) -> tuple[Array, Any]:
        h, back = jax.vjp(one, weights)
        return h, back(v.astype(h.dtype))[0]

    h, by_copy = both(copies, [weights[0]] * len(layers))
    tied, by_time = both(over_time, weights[0])
    total = jax.tree.map(lambda *g: sum(g), *by_copy)
    loop, by_layer = both(copies, weights)
    once, by_newton = both(stacked, weights)
    return {
        "tied": distance(tied, h),
        "its gradient": distance(by_time, total),
        "untied": distance(once, loop),
        "its gradients": distance(by_newton, by_layer),
    }


def resnet_rnn_equivalence(
    layer: Layers = RESIDUAL,
    *,
    features: Count = 4,
    depth: Count = 8,
    seed: Seed = 0,
) -> Finding:
    """Networks of layers with shared weights against recurrences, and with weights of their own
    against Newton's method over depth: the largest differences. In float64.

    Args:
        layer: layers whose step is a layer of the network, each by itself, with their options
        features: of the layers
        depth: of the network
        seed: of weights and inputs
    """
    rows, curves = [], {}
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed))
        x = jax.random.normal(keys[0], (features,))
        for one in layer:
            made = [next(iter(each((one,), features, seed + k))) for k in range(depth)]
            label, layers = made[0][0], [layer for _, layer in made]
            run = jax.jit(partial(differences, layers))
            for inputs in INPUTS:
                found = run(shown(x, depth, inputs), keys[1])
                rows.append((label, inputs, *(f"{float(gap):.1e}" for gap in found.values())))
            h = jax.jit(partial(deep, [layers[0]] * depth, shown(x, depth, "constant")))()
            moved = jnp.linalg.norm(jnp.diff(h, axis=0), axis=1) / jnp.linalg.norm(h[1:], axis=1)
            curves[label] = (range(2, depth + 1), moved)
    columns = ("layer", "inputs", "tied", "its gradient", "untied", "its gradients")
    title = f"a network of {depth} layers and a recurrence of {depth} steps: largest differences"
    return Finding(title, columns, rows, "layer k, of shared weights, or step k",
                   "|h_k - h_{k-1}| / |h_k|", curves, scale=("linear", "log"))  # fmt: skip
