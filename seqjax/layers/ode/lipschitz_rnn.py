"""Lipschitz recurrent network (Erichson et al. 2021, arXiv:2006.12070).

    h' = alpha A h + tanh(W h + U x + b) = y'                        h [hidden]         eq. 3
    A = beta (M_A - M_A^T) + (1 - beta) (M_A + M_A^T) - gamma_A I                       eq. 5
    W = beta (M_W - M_W^T) + (1 - beta) (M_W + M_W^T) - gamma_W I

x is held for a step of length dt by `solver`, Euler's or the midpoint rule in the paper. A linear
part beside a Lipschitz one, each between skew-symmetric (beta 1) and symmetric (beta 1/2), moved to
the left by gamma: where the symmetric part of A is negative the dynamics is stable, at beta = 1
without losing what it holds. For long sequences, and inputs that are perturbed.

`gated` as in the release: h' = (alpha A h + tanh(W h + U x + b)) * sigmoid(W h + U_g x + b_g).
`form` "residual", which the paper compares with, is h' = tanh(W h + U x + b) with W free; its two
others are `antisymmetric_rnn` and `orthogonal_rnn`. As released, M_A, M_W and a free W start normal
at `init_std` / hidden; the release multiplies rows, h^T A, and has our matrices transposed.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import option
from seqjax.nn.initialisation import within
from seqjax.nn.ode import SOLVERS, integrate
from seqjax.nn.recurrent import Recurrent

FORMS = ("lipschitz", "residual")


def between(M: jax.Array, beta: float, gamma: float) -> jax.Array:
    """beta (M - M^T) + (1 - beta) (M + M^T) - gamma I."""
    return beta * (M - M.T) + (1 - beta) * (M + M.T) - gamma * jnp.eye(len(M), dtype=M.dtype)


class LipschitzRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        dt: float = 0.01,
        alpha: float = 1.0,
        beta: float = 0.8,
        gamma_A: float = 0.01,
        gamma_W: float = 0.01,
        gated: bool = False,
        form: str = "lipschitz",
        solver: str = "euler",
        init_std: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.dt, self.alpha, self.beta = dt, alpha, beta
        self.gamma_A, self.gamma_W = gamma_A, gamma_W
        self.form, self.gated = option("form", form, FORMS), gated
        self.solver = option("solver", solver, SOLVERS)
        if gated and form == "residual":
            raise ValueError("the gate is of form='lipschitz', got gated=True, form='residual'")
        start = within(features**-0.5)
        # carries b, and with a gate what it sees
        self.U = nnx.Linear(
            features, H * (1 + gated), kernel_init=start, bias_init=start, rngs=rngs
        )

        def matrix():
            return nnx.Param(init_std / H * jax.random.normal(rngs.params(), (H, H)))

        self.M_A = matrix() if form == "lipschitz" else None
        self.M_W = matrix()

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.U(x)

    def shared(self):
        """A, None where there is none, and W."""
        if self.M_A is None:
            return None, self.M_W[...]
        A = between(self.M_A[...], self.beta, self.gamma_A)
        return A, between(self.M_W[...], self.beta, self.gamma_W)

    def field(self, h, z, matrices):
        """h' at h, z what the input adds."""
        A, W = matrices
        u, *gate = jnp.split(z, 1 + self.gated)
        seen = W @ h
        moves = jnp.tanh(seen + u)
        moves = moves if A is None else self.alpha * (A @ h) + moves
        return moves * jax.nn.sigmoid(seen + gate[0]) if gate else moves

    def step(self, h, z, matrices=None):
        matrices = matrices or self.shared()
        dt = jnp.asarray(self.dt, h.dtype)
        return integrate(lambda s, h: self.field(h, z, matrices), h, dt, solver=self.solver)
