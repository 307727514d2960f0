"""Piecewise-linear recurrent networks: shallow (Hess et al. 2023, arXiv:2306.04406), dendritic
(Brenner et al. 2022, arXiv:2207.02542) and plain; arXiv:2310.17561 finds their fixed points.

    z_t = A z_{t-1} + N(z_{t-1}) + h + C x_t = y_t         z [hidden], A diagonal
    vanilla          N(z) = W relu(z)                                   W with an empty diagonal
    dendritic        N(z) = W sum_b alpha_b relu(z + theta_b)
    clipped          N(z) = W sum_b alpha_b (relu(z + theta_b) - relu(z))
    shallow          N(z) = W_1 relu(W_2 z + h_2)                                       eq. 6
    clipped_shallow  N(z) = W_1 (relu(W_2 z + h_2) - relu(W_2 z))                       eq. 7

A map that is linear in each of finitely many regions, so that its fixed points and cycles can be
computed: for the reconstruction of dynamical systems from series. Clipped forms stay bounded where
|A| < 1. With `forcing` alpha, a generalised teacher forcing, x enters in another way: before each
step it draws the first units to itself, z <- alpha x + (1 - alpha) z, and there is no C.

There are `bases` b, `width` units in a shallow form. `centred`: N sees z without its mean. `clip`
holds z in [-clip, clip]. As released, theta enters with a plus; A and W start as diagonal and rest
of I + R^T R / hidden over its largest eigenvalue, R normal; theta normal, all else uniform.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import option
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent

FORMS = ("vanilla", "dendritic", "clipped", "shallow", "clipped_shallow")


class PLRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        form: str = "clipped_shallow",
        bases: int = 4,
        width: int = 32,
        clip: float | None = None,
        centred: bool = False,
        forcing: float | None = None,
        rngs: nnx.Rngs,
    ):
        self.features = features
        N = self.out_features = hidden or features
        self.form, self.clip, self.centred = option("form", form, FORMS), clip, centred
        self.forcing = forcing
        if forcing is not None and features > N:
            raise ValueError(f"x forces the first units: at most {N} features, got {features}")

        def uniform(*shape):
            return nnx.Param(within(shape[-1] ** -0.5)(rngs.params(), shape))

        R = jax.random.normal(rngs.params(), (N, N))
        AW = jnp.eye(N) + R.T @ R / N
        AW = AW / jnp.linalg.norm(AW, 2)
        shallow, bent = form.endswith("shallow"), form in ("dendritic", "clipped")
        self.AW: Any = None if shallow else nnx.Param(AW)  # A, and beside its diagonal W
        self.A = nnx.Param(jnp.diag(AW)) if shallow else None
        self.W_1: Any = uniform(N, width) if shallow else None
        self.W_2: Any = uniform(width, N) if shallow else None
        self.h_2 = uniform(width) if shallow else None
        self.alpha = uniform(bases) if bent else None
        self.theta = nnx.Param(jax.random.normal(rngs.params(), (N, bases))) if bent else None
        self.h = uniform(N)
        C = nnx.initializers.glorot_uniform()
        self.C = None if forcing is not None else nnx.Param(C(rngs.params(), (N, features)))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return x if self.C is None else x @ self.C[...].T

    def nonlinear(self, z):
        """N(z), where what is summed over bases is the last axis."""
        z = z - z.mean() if self.centred else z
        clipped, relu = self.form.startswith("clipped"), jax.nn.relu
        if self.AW is None:
            seen = self.W_2 @ z
            bent = relu(seen + self.h_2) - (relu(seen) if clipped else 0)
            return self.W_1 @ bent
        if self.theta is None or self.alpha is None:
            bent = relu(z)
        else:
            bases = relu(z[:, None] + self.theta[...]) - (relu(z)[:, None] if clipped else 0)
            bent = bases @ self.alpha[...]
        W = self.AW[...]
        return W @ bent - jnp.diag(W) * bent

    def step(self, z, x):
        if self.forcing is not None:
            n = self.features
            z = z.at[:n].set((self.forcing * x + (1 - self.forcing) * z[:n]).astype(z.dtype))
        A = self.A if self.AW is None else jnp.diag(self.AW[...])
        new = A * z + self.nonlinear(z) + self.h
        new = new if self.forcing is not None else new + x
        return new if self.clip is None else jnp.clip(new, -self.clip, self.clip)
