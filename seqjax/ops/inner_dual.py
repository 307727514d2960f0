"""The dual form of `seqjax.ops.inner_learning`: no weights are formed but those between parts.

The gradient of a layer of f is an outer product of its input x_s and its error e_s, so that what
step t reads is attention inside the part, sum_s c_ts (x_t.x_s) e_s. A part is a window of
`seqjax.ops.segments`: all its steps learn from the weights that entered it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.ops.chunks import exactly, finite_rows, within
from seqjax.ops.inner_model import Learner, Steps, fold, weights, where
from seqjax.ops.quarantine import mark


def by_part(inner, x, last, norm, h, flow):
    """Outputs [C, D] and the next state, for the C steps of a window of one head."""
    h, keep, size = h.now, flow.mask, len(last)
    segment = jnp.zeros(size, jnp.int32)
    if flow.resets is not None:
        segment = jnp.cumsum(flow.resets, dtype=jnp.int32)
    joined = jnp.asarray(within(segment, size))
    c = coefficients(x, joined, keep)
    inputs, errors = inner.gradients(h.W, x.k, x.v, norm)

    def product(n):
        """What layer n answers to its inputs q [C, in]."""

        def answer(q):
            scores, unread = finite_rows(c.writes * jnp.where(joined, q @ inputs[n].T, 0))
            error, lost = finite_rows(errors[n])
            unread |= jnp.any(joined & lost[None], axis=1)
            moved = mark(unread, scores @ error) + c.kept[:, None] * (q @ h.U[n])
            if h.m is not None:
                moved += c.carried[:, None] * (q @ h.m[n])
            d = c.kept if h.d is None else h.d * c.kept
            return d[:, None] * (q @ h.W[n]) + with_tau(x.tau, moved)

        return answer

    z, _ = inner.run(x.q, [product(n) for n in range(len(h.W))])
    return inner.read(z, x.q, norm), after(c, x, last, inputs, errors, h)


class Coefficients(NamedTuple):
    """How much of what a segment began with, and of what its steps wrote, is there at each step."""

    kept: Array  # [C], of W and U
    carried: Any  # [C], in U, of the momentum, if there is one
    writes: Array  # [C, C], in U, of the gradient of step s
    momentum: Any  # [C, C], in the momentum, of the gradient of step s
    momentum_kept: Any  # [C]


def coefficients(x: Steps, joined: Array, keep: Array) -> Coefficients:
    size = len(joined)

    def products(log):
        """[t, s] over r in (s, t], and [t] since the segment began; steps left out do nothing."""
        log = jnp.where(keep, log, 0)
        between = jnp.where(np.tri(size, k=-1, dtype=bool), log[:, None], 0)
        pairs = jnp.exp(jnp.where(joined, exactly(jnp.tri(size, dtype=log.dtype), between), 0))
        since = jnp.exp(exactly(joined.astype(log.dtype), log))
        return jnp.where(joined, pairs, 0), since

    theta = jnp.where(keep, x.theta, 0)[None]
    if x.log_keep is None:
        A, kept = joined.astype(theta.dtype), jnp.ones(size, theta.dtype)
    else:
        A, kept = products(x.log_keep)
    A = jnp.where(keep[None], A, 0)
    if x.log_eta is None:
        return Coefficients(kept, None, -A * theta, None, None)
    E, since = products(x.log_eta)
    momentum = -E * theta
    return Coefficients(
        kept, exactly(A, since[:, None])[:, 0], exactly(A, momentum), momentum, since
    )


def after(c: Coefficients, x: Steps, last, inputs, errors, h: Learner) -> Learner:
    """The state after a part whose last segment began in the state h."""

    def written(matrix):
        return [(matrix[-1][:, None] * i).T @ e for i, e in zip(inputs, errors)]

    U = [c.kept[-1] * u + w for u, w in zip(h.U, written(c.writes))]
    m, d = None, None if h.d is None else c.kept[-1] * h.d
    if h.m is not None:
        U = [u + c.carried[-1] * a for u, a in zip(U, h.m)]
        m = tuple(c.momentum_kept[-1] * a + w for a, w in zip(h.m, written(c.momentum)))
    new = Learner(h.W, tuple(U), m, d, None)
    tau = None if x.tau is None else jnp.sum(jnp.where(last, x.tau, 0))
    return where(jnp.any(last), fold(new, weights(h.W, U, d, tau)), new)


def with_tau(tau, z: Array) -> Array:
    return z if tau is None else tau[:, None] * z
