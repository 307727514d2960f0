"""ODE-RNN (Rubanova et al. 2019, arXiv:1907.03907).

    h' = W_2 tanh(W_1 h + b_1) + b_2        between the steps, for the time dt before each
    h_t = GRU(h, x_t) = y_t                 at a step                       h [hidden]  alg. 1

The state moves by itself while nothing is seen, and jumps where something is: for observations at
uneven times, dt of flow.dt or 1, which may be 0. The equation is solved by `substeps` steps of
`solver` (`seqjax.nn.ode`) an interval, or within `tolerance` by an adaptive one. The cell is a
`gru` with its reset gate after the product.
"""

import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.gru import GRU
from seqjax.nn.ode import Solver
from seqjax.nn.recurrent import Recurrent


class ODERNN(Recurrent):
    timed = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        width: int | None = None,
        solver: str = "euler",
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
        self.W_1 = nnx.Linear(H, width or H, rngs=rngs)
        self.W_2 = nnx.Linear(width or H, H, rngs=rngs)
        self.gru = GRU(features, hidden=H, reset="after", rngs=rngs)

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x, flow):
        return self.gru.drive(x), flow.elapsed(x)

    def field(self, s, h):
        return self.W_2(jnp.tanh(self.W_1(h)))

    def step(self, h, z):
        u, dt = z
        return self.gru.step(self.solve(self.field, h, dt), u)
