"""LinOSS: oscillatory state space (Rusch & Rus 2024, arXiv:2410.03943).

    x'' = -A x + B u,  y = Re(C x) + D u          x complex [P]                        eq. 1

forced harmonic oscillators, A = relu(A_hat) [P] their squared frequencies, as a system with z = x'
and steps dt = sigmoid(dt_hat) [P] of one of two integrators:

    "IM"      z_n = z_{n-1} + dt (-A x_n     + B u_n),  x_n = x_{n-1} + dt z_n         eq. 3
    "IMEX"    z_n = z_{n-1} + dt (-A x_{n-1} + B u_n),  x_n = x_{n-1} + dt z_n         eq. 5

As a recurrence of blocks [2, 2], with S = 1 / (1 + dt^2 A) for IM:

    M_IM = [[S, -dt A S], [dt S, S]],   M_IMEX = [[1, -dt A], [dt, 1 - dt^2 A]]

Both are stable for all A >= 0 (IMEX while dt^2 A <= 4, which holds at the start). IM loses energy,
so it forgets; IMEX keeps it (its eigenvalues lie on the unit circle) and runs backwards in time as
well as forwards. Useful for long series of waves and for learning what conserves energy.

A_hat and dt_hat start uniform in [0, 1], B and C uniform within one over the root of their fan-in.
With `mix` out = W g * sigmoid(V g), g = gelu(y): the block of the release without its norm and
residual. With flow.dt a step is that many times as long.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.monoid import block_diagonal
from seqjax.core.scan import scan
from seqjax.layers.ssm.s4d import StateSpace
from seqjax.nn.base import Precise, option

DISCRETISATIONS = ("IM", "IMEX")


class LinOSS(StateSpace):
    timed = True
    ops = ("block_diagonal",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        state: int = 64,
        discretisation: str = "IM",
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        self.P = state
        self.discretisation = option("discretisation", discretisation, DISCRETISATIONS)

        def uniform(*shape, bound=1.0, low=-1.0):
            return bound * jax.random.uniform(rngs.params(), shape, minval=low, maxval=1.0)

        self.A, self.dt = Precise(uniform(state, low=0.0)), Precise(uniform(state, low=0.0))
        self.B = nnx.Param(uniform(2, state, features, bound=features**-0.5))
        self.C = nnx.Param(uniform(2, features, state, bound=state**-0.5))
        self.surround(features, mix, rngs)

    def initial(self):
        """[P, 2, 2]: z and x, each its real and imaginary part."""
        return jnp.zeros((self.P, 2, 2))

    def system(self, interval: jax.Array | float = 1.0) -> tuple[jax.Array, jax.Array]:
        """M [P, 2, 2], and what B u is multiplied with in z and x [P, 2]."""
        A, dt = jax.nn.relu(self.A[...]), interval * jax.nn.sigmoid(self.dt[...])
        if self.discretisation == "IM":
            S = 1 / (1 + dt**2 * A)
            M, F = ((S, -dt * A * S), (dt * S, S)), (dt * S, dt**2 * S)
        else:
            M = ((jnp.ones_like(A), -dt * A), (dt, 1 - dt**2 * A))
            F = (dt, dt**2)
        return jnp.stack([jnp.stack(row, -1) for row in M], -2), jnp.stack(F, -1)

    def run(self, x, h, flow):
        if flow.dt is None:
            M, F = self.system()
            M = jnp.broadcast_to(M[None], (len(x), *M.shape))
            F = jnp.broadcast_to(F[None], (len(x), *F.shape))
        else:
            M, F = jax.vmap(self.system)(flow.dt.astype(self.dt[...].dtype))
        driven = jnp.stack([x @ B.T for B in self.B[...]], axis=-1).astype(F.dtype)
        states, last = scan(block_diagonal, (M, F[..., None] * driven[:, :, None]), h, flow=flow)
        real, imag = self.C[...]
        position = states[:, :, 1]
        y = position[..., 0] @ real.T - position[..., 1] @ imag.T
        return self.output(y, x), last
