"""Deep echo state network (Gallicchio, Micheli & Pedrelli 2017, Deep reservoir computing).

    h_t^1 = reservoir_1(x_t),  h_t^l = reservoir_l(h_t^{l-1}),  y_t = [h_t^1, .., h_t^L]

Leaky reservoirs (`esn`) on top of each other, each reading the new state of the one below; the
readout sees all of them. `units` are their sizes; a leak may be one number or one for each. Time
scales get longer from layer to layer without being made so: useful for series that have several.
`inter_scale` is the input scale of all layers but the first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.reservoir.esn import ESN, Reservoir
from seqjax.nn.base import Layer


class Reservoirs(Layer):
    """Reservoirs made by `make(features, hidden=, input_scale=, **own)`, `own` one per layer."""

    sequence_parallel = True

    def stack(
        self,
        make: Callable[..., Reservoir],
        features: int,
        units: Sequence[int],
        own: dict[str, Any],
        *,
        input_scale: float,
        inter_scale: float,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        if not units:
            raise ValueError("units must name at least one reservoir, got none")
        self.features, self.out_features = features, sum(units)
        self.reservoirs = nnx.List([])
        for n, size in enumerate(units):
            each = {name: of_layer(name, value, n, len(units)) for name, value in own.items()}
            scale = inter_scale if n else input_scale
            options |= dict(hidden=size, input_scale=scale, rngs=rngs)
            self.reservoirs.append(make(features, **each, **options))
            features = size

    def parts(self):
        return tuple(self.reservoirs)

    def run(self, x, h, flow):
        ys, states = [], []
        for reservoir, part in zip(self.reservoirs, h, strict=True):
            x, state = reservoir.example(x, part, flow)
            ys.append(x)
            states.append(state)
        return jnp.concatenate(ys, axis=1), tuple(states)


def of_layer(name: str, value: Any, n: int, count: int) -> Any:
    """The n-th of `count` values, or the one value of all."""
    if not isinstance(value, Sequence):
        return value
    if len(value) != count:
        raise ValueError(f"{name} must be one number or {count} of them, got {value}")
    return value[n]


class DeepESN(Reservoirs):
    def __init__(
        self,
        features: int,
        *,
        units: Sequence[int] = (32, 32, 32),
        spectral_radius: float | Sequence[float] = 0.9,
        leak: float | Sequence[float] = 1.0,
        density: float = 0.1,
        input_scale: float = 1.0,
        inter_scale: float = 1.0,
        bias_scale: float = 0.0,
        activation: str = "tanh",
        rngs: nnx.Rngs,
    ):
        self.stack(
            ESN,
            features,
            units,
            dict(spectral_radius=spectral_radius, leak=leak),
            density=density,
            input_scale=input_scale,
            inter_scale=inter_scale,
            bias_scale=bias_scale,
            activation=activation,
            rngs=rngs,
        )
