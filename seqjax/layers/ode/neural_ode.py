"""Neural ODE as a sequence model (Chen et al. 2018, arXiv:1806.07366).

    h' = f(h, x_t) = W_2 tanh(W_1 h + V x_t + b_1) + b_2        for the time dt of step t
    y_t = h after it                                            h [hidden]

A network whose layers are the time: the input is held for dt, that of flow.dt or 1, while a solver
of `seqjax.nn.ode` takes as many steps as the equation needs. For sequences at uneven times, and
dynamics learned as such.

`solver` is of `substeps` fixed steps, or adaptive, within `tolerance`, and then differentiated by
`adjoint`: the paper's is "backsolve". The paper's generative model, which solves without inputs
from a state that an encoder read off the sequence backwards, is not here.
"""

import jax.numpy as jnp
from flax import nnx

from seqjax.nn.ode import Solver
from seqjax.nn.recurrent import Recurrent


class NeuralODE(Recurrent):
    timed = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        width: int | None = None,
        solver: str = "rk4",
        substeps: int = 1,
        tolerance: float = 1e-6,
        adjoint: str = "checkpointed",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.solve = Solver(solver, substeps, tolerance, adjoint)
        if self.solve.adaptive:
            self.loops = ("sequential",)  # the others need forward derivatives of a step
            self.whole = True  # adjoints are not differentiated device after device
        width = width or H
        self.V = nnx.Linear(features, width, rngs=rngs)  # carries b_1
        self.W_1 = nnx.Linear(H, width, use_bias=False, rngs=rngs)
        self.W_2 = nnx.Linear(width, H, rngs=rngs)

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x, flow):
        return self.V(x), flow.elapsed(x)

    def step(self, h, z):
        u, dt = z
        return self.solve(lambda s, h: self.W_2(jnp.tanh(self.W_1(h) + u)), h, dt)
