"""Recurrences that are one and the same: each equality computed on both sides, by this library.

Each function draws inputs from a key, runs both sides and returns the largest difference, over the
largest value of the sides. In exact arithmetic it is 0; what there is, is rounding. Proofs are a
line each, in the docstrings. They say which results carry over: a kernel, a parallel form, a bound
of expressivity found for one side holds for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.core.monoid import dense
from seqjax.core.ranges import Count, Seed
from seqjax.core.scan import scan
from seqjax.layers.linear_attention.aft import AFT
from seqjax.layers.segment.rsa import RSA
from seqjax.learn import LEARNERS
from seqjax.learn.cell import Cell
from seqjax.nn.base import Precise, cast_parameters
from seqjax.ops.convolution import short_convolution
from seqjax.ops.delta_rule import gated_delta_rule
from seqjax.ops.diagonal_ssm import diagonal_ssm
from seqjax.ops.dplr import dplr
from seqjax.ops.inner_learning import inner_learning
from seqjax.ops.inner_model import Inner, Learner
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.linear_scan import linear_scan
from seqjax.ops.ssd import selective_scan
from seqjax.ops.stabilised_attention import stabilised_attention
from seqjax.theory.finding import Finding

Key = Array


def difference(one: Array, other: Array) -> Array:
    """The largest, over the largest value."""
    size = jnp.maximum(jnp.max(jnp.abs(one)), jnp.max(jnp.abs(other)))
    return jnp.max(jnp.abs(one - other)) / size


def drawn(key: Key, *shapes: tuple[int, ...]) -> list[Array]:
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]


def queries(key: Key, T: int, H: int, K: int, V: int) -> list[Array]:
    """q, k [T, H, K], keys of length 1, v [T, H, V], and what a head [T, H] has a step."""
    q, k, v, gate = drawn(key, (T, H, K), (T, H, K), (T, H, V), (T, H))
    return [q, k / jnp.linalg.norm(k, axis=-1, keepdims=True), v, gate]


def gated_rnn_is_linear_attention(key: Key, T: int) -> Array:
    """A gated linear recurrence is linear attention with heads of one key and one value.

    h_t = a_t h_{t-1} + b_t is S_t = a_t S_{t-1} + k_t v_t with k_t = 1, v_t = b_t, read by q_t = 1.
    """
    a, b = drawn(key, (T, 8), (T, 8))
    a = jax.nn.sigmoid(a)
    h, _ = linear_scan(a, b)
    one = jnp.ones((T, 8, 1))
    y, _ = linear_attention(one, one, b[..., None], jnp.log(a))
    return difference(h, y[..., 0])


def linear_attention_is_dplr(key: Key, T: int) -> Array:
    """Gated linear attention is a diagonal-plus-low-rank recurrence whose low rank is 0."""
    q, k, v, _ = queries(key, T, 2, 4, 4)
    log_w = jax.nn.log_sigmoid(drawn(key, k.shape)[0])
    zero = jnp.zeros_like(k)
    y, _ = dplr(q, k, v, zero, zero, log_w)
    return difference(y, linear_attention(q, k, v, log_w)[0])


def delta_rule_is_dplr(key: Key, T: int) -> Array:
    """S_t = (I - beta k k^T) S_{t-1} + beta k v^T: the low rank a b^T of DPLR is -beta k k^T."""
    q, k, v, beta = queries(key, T, 2, 4, 4)
    beta = jax.nn.sigmoid(beta)
    y, _ = gated_delta_rule(q, k, v, beta, None)
    scaled = beta[..., None] * k
    return difference(y, dplr(q, scaled, v, k, -scaled)[0])


def selective_scan_is_linear_attention(key: Key, T: int) -> Array:
    """Mamba's scan is gated linear attention: channels are heads of one value, B keys, C queries.

    h_t = exp(Delta_t A) h_{t-1} + Delta_t B_t u_t is S_t = Diag(alpha_t) S_{t-1} + k_t v_t with
    alpha_t = exp(Delta_t A), k_t = B_t, v_t = Delta_t u_t, read by q_t = C_t.
    """
    D, N = 6, 4
    u, delta, A, B, C = drawn(key, (T, D), (T, D), (D, N), (T, N), (T, N))
    delta, A = jax.nn.softplus(delta), -jnp.exp(A)
    y, _ = selective_scan(u, delta, A, B, C)
    each = (jnp.broadcast_to(z[:, None], (T, D, N)) for z in (C, B))
    found, _ = linear_attention(*each, (delta * u)[..., None], delta[..., None] * A[None])
    return difference(y, found[..., 0])


def mlstm_is_linear_attention(key: Key, T: int) -> Array:
    """mLSTM's memory exp(m) C is that of linear attention with keys exp(log_i) k."""
    q, k, v, log_i = queries(key, T, 2, 4, 4)
    log_f = jax.nn.log_sigmoid(drawn(key, log_i.shape)[0])
    _, (C, _, m) = stabilised_attention(q, k, v, log_i, log_f)
    _, S = linear_attention(q, jnp.exp(log_i)[..., None] * k, v, log_f)
    return difference(jnp.exp(m)[..., None, None] * C, S)


def attention_of_one_query_is_a_scan(key: Key, T: int) -> Array:
    """All prefixes of softmax attention by one query are a recurrence (Aaren, arXiv:2405.13956):
    its numerator and denominator are linear in what came before."""
    s, v = drawn(key, (T, 1), (T, 1, 4))
    s = 2 * s + 20  # the softmax is of differences; scores above 0 are above the floor of mLSTM
    one = jnp.ones((T, 1, 1))
    h, _ = stabilised_attention(one, one, v, s, jnp.zeros_like(s), eps=0.0)
    upto = jnp.tril(jnp.ones((T, T), bool))
    weights = jax.nn.softmax(jnp.where(upto, s[:, 0][None], -jnp.inf), axis=1)
    return difference(h[:, 0], weights @ v[:, 0])


def aft_is_linear_attention(key: Key, T: int) -> Array:
    """AFT-simple (arXiv:2105.14103) is normalised linear attention, with one key a head, exp(k)."""
    k, v = drawn(key, (T, 6), (T, 6))
    e = jnp.exp(k)
    aft = jnp.cumsum(e * v, axis=0) / jnp.cumsum(e, axis=0)
    one = jnp.ones((T, 6, 1))
    y, _ = linear_attention(one, e[..., None], v[..., None], normalise=True, eps=0.0)
    return difference(aft, y[..., 0])


def _attention_free(kind: str, T: int, dtype: Any, **options: Any) -> AFT:
    made = AFT(4, kind=kind, length=T, rngs=nnx.Rngs(0), **options)
    return cast_parameters(made, dtype)


def aft_without_biases_is_simple(key: Key, T: int) -> Array:
    """The limits of AFT: with w = 0 the full one is the simple one, and with a window of all steps
    the local one is the full one."""
    x, w = drawn(key, (1, T, 4), (T, T))
    simple = _attention_free("simple", T, x.dtype)
    full = _attention_free("full", T, x.dtype, rank=None)
    local = _attention_free("local", T, x.dtype, rank=None, window=T)
    for one in (full, local):
        one.W_q, one.W_k, one.W_v, one.W_o = simple.W_q, simple.W_k, simple.W_v, simple.W_o
        one.w = nnx.Param(jnp.zeros_like(w))
    none = difference(full(x)[0], simple(x)[0])
    full.w = local.w = nnx.Param(w)
    return jnp.maximum(none, difference(full(x)[0], local(x)[0]))


def aft_of_distances_is_decayed_linear_attention(key: Key, T: int) -> Array:
    """With w_{t,s} = -c (t - s) AFT is normalised linear attention of keys exp(k) that decay by
    exp(-c) a step: RWKV's average of values, but for the weight of its newest one."""
    (x,) = drawn(key, (1, T, 4))
    aft, c = _attention_free("full", T, x.dtype, rank=None), 0.3
    t = jnp.arange(T, dtype=x.dtype)
    aft.w = nnx.Param(c * (t[None] - t[:, None]))
    q, k, v = (W(x[0]) for W in (aft.W_q, aft.W_k, aft.W_v))
    one, log_a = jnp.ones((T, 4, 1), x.dtype), jnp.full((4,), -c, x.dtype)
    y, _ = linear_attention(
        one, jnp.exp(k)[..., None], v[..., None], log_a, normalise=True, eps=0.0
    )
    return difference(aft(x)[0][0], aft.output(q, y[..., 0], x[0]))


def linear_rnn_is_recurrence_encoding(key: Key, T: int) -> Array:
    """h_t = W h_{t-1} + u_t is u plus the matrices P of RSA times u, in the basis that W is a block
    diagonal in: one regular P for each real eigenvalue, a cosine and a sine for each pair (Huang et
    al. 2023, prop. 1)."""
    u, basis, free = drawn(key, (T, 4), (4, 4), (4,))
    basis = jnp.eye(4, dtype=u.dtype) + 0.2 * basis
    rsa = RSA(6, heads=6, regular=2, cosine=2, sine=2, rngs=nnx.Rngs(0))
    rsa.eta = Precise(free[:2])
    rsa.nu, rsa.theta = (Precise(jnp.broadcast_to(one, (4,))) for one in free[2:])
    v = jnp.linalg.solve(basis, u.T).T
    none = jax.lax.complex(jnp.zeros((6, 1), u.dtype), jnp.zeros((6, 1), u.dtype))
    heads = v[:, jnp.array([0, 1, 2, 3, 2, 3]), None]
    r = rsa.recurrence(heads, Carry(none, none), Flow())[0][..., 0]
    found = v + jnp.concatenate([r[:, :2], r[:, 2:3] - r[:, 5:], r[:, 3:4] + r[:, 4:5]], axis=1)

    a, gamma, theta = jnp.tanh(free[:2]), jax.nn.sigmoid(free[2]), free[3]
    turn = jnp.array([[jnp.cos(theta), -jnp.sin(theta)], [jnp.sin(theta), jnp.cos(theta)]])
    W = jnp.linalg.solve(basis.T, (basis @ jax.scipy.linalg.block_diag(
        jnp.diag(a), gamma * turn)).T).T  # fmt: skip

    def step(h: Array, u: Array) -> tuple[Array, Array]:
        h = W @ h + u
        return h, h

    return difference(found @ basis.T, jax.lax.scan(step, jnp.zeros_like(u[0]), u)[1])


def moving_average_is_a_diagonal_ssm(key: Key, T: int) -> Array:
    """MEGA's damped average (arXiv:2209.10655, eq. 6), of N dimensions a channel, is a diagonal
    state space model: a = 1 - alpha delta, B = alpha beta, C = eta."""
    D, N = 4, 3
    x, alpha, delta, beta, eta = drawn(key, (T, D), (D, N), (D, N), (D, N), (D, N))
    alpha, delta = jax.nn.sigmoid(alpha), jax.nn.sigmoid(delta)

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = alpha * (beta * x[:, None]) + (1 - alpha * delta) * h
        return h, jnp.sum(eta * h, axis=1)

    averages = jax.lax.scan(step, jnp.zeros_like(alpha), x)[1]
    return difference(averages, diagonal_ssm(x, jnp.log1p(-alpha * delta), alpha * beta, eta)[0])


def diagonal_ssm_is_a_convolution(key: Key, T: int) -> Array:
    """A time-invariant state space model is the causal convolution by K_t = sum_n C_n a_n^t B_n."""
    D, N = 4, 3
    u, log_a, B, C = drawn(key, (T, D), (D, N), (D, N), (D, N))
    log_a = -jax.nn.softplus(log_a)
    y, _ = diagonal_ssm(u, log_a, B, C)
    powers = jnp.exp(jnp.arange(T, dtype=u.dtype)[:, None, None] * log_a[None])
    kernel = jnp.sum((C * B)[None] * powers, axis=2)
    # the last tap of a kernel is the newest step's
    return difference(y, short_convolution(u, kernel[::-1])[0])


def diagonalisable_rnn_is_two_elementwise_layers(key: Key, T: int) -> Array:
    """h_t = U h_{t-1} + x_t with U = P Diag(lambda) P^{-1} is P times an elementwise recurrence:
    two layers of linear IndRNN, whose inputs mix units, are every diagonalisable linear RNN
    (arXiv:1803.04831, sec. 3.3)."""
    n = 6
    x, M = drawn(key, (T, n), (n, n))
    U = (M + M.T) / (2 * n)  # its eigenvalues are real
    lam, P = jnp.linalg.eigh(U)
    h, _ = linear_scan(jnp.broadcast_to(lam, (T, n)), x @ P)

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        h = U @ h + x
        return h, h

    return difference(h @ P.T, jax.lax.scan(step, jnp.zeros(n), x)[1])


def _trained_inside(key: Key, T: int, size: int) -> tuple[list[Array], Array, Array]:
    """Queries, keys, values, rates and what a linear inner model, of W_0 = 0, answers."""
    q, k, v, gate = queries(key, T, 2, 4, 4)
    theta = jax.nn.sigmoid(gate)
    zero = jnp.zeros((2, 4, 4))
    learner = Learner((zero,), (zero,), None, None, jnp.zeros((), jnp.int32))
    inner = Inner(size, loss="regression", output="plain", bias=False)
    y, _ = inner_learning(q, k, v, theta, learner, inner=inner)
    return [q, k, v], theta, y


def ttt_is_the_delta_rule(key: Key, T: int) -> Array:
    """TTT with a linear model and one step a token is DeltaNet (arXiv:2407.04620): the gradient of
    |k W - v|^2 / 2 is k^T (k W - v), whose step of theta is the delta rule with beta = theta."""
    (q, k, v), theta, y = _trained_inside(key, T, 1)
    return difference(y, gated_delta_rule(q, k, v, theta, None)[0])


def ttt_by_batch_is_linear_attention(key: Key, T: int) -> Array:
    """TTT whose gradients are all taken at W_0 = 0 is linear attention (arXiv:2407.04620, thm. 1):
    of k^T (k W_0 - v) the sum of k^T v is left."""
    (q, k, v), theta, y = _trained_inside(key, T, T)
    return difference(y, linear_attention(q, theta[..., None] * k, v)[0])


def rtrl_is_bptt(key: Key, T: int) -> Array:
    """The gradient carried forward is the gradient sent back: both are products of the same
    Jacobians, d h_t = J_t d h_{t-1} + d_theta h_t, from either end."""
    n = 4
    W, xs, targets = drawn(key, (n, 2 * n), (T, n), (T, n))
    cell = Cell(
        lambda W: jnp.zeros(n, W.dtype),
        lambda W, h, x: jnp.tanh(W @ jnp.concatenate([h, x])),
        lambda W, h, x: h,
    )

    def loss(y: Array, target: Array) -> Array:
        return jnp.sum((y - target) ** 2)

    def gradient(name: str) -> Array:
        learner = LEARNERS[name].make(cell, loss, W, xs)
        return learner.grad(W, learner.init(W, key), xs, targets)[1]

    return difference(gradient("rtrl"), gradient("bptt"))


def bptt_rtrl_and_newton_are_affine_scans(key: Key, T: int) -> Array:
    """One scan over the Jacobians J_t = d h_t / d h_{t-1}, h_t = tanh(W h_{t-1} + x_t): backward
    with their transposes and the errors it is backpropagation, forward with d h_t / d W real-time
    recurrent learning, and with h_t - J_t h_{t-1} the step of Newton's method (DEER,
    arXiv:2309.12252), which leaves the states as they are. Against automatic differentiation."""
    n = 4
    W, xs, errors = drawn(key, (n, n), (T, n), (T, n))
    W = W / n

    def step(W: Array, h: Array, x: Array) -> Array:
        return jnp.tanh(W @ h + x)

    def states(W: Array) -> Array:
        def body(h: Array, x: Array) -> tuple[Array, Array]:
            h = step(W, h, x)
            return h, h

        return jax.lax.scan(body, jnp.zeros_like(xs[0]), xs)[1]

    h = states(W)
    before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])
    by_W, J = jax.vmap(jax.jacfwd(step, (0, 1)), (None, 0, 0))(W, before, xs)
    by_W = by_W.reshape(T, n, n * n)
    none = jnp.zeros_like(h[0])

    later = jnp.concatenate([J[1:], jnp.zeros_like(J[:1])])  # after the last step there is none
    adjoint, _ = scan(dense, (jnp.swapaxes(later, 1, 2), errors), none, reverse=True)
    bptt = jnp.einsum("ti,tip->p", adjoint, by_W)
    sensitivity, _ = scan(dense, (J, by_W), jnp.zeros_like(by_W[0]))
    rtrl = jnp.einsum("ti,tip->p", errors, sensitivity)
    deer, _ = scan(dense, (J, h - jnp.einsum("tij,tj->ti", J, before)), none)

    expected = jax.grad(lambda W: jnp.sum(errors * states(W)))(W).reshape(-1)
    pairs = ((bptt, expected), (rtrl, expected), (deer, h))
    return jnp.max(jnp.stack([difference(*pair) for pair in pairs]))


IDENTITIES: dict[str, Callable[[Key, int], Array]] = {
    one.__name__: one
    for one in (
        gated_rnn_is_linear_attention,
        linear_attention_is_dplr,
        delta_rule_is_dplr,
        selective_scan_is_linear_attention,
        mlstm_is_linear_attention,
        attention_of_one_query_is_a_scan,
        aft_is_linear_attention,
        aft_without_biases_is_simple,
        aft_of_distances_is_decayed_linear_attention,
        linear_rnn_is_recurrence_encoding,
        moving_average_is_a_diagonal_ssm,
        diagonal_ssm_is_a_convolution,
        diagonalisable_rnn_is_two_elementwise_layers,
        ttt_is_the_delta_rule,
        ttt_by_batch_is_linear_attention,
        rtrl_is_bptt,
        bptt_rtrl_and_newton_are_affine_scans,
    )
}


def identities(*, steps: Count = 24, seed: Seed = 0) -> Finding:
    """The largest difference of each pair of recurrences that are one.

    Args:
        steps: of the sequences
        seed: of weights and inputs
    """
    rows = [
        (name.replace("_", " "), f"{float(jax.jit(both, static_argnums=1)(key, steps)):.1e}")
        for name, both in IDENTITIES.items()
        for key in (jax.random.key(seed),)
    ]
    return Finding(f"identities, {steps} steps", ("identity", "largest difference"), rows)
