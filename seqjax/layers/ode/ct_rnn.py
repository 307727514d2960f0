"""Continuous-time recurrent network (Funahashi & Nakamura 1993).

    tau x' = -x + f(A x + B u + b),   y = x                         x, tau [hidden]

An input u is held for the time dt before the step, that of flow.dt or 1, in `substeps` steps of
`solver` (`seqjax.nn.ode`); with a linear f, "exact" is a matrix exponential for each step. Euler's
step is the leaky network x + dt / tau (f(..) - x). For signals sampled at uneven times, and as the
model of a circuit of leaky units.

The time constants start at `tau` and are trained as log tau; with None all are 1. A starts
orthogonal, or as `recurrent_init` has it.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.elman import ACTIVATIONS
from seqjax.nn.base import Precise, option
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.ode import SOLVERS, integrate
from seqjax.nn.recurrent import Recurrent


class CTRNN(Recurrent):
    timed = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        activation: str = "tanh",
        tau: float | None = 2.0,
        solver: str = "rk4",
        substeps: int = 1,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.activation = option("activation", activation, ACTIVATIONS)
        self.solver, self.substeps = option("solver", solver, ("exact", *SOLVERS)), substeps
        if solver == "exact" and activation != "linear":
            raise ValueError(f"solver 'exact' is of activation='linear', got {activation!r}")
        self.B = nnx.Linear(features, H, rngs=rngs)  # carries b
        self.A = nnx.Param(recurrent_weights(H, init=recurrent_init, rngs=rngs))
        self.log_tau = None if tau is None else Precise(jnp.full(H, math.log(tau)))

    def initial(self):
        return jnp.zeros(self.out_features)

    @property
    def rate(self):
        log = self.log_tau
        return jnp.ones_like(self.A[0]) if log is None else jnp.exp(-log[...])

    def drive(self, u, flow):
        z, dt = self.B(u), flow.elapsed(u)
        if self.solver != "exact":
            return z, dt
        A = self.A[...].astype(dt.dtype)
        M = self.rate[:, None] * (A - jnp.eye(len(A), dtype=A.dtype))
        return jax.vmap(lambda z, dt: propagator(M, self.rate * z, dt))(z.astype(A.dtype), dt)

    def step(self, h, z):
        if self.solver == "exact":
            P, c = z
            return P @ h + c
        u, dt = z

        def field(s, x):
            return self.rate * (ACTIVATIONS[self.activation](self.A @ x + u) - x)

        return integrate(field, h, dt.astype(h.dtype), solver=self.solver, substeps=self.substeps)


def propagator(M: jax.Array, c: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P and d of x -> P x + d, which solves x' = M x + c over dt: in exp(dt [[M, c], [0, 0]])."""
    n = len(c)
    both = jnp.zeros((n + 1, n + 1), M.dtype).at[:n, :n].set(M).at[:n, n].set(c)
    moved = jax.scipy.linalg.expm(dt * both)
    return moved[:n, :n], moved[:n, n]
