"""Leaky echo state network (Jaeger 2001; Jaeger et al. 2007 for the leak).

    h_t = (1 - a) * h_{t-1} + a * f(W h_{t-1} + W_in x_t + b) = y_t         h [hidden], a in (0, 1]

A reservoir: W, W_in, b and the leak a are drawn once and `Frozen`; what is trained is a readout of
the states, outside this layer (`seqjax.learn.readout`). The leak is one number or one per unit.

W has a fraction `density` of its entries, by `law` uniform on [-1, 1], normal, or Bernoulli, 1 or
-1, scaled to the `spectral_radius` given for; below 1 (with tanh) the state forgets where it
started, the echo state property. W_in and b are of `input_law`, times `input_scale` and
`bias_scale`; of W_in a fraction `input_density` is kept. The last `feedback` features of x are the
outputs of the step before, by a teacher or by `closed_loop`, scaled by `feedback_scale`.

`plastic` units leak before f, which has a gain and a shift of its own per unit (Schrauwen et al.
2008): z_t = (1 - a) * z_{t-1} + a * (W y_{t-1} + W_in x_t + b), y_t = f(gain * z_t + shift). The
state is z; `intrinsic_plasticity` adapts gain and shift.

Of the constructor of reservoirpy not here: noise, a scale for each input feature, which the data
can carry, and matrices given: set `layer.W`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.nn.activations import identity, relu, sigmoid
from seqjax.nn.base import Frozen, option
from seqjax.nn.recurrent import Recurrent

ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": sigmoid, "relu": relu, "linear": identity}
LAWS = {
    "uniform": lambda key, shape: jax.random.uniform(key, shape, minval=-1, maxval=1),
    "normal": lambda key, shape: jax.random.normal(key, shape),
    "bernoulli": lambda key, shape: jax.random.rademacher(key, shape, float),
}


def radius(W: jax.Array) -> jax.Array:
    """The spectral radius lim |W^k|^(1/k), at k = 2^30, by squaring (Gelfand's formula).

    Unlike an eigensolver for general matrices it runs on every device and under jit and vmap.
    """

    def square(_, carry):
        P, log, k = carry  # W^k = exp(k log) P
        P = P @ P
        norm = jnp.linalg.norm(P) + jnp.finfo(W.dtype).tiny
        return P / norm, log + jnp.log(norm) / (2 * k), 2 * k

    one = jnp.ones((), W.dtype)
    return jnp.exp(lax.fori_loop(0, 30, square, (W, 0 * one, one))[1])


def per_unit(name: str, value: float | Sequence[float], hidden: int) -> Frozen:
    """[hidden] of one number, or of one for each unit."""
    values = jnp.array(value, float)
    if values.shape not in ((), (hidden,)):
        raise ValueError(f"{name} must be one number or {hidden} of them, got {value}")
    return Frozen(jnp.broadcast_to(values, (hidden,)))


class Reservoir(Recurrent):
    """Weights that are drawn; a subclass defines `step` with `excited`."""

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        spectral_radius: float = 0.9,
        density: float = 0.1,
        law: str = "uniform",
        input_density: float = 1.0,
        input_scale: float = 1.0,
        input_law: str = "uniform",
        bias_scale: float = 0.0,
        feedback: int = 0,
        feedback_scale: float = 1.0,
        activation: str = "tanh",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.activation = option("activation", activation, ACTIVATIONS)
        if not 0 <= feedback <= features:
            raise ValueError(f"feedback is 0 to features = {features} of them, got {feedback}")
        draw, draw_in = (LAWS[option(*named, LAWS)] for named in (("law", law), ("law", input_law)))
        joined = jax.random.bernoulli(rngs.params(), density, (H, H))
        W = jnp.where(joined, draw(rngs.params(), (H, H)), 0)
        self.W = Frozen(W * (spectral_radius / jnp.maximum(radius(W), 1e-6)))
        scale = np.repeat([input_scale, feedback_scale], [features - feedback, feedback])
        W_in = jnp.asarray(scale, float)[None] * draw_in(rngs.params(), (H, features))
        if input_density < 1:
            kept = jax.random.bernoulli(rngs.params(), input_density, W_in.shape)
            W_in = jnp.where(kept, W_in, 0)
        self.W_in = Frozen(W_in)
        self.b = Frozen(bias_scale * draw_in(rngs.params(), (H,)))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return x @ self.W_in[...].T + self.b[...][None]

    def f(self, z):
        return ACTIVATIONS[self.activation](z)

    def excited(self, h, z):
        """f(W h + W_in x + b)."""
        return self.f(self.W[...] @ h + z)


class ESN(Reservoir):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        spectral_radius: float = 0.9,
        leak: float | Sequence[float] = 1.0,
        density: float = 0.1,
        law: str = "uniform",
        input_density: float = 1.0,
        input_scale: float = 1.0,
        input_law: str = "uniform",
        bias_scale: float = 0.0,
        feedback: int = 0,
        feedback_scale: float = 1.0,
        activation: str = "tanh",
        plastic: bool = False,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            hidden=hidden,
            spectral_radius=spectral_radius,
            density=density,
            law=law,
            input_density=input_density,
            input_scale=input_scale,
            input_law=input_law,
            bias_scale=bias_scale,
            feedback=feedback,
            feedback_scale=feedback_scale,
            activation=activation,
            rngs=rngs,
        )
        H = self.out_features
        self.a = per_unit("leak", leak, H)
        self.gain = Frozen(jnp.ones(H)) if plastic else None
        self.shift = Frozen(jnp.zeros(H)) if plastic else None

    def step(self, h, z):
        a = self.a[...]
        if self.gain is None:
            return (1 - a) * h + a * self.excited(h, z)
        return (1 - a) * h + a * (self.W[...] @ self.readout(h) + z)

    def readout(self, h, x=None):
        del x
        if self.gain is None or self.shift is None:
            return h
        return self.f(self.gain[...] * h + self.shift[...])
