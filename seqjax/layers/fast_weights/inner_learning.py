"""Learning inside the layer: the state is the weights of a small model, trained as tokens come.

An inner model f (linear, or an MLP) learns to answer k_t with v_t. Its gradients are taken at the
weights W with which the current chunk of `size` steps began, so inside a chunk they do not depend
on each other, and the inner optimiser is an affine recurrence over them:

    G_t = grad_W loss(f_W(k_t), v_t)
    m_t = eta_t m_{t-1} - theta_t G_t                 momentum; eta = 0 if there is none
    U_t = (1 - alpha_t) U_{t-1} + m_t                 U = 0 where a chunk begins
    d_t = (1 - alpha_t) d_{t-1}                       d = 1 where a chunk begins
    R_t = d_t W + tau_t U_t                           the weights step t reads with
    y_t = output(f_{R_t}(q_t))
    W <- R_t                                          after the last step of the chunk

TTT (2407.04620) has no momentum and no decay, Titans (2501.00663) has both and tau = 1; then R_t is
its M_t = (1 - alpha_t) M_{t-1} + m_t.

Two evaluators of the same function. "sequential" is the equations. "chunked" is the dual form: the
gradient of a layer of f is an outer product of its input x_s and its error e_s, so that what step t
reads is attention inside the chunk, sum_s c_ts (x_t.x_s) e_s, and no weights but those between
chunks are formed. The chunks of a stream begin where it began and at every reset
(`seqjax.layers.fast_weights.chunks`), so the steps of a part learn from the weights that entered
it or, after a reset, from those of the start: two sources of weights at most.

The slow weights (W at the start, the norm of the loss) are trained through all of this, gradients
of gradients included. Everything is computed in at least float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.layers.fast_weights.chunks import scan_parts
from seqjax.ops.chunks import exactly, finite_rows, within
from seqjax.ops.op import matmul_precision
from seqjax.ops.positions import places
from seqjax.ops.quarantine import mark


class Steps(NamedTuple):
    """What the steps bring, [T, H, ...]; None where the optimiser has no such thing."""

    q: Any  # [T, H, D]
    k: Any  # [T, H, D]
    v: Any  # [T, H, D]
    theta: Any  # [T, H], step sizes
    tau: Any = None  # [T, H]
    log_eta: Any = None  # [T, H], <= 0
    log_keep: Any = None  # [T, H], log(1 - alpha) <= 0


class Learner(NamedTuple):
    """The state. Weights are one matrix [H, in, out] per layer of f; with biases, the last row."""

    W: tuple[Array, ...]
    U: tuple[Array, ...]
    m: Any  # as W, or None without momentum
    d: Any  # [H], or None without decay
    count: Any  # int32 [], steps in the current chunk; None while one head is looked at


def layer_norm(z: Array, norm: tuple[Array, Array], eps: float) -> Array:
    z = z - jnp.mean(z, axis=-1, keepdims=True)
    z = z * lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + eps)
    weight, bias = norm
    return weight[None] * z + bias[None]


def regression(z: Array, k: Array, v: Array, norm: Any, eps: float) -> Array:
    """Of |z - v|^2 / 2."""
    del k, norm, eps
    return z - v


def residual(z: Array, k: Array, v: Array, norm: Any, eps: float) -> Array:
    """Of |k + LN(z) - v|^2 / 2."""
    return jax.grad(lambda z: jnp.sum((k + layer_norm(z, norm, eps) - v) ** 2) / 2)(z)


def residual_fla(z: Array, k: Array, v: Array, norm: Any, eps: float) -> Array:
    """`residual` as flash-linear-attention takes it in its Titans: the division by the standard
    deviation and by D reaches two of the three terms of the norm's derivative."""
    D, centred = z.shape[-1], z - jnp.mean(z, axis=-1, keepdims=True)
    rstd = lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    unit, g = centred * rstd, (k + layer_norm(z, norm, eps) - v) * norm[0][None]
    along = jnp.sum(g, axis=-1, keepdims=True) + unit * jnp.sum(g * unit, axis=-1, keepdims=True)
    return D * g - along * rstd / D


def still(z: Array, k: Array) -> Array:
    """z = f(k), held constant where a step is silent: a key of zeros, answered by a constant.

    There the norm's derivative is eps^-1/2, a thousand, and that of its gradient a million: the
    releases follow it, and after 64 steps of silence their gradients are infinite. The value, and
    what a gradient owes to the target and the norm's weights, is theirs.
    """
    silent = jnp.all(k == 0, axis=-1, keepdims=True) & jnp.all(
        z == z[:, :1], axis=-1, keepdims=True
    )
    return jnp.where(silent, lax.stop_gradient(z), z)


# name -> the derivative by z = f(k) of a loss of steps [C, D]
LOSSES: dict[str, Callable[..., Array]] = {
    "regression": regression,
    "residual": residual,
    "residual_fla": residual_fla,
}
# name -> what is read out of z = f(q)
OUTPUTS: dict[str, Callable[..., Array]] = {
    "plain": lambda z, q, norm, eps: z,
    "query": lambda z, q, norm, eps: q + layer_norm(z, norm, eps),
    "inner": lambda z, q, norm, eps: z + layer_norm(z, norm, eps),
}


@dataclass(frozen=True)
class Inner:
    """The inner model, its loss, and how it is read."""

    size: int  # steps that share the weights their gradients are taken at
    loss: str = "residual"
    output: str = "query"
    activation: Callable[[Array], Array] = jax.nn.gelu  # between layers
    bias: bool = True
    eps: float = 1e-6

    def layer(self, x: Array) -> Array:
        """The input [C, in] of a layer, with the 1 its bias is multiplied by."""
        return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1) if self.bias else x

    def run(self, x: Array, products: Any) -> tuple[Array, list[Array]]:
        """f(x) for x [C, D] and the inputs of its layers; products: one function per layer."""
        inputs = []
        for n, product in enumerate(products):
            inputs.append(self.layer(x if not n else self.activation(x)))
            x = product(inputs[-1])
        return x, inputs

    def gradients(self, W, k: Array, v: Array, norm) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Inputs [C, in] and errors [C, out] of every layer: the gradient of step s is
        x_s e_s^T."""

        def f(offsets):
            products = [lambda x, w=w, o=o: x @ w + o for w, o in zip(W, offsets)]
            z, inputs = self.run(k, products)
            return z, inputs

        zeros = tuple(jnp.zeros((len(k), w.shape[1]), w.dtype) for w in W)
        z, pull, inputs = jax.vjp(f, zeros, has_aux=True)
        (errors,) = pull(LOSSES[self.loss](still(z, k), k, v, norm, self.eps))
        return tuple(inputs), errors

    def read(self, z: Array, q: Array, norm) -> Array:
        return OUTPUTS[self.output](z, q, norm, self.eps)


def start_of(W: tuple[Array, ...], *, momentum: bool, decay: bool) -> Learner:
    """Where learning begins, at weights [H, in, out]."""
    zeros = tuple(jnp.zeros_like(w) for w in W)
    d = jnp.ones(W[0].shape[:1], W[0].dtype) if decay else None
    return Learner(tuple(W), zeros, zeros if momentum else None, d, jnp.zeros((), jnp.int32))


def learn(
    inner: Inner,
    xs: Steps,
    norm: tuple[Array, Array] | None,
    h: Carry,
    flow: Flow,
) -> tuple[Array, Learner]:
    """Outputs [T, H, D] and the next `Learner`, for one example. norm: weight and bias [H, D] of
    the loss's and the output's, if they have one. With the evaluator "part" the steps are one
    part, as `scan_parts` cuts it."""
    given = xs.q.dtype
    xs = jax.tree.map(lambda z: z.astype(accumulation_dtype(given)), xs)
    place, count = places(h.count, len(xs.q), size=inner.size, flow=flow)
    last = place == inner.size - 1
    last = last if flow.mask is None else last & flow.mask
    evaluate = {"sequential": by_steps, "part": by_part}.get(flow.evaluator or "chunked", by_chunks)

    def head(xs, norm, h):
        return evaluate(inner, xs, last, norm, h, flow)

    h = Carry(h.now._replace(count=None), h.start._replace(count=None))
    with matmul_precision(given):
        y, new = jax.vmap(head, in_axes=(1, 0, 0), out_axes=(1, 0))(xs, norm, h)
    return y, new._replace(count=count)


def by_steps(inner, xs, last, norm, h, flow):
    """The equations, for one head: xs [T, ...]."""

    def step(old, now):
        x, last, reset, keep = now
        W, U, m_before, d, _ = old if reset is None else where(reset, h.start, old)
        q, k, v = (z[None] for z in (x.q, x.k, x.v))
        inputs, errors = inner.gradients(W, k, v, norm)
        m = [-x.theta * i.T @ e for i, e in zip(inputs, errors)]
        if m_before is not None:
            m = [jnp.exp(x.log_eta) * a + b for a, b in zip(m_before, m)]
        kept = 1.0 if d is None else jnp.exp(x.log_keep)
        U = [kept * u + a for u, a in zip(U, m)]
        d = None if d is None else kept * d
        R = weights(W, U, d, x.tau)
        y = inner.read(inner.run(q, [lambda z, r=r: z @ r for r in R])[0], q, norm)[0]
        new = Learner(W, tuple(U), None if m_before is None else tuple(m), d, None)
        new = where(last, fold(new, R), new)
        return (new if keep is None else where(keep, new, old)), y

    end, y = lax.scan(step, h.now, (xs, last, flow.resets, flow.mask))
    return y, end


def weights(W, U, d, tau) -> tuple[Array, ...]:
    d, tau = 1.0 if d is None else d, 1.0 if tau is None else tau
    return tuple(d * w + tau * u for w, u in zip(W, U))


def fold(h: Learner, R: tuple[Array, ...]) -> Learner:
    """The state at the start of a chunk that begins with the weights R."""
    zeros = tuple(jnp.zeros_like(u) for u in h.U)
    return Learner(R, zeros, h.m, None if h.d is None else jnp.ones_like(h.d), None)


def where(flag: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), yes, no)


# ---- the dual form ------------------------------------------------------------------------------


def by_chunks(inner, xs, last, norm, h, flow):
    """The parts of a sequence one after the other, for one head."""

    def body(now, x, last, resets, keep):
        return by_part(inner, x, last, norm, Carry(now, h.start), Flow(resets, keep))

    return scan_parts(body, h.now, xs, last, inner.size, flow.resets, flow.mask)


def by_part(inner, x, last, norm, h, flow):
    """Outputs [C, D] and the next state, for the C steps of a part (`scan_parts`) of one head."""
    now, start, resets = h.now, h.start, flow.resets
    keep = jnp.ones(len(last), bool) if flow.mask is None else flow.mask
    segment = jnp.zeros(len(last), jnp.int32)
    if resets is not None:
        segment = jnp.cumsum(resets, dtype=jnp.int32)
    begun = segment > 0  # with a reset, from the weights of the start
    joined = jnp.asarray(within(segment, len(last)))
    c = coefficients(x, joined, keep)

    inputs, errors = inner.gradients(now.W, x.k, x.v, norm)
    if resets is not None:
        inputs, errors = choose(begun, inner.gradients(start.W, x.k, x.v, norm), (inputs, errors))

    def product(n):
        """What layer n answers to its inputs q [C, in]."""

        def entering(q, h):
            d = c.kept if h.d is None else h.d * c.kept
            moved = c.kept[:, None] * (q @ h.U[n])
            if h.m is not None:
                moved += c.carried[:, None] * (q @ h.m[n])
            return d[:, None] * (q @ h.W[n]) + with_tau(x.tau, moved)

        def answer(q):
            scores, unread = finite_rows(c.writes * jnp.where(joined, q @ inputs[n].T, 0))
            error, lost = finite_rows(errors[n])
            unread |= jnp.any(joined & lost[None], axis=1)
            written = mark(unread, scores @ error)
            z = entering(q, now)
            if resets is not None:
                z = choose(begun, entering(q, start), z)
            return z + with_tau(x.tau, written)

        return answer

    z, _ = inner.run(x.q, [product(n) for n in range(len(now.W))])
    y = inner.read(z, x.q, norm)
    before = now if resets is None else where(begun[-1], start, now)
    return y, after(c, x, last, inputs, errors, before)


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


def choose(flag: Array, yes: Any, no: Any) -> Any:
    """where(flag [C], yes, no) on trees of [C, ...]."""
    return jax.tree.map(lambda a, b: jnp.where(flag[:, None], a, b), yes, no)
