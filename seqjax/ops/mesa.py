"""The mesa recurrence: every step solves its regression of the values on the keys exactly.

    G_t = gamma_t G_{t-1} + beta_t v_t k_t^T          [V, K]
    H_t = gamma_t H_{t-1} + beta_t k_t k_t^T          [K, K]
    o_t = G_t (H_t + Lambda)^-1 q_t                   no scale

(2506.05233 eq. 4-6.) The state is [H, G^T]; H is taken to be symmetric, which every reachable one
is. Both sums are linear attentions: "chunked" solves all steps at once by conjugate gradients, in
which the product with H_t is a linear attention with the iterate for a query, so that no H_t but
those between chunks is kept. It takes `iterations` of them, at most K, and is exact if K are taken;
gradients are those of the exact solution, by another solve.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.flow import takes_flow
from seqjax.core.mesh import loop
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, full_states, match
from seqjax.ops.chunks import finite_log, sequential, stepwise
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.op import Evaluator, Op, Rule, Spec
from seqjax.ops.span import elementwise


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, H, K]
    v: Any  # [T, H, V]
    log_gamma: Any  # [T, H]
    beta: Any  # [T, H]


def written(xs: Inputs) -> Array:
    """beta [k, v], what a step adds to the state for its key [..., K + V]."""
    return xs.beta[..., None] * jnp.concatenate([xs.k, xs.v], axis=-1)


def naive(
    xs: Inputs,
    S: Array,
    *,
    Lambda: Array,
    iterations: int,
    resets: Array | None = None,
    start: Array | None = None,
) -> tuple[Array, Array]:
    """The equations, one step after the other: S [H, K, K + V], Lambda [H, K]."""
    del iterations
    K = xs.q.shape[-1]

    def step(S: Array, x: Inputs) -> tuple[Array, Array]:
        S = jnp.exp(x.log_gamma)[:, None, None] * S + x.k[:, :, None] * written(x)[:, None]
        z = jnp.linalg.solve(S[..., :K] + jax.vmap(jnp.diag)(Lambda), x.q[..., None])[..., 0]
        return S, jnp.einsum("hkv,hk->hv", S[..., K:], z)

    return stepwise(step, S, xs, resets, start)


def chunked(
    xs: Inputs,
    S: Array,
    *,
    Lambda: Array,
    iterations: int,
    resets: Array | None,
    start: Array | None,
    chunk_size: int | None,
) -> tuple[Array, Array]:
    """All steps at once by conjugate gradients."""
    K, values = xs.q.shape[-1], written(xs)

    def attend(query: Array, values: Array, S: Array, start: Array | None) -> Any:
        return linear_attention(
            query,
            xs.k,
            values,
            xs.log_gamma,
            S,
            resets=resets,
            start=start,
            evaluator="chunked",
            chunk_size=chunk_size,
        )

    def product(x: Array) -> Array:  # (H_t + Lambda) x_t; a linear attention reads x^T H
        H = jnp.swapaxes(S[..., :K], 1, 2)
        fresh = None if start is None else jnp.swapaxes(start[..., :K], 1, 2)
        return attend(x, values[..., :K], H, fresh)[0] + Lambda[None] * x

    def solve(product: Callable[[Array], Array], q: Array) -> Array:
        return conjugate_gradients(product, q, min(iterations, K))

    x = lax.custom_linear_solve(product, xs.q, solve, symmetric=True)
    o, S = attend(x, values, S, start)
    return o[..., K:], S


def conjugate_gradients(product: Callable[[Array], Array], b: Array, iterations: int) -> Array:
    """x [..., K] with product(x) = b, for a positive definite matrix per vector of b."""

    def dot(x, y):
        return jnp.sum(x * y, axis=-1, keepdims=True)

    def over(x, y):  # once nothing is left to solve
        return x / jnp.where(y > 0, y, 1)

    def step(now, _):
        x, r, p = now
        Ap = product(p)
        alpha = over(dot(r, r), dot(p, Ap))
        rest = r - alpha * Ap
        p = rest + over(dot(rest, rest), dot(r, r)) * p
        return (x + alpha * now[2], rest, p), None

    return loop(step, (jnp.zeros_like(b), b, b), length=iterations)[0][0]


@takes_flow
def mesa(
    q: Float[Array, "*B T H K"],
    k: Float[Array, "*B T H K"],
    v: Float[Array, "*B T H V"],
    log_gamma: Float[Array, "*B T H"],
    beta: Float[Array, "*B T H"],
    Lambda: Float[Array, "H K"],
    state: Float[Array, "*B H K S"] | None = None,
    *,
    iterations: int = 30,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Float[Array, "*B H K S"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T H V"], Float[Array, "*B H K S"]]:
    """Outputs [B, T, H, V] and the state [H, G^T] [B, H, K, K + V]; the batch axis may be absent.

    q, k [B, T, H, K], v [B, T, H, V], log_gamma <= 0 and beta >= 0 [B, T, H], Lambda > 0 [H, K].
    `resets` [B, T] forgets the past before a step (the state becomes `start`, or zero), `mask`
    [B, T] leaves out the steps where it is False, `reverse` runs from the last step to the first.

    >>> x, none = jnp.ones((3, 1, 1)), jnp.zeros((3, 1))
    >>> y, S = mesa(x, x, 5 * x, none, none + 1, jnp.full((1, 1), 1e-3))
    >>> y[:, 0, 0].round(1).tolist()  # a regression of 5 on 1, at every step
    [5.0, 5.0, 5.0]
    """
    op = MESA.name
    batch = batch_letter(op, "THK", q=q)
    keys, gates = f"{batch}THK", f"{batch}TH"
    sizes = match(
        op,
        q=(q, keys),
        k=(k, keys),
        v=(v, f"{batch}THV"),
        log_gamma=(log_gamma, gates),
        beta=(beta, gates),
        Lambda=(Lambda, "HK"),
    )
    check_real(op, q=q, k=k, v=v, log_gamma=log_gamma, beta=beta, Lambda=Lambda)
    if iterations < 1:
        raise ValueError(f"{op}: iterations is {iterations}, expected at least 1")
    sizes["W"] = sizes["K"] + sizes["V"]
    first, start = full_states(op, state, start, f"{batch}HKW", sizes, v.dtype)
    o, S = MESA(
        Inputs(q, k, v, finite_log(log_gamma), beta),
        first,
        batched=bool(batch),
        dtype=q.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=start,
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        Lambda=Lambda,
        iterations=iterations,
    )
    return o.astype(q.dtype), S


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `mesa` for a spec: unit keys, and a state that some steps have left."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")

    def unit(*shape: int) -> np.ndarray:
        x = draw.normal(size=shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    k, v = unit(B, 3, H, K), draw.normal(size=(B, 3, H, V))
    return dict(
        q=unit(B, T, H, K),
        k=unit(B, T, H, K),
        v=draw.normal(size=(B, T, H, V)),
        log_gamma=-np.log1p(np.exp(-draw.normal(size=(B, T, H)))),
        beta=draw.uniform(0, 1, (B, T, H)),
        Lambda=draw.uniform(0.5, 1.5, (H, K)),
        state=np.einsum("bthk,bthw->bhkw", k, np.concatenate([k, v], axis=-1)),
    )


FILL = Inputs(0.0, 0.0, 0.0, 0.0, 0.0)
MESA = Op(
    name="mesa",
    reference="2506.05233",
    structure="scalar on a matrix",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL)),
        "chunked": Evaluator(chunked),
    },
    table=(
        Rule("a single step", lambda call: call.steps == 1, ("sequential",)),
        # never the loop for values alone: with fewer iterations than K it is another number
        Rule("several steps", lambda call: True, ("chunked",)),
    ),
    fill=FILL,
    specs=(
        Spec("small", dict(B=2, T=37, H=2, K=4, V=3)),
        Spec("long", dict(B=1, T=2048, H=2, K=16, V=16)),
    ),
    example=example,
    readers=("q",),
    apart=2,
    span=elementwise("k"),
)
