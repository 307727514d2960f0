"""Solutions of a differential equation h' = f(s, h) over the time between two steps.

Of fixed steps there are `SOLVERS`, from h at s to h at s + ds; the adaptive ones, `ADAPTIVE`, are
those of diffrax (Kidger 2021, arXiv:2202.02435), an optional dependency.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from seqjax.core.mesh import loop
from seqjax.nn.base import option

Field = Callable[[jax.Array, jax.Array], jax.Array]


def euler(f, s, ds, h):
    return h + ds * f(s, h)


def midpoint(f, s, ds, h):
    return h + ds * f(s + ds / 2, h + ds / 2 * f(s, h))


def rk4(f, s, ds, h):
    a = f(s, h)
    b = f(s + ds / 2, h + ds / 2 * a)
    c = f(s + ds / 2, h + ds / 2 * b)
    d = f(s + ds, h + ds * c)
    return h + ds / 6 * (a + 2 * b + 2 * c + d)


def rk38(f, s, ds, h):
    """Kutta's 3/8 rule, of order 4: what torchdiffeq has under the name rk4."""
    a = f(s, h)
    b = f(s + ds / 3, h + ds / 3 * a)
    c = f(s + 2 * ds / 3, h + ds * (b - a / 3))
    d = f(s + ds, h + ds * (a - b + c))
    return h + ds / 8 * (a + 3 * (b + c) + d)


SOLVERS: dict[str, Callable[..., jax.Array]] = dict(
    euler=euler, midpoint=midpoint, rk4=rk4, rk38=rk38
)
ADAPTIVE = dict(tsit5="Tsit5", dopri5="Dopri5", dopri8="Dopri8", kvaerno5="Kvaerno5")
ADJOINTS = dict(
    checkpointed="RecursiveCheckpointAdjoint", direct="DirectAdjoint", backsolve="BacksolveAdjoint"
)


def integrate(f: Field, h: jax.Array, dt: jax.Array, *, solver: str, substeps: int = 1):
    """h at s = dt, from h at s = 0, in so many equal steps of h' = f(s, h)."""
    ds = dt / substeps

    def substep(h, s):
        return SOLVERS[solver](f, s, ds, h).astype(h.dtype), None

    if substeps == 1:
        return substep(h, jnp.zeros_like(dt))[0]
    return loop(substep, h, jnp.arange(substeps, dtype=ds.dtype) * ds)[0]


@dataclass(frozen=True)
class Solver:
    """(f, h, dt) -> h at dt: by `substeps` equal steps, or as many as keep the error of a step
    within `tolerance`, relative and absolute.

    adjoint: how an adaptive solution is differentiated: "checkpointed" and "direct" through its
        steps, "direct" also forward; "backsolve" by the adjoint equation, solved backwards
        (arXiv:1806.07366), in memory that does not grow, and to the error of the solver only.
    Raises ValueError for unknown names, and where diffrax is not installed.
    """

    name: str
    substeps: int = 1
    tolerance: float = 1e-6
    adjoint: str = "checkpointed"

    def __post_init__(self):
        option("solver", self.name, (*SOLVERS, *ADAPTIVE))
        option("adjoint", self.adjoint, ADJOINTS)
        if self.adaptive and importlib.util.find_spec("diffrax") is None:
            raise ValueError(f"solver {self.name!r} needs diffrax: pip install 'seqjax[ode]'")

    @property
    def adaptive(self) -> bool:
        return self.name in ADAPTIVE

    def __call__(self, f: Field, h: jax.Array, dt: jax.Array) -> jax.Array:
        dt = dt.astype(h.dtype)
        if not self.adaptive:
            return integrate(f, h, dt, solver=self.name, substeps=self.substeps)
        import diffrax

        # Over a time from 0 to 1, so that dt, which may be 0, has its derivative: as an end of the
        # time it meets the steps in a minimum. What f closes over must be an argument of it.
        scaled, constants = jax.closure_convert(
            lambda s, h: dt * f(dt * s, h).astype(h.dtype), 0 * dt, h
        )
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda s, h, constants: scaled(s, h, *constants)),
                getattr(diffrax, ADAPTIVE[self.name])(),
                t0=jnp.zeros_like(dt),
                t1=jnp.ones_like(dt),
                dt0=None,
                y0=h,
                args=tuple(constants),
                stepsize_controller=diffrax.PIDController(self.tolerance, self.tolerance),
                adjoint=getattr(diffrax, ADJOINTS[self.adjoint])(),
            )
        assert solution.ys is not None  # the last state is saved by default
        return solution.ys[0]
