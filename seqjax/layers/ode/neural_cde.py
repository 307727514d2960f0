"""Neural controlled differential equation (Kidger et al. 2020, arXiv:2005.08926).

    z(t_0) = W_0 X(t_0) + b_0,   dz = f(z) dX,   y_t = z(t)        z [hidden]           eq. 4
    f(z) = tanh(W z + b) [hidden, C],   with `width` tanh(W_2 relu(W_1 z + b_1) + b_2)

X is a path through the observations, whose channels are the time and the features: what moves the
state is how the input moves. For series with uneven times; masked steps are left out of the path.

    linear       straight from x_{t-1} to x_t
    rectilinear  first the first channel, the time, then all others
    hermite      cubic, with the slope of the interval before at its left end and its own at its
                 right end (arXiv:2106.11028, "backward differences"); the first is straight

None of them looks ahead, so that the layer streams; natural cubic splines, the paper's, do. The
time between steps is that of flow.dt, or 1, and counts in f with the channel `time`, which may be
left out, as where the first feature is the time. Solved by `seqjax.nn.ode`, over each interval.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import option
from seqjax.nn.ode import Solver
from seqjax.nn.recurrent import Recurrent

PATHS = ("linear", "rectilinear", "hermite")


class CDEState(NamedTuple):
    z: jax.Array  # [hidden], the output
    x: jax.Array  # [features], the observation before
    slope: jax.Array  # [features], of the path as it came there
    seen: jax.Array  # int32, observations since the start: 0, 1, 2 or more


class NeuralCDE(Recurrent):
    evaluators = ("sequential",)  # a step counts
    timed = True
    learned = ""  # the first observation makes the first state

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        width: int | None = None,
        path: str = "hermite",
        time: bool = True,
        solver: str = "rk4",
        substeps: int = 1,
        tolerance: float = 1e-6,
        adjoint: str = "checkpointed",
        rngs: nnx.Rngs,
    ):
        self.features, self.time = features, time
        H = self.out_features = hidden or features
        self.path = option("path", path, PATHS)
        self.solve = Solver(solver, substeps, tolerance, adjoint)
        self.whole = self.solve.adaptive  # adjoints are not differentiated device after device
        self.W_0 = nnx.Linear(features, H, rngs=rngs)
        self.W_1 = nnx.Linear(H, width, rngs=rngs) if width else None
        self.W = nnx.Linear(width or H, H * (features + time), rngs=rngs)

    def initial(self):
        x = jnp.zeros(self.features)
        return CDEState(jnp.zeros(self.out_features), x, x, jnp.zeros((), jnp.int32))

    def field(self, z, moves):
        """f(z) dX."""
        z = z if self.W_1 is None else jax.nn.relu(self.W_1(z))
        return jnp.tanh(self.W(z)).reshape(self.out_features, -1) @ moves

    def drive(self, x, flow):
        return x, flow.elapsed(x)

    def velocity(self, h, x, dt):
        """s in [0, 1] -> dX/ds of the features over an interval."""
        whole = x - h.x
        if self.path != "hermite":
            return lambda s: whole
        left = jnp.where(h.seen > 1, dt * h.slope, whole)
        return lambda s: (4 * s - 3 * s**2) * whole + (1 - s) * (1 - 3 * s) * left

    def step(self, h, z):
        x, dt = (v.astype(h.x.dtype) for v in z)
        one = jnp.ones_like(dt)
        if self.path == "rectilinear":
            first = jnp.zeros(self.features + self.time, x.dtype).at[0].set(1)
            whole = self.along(x - h.x, dt)
            parts = [lambda s: first * whole, lambda s: (1 - first) * whole]
        else:
            velocity = self.velocity(h, x, dt)
            parts = [lambda s: self.along(velocity(s), dt)]
        moved = h.z
        for part in parts:
            moved = self.solve(lambda s, z, part=part: self.field(z, part(s)), moved, one)
        new = jnp.where(h.seen > 0, moved, self.W_0(x).astype(moved.dtype))
        slope = (x - h.x) / jnp.where(dt > 0, dt, 1)
        return CDEState(new, x, slope, jnp.minimum(h.seen + 1, 2))

    def along(self, x, dt):
        """The moves of all channels, of which the first may be the time."""
        return jnp.concatenate([dt[None], x]) if self.time else x

    def readout(self, h, x):
        return h.z
