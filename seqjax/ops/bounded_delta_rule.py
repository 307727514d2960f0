"""The delta rule with a memory whose norm is at most 1, as the fast weight memory writes.

    S~_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T          S [K, V]
    S_t  = S~_t / max(|S~_t|, 1),   S~_t where S_{t-1} = 0       Frobenius norm
    y_t  = scale q_t^T S_t

(Schlag et al. 2021, 2011.07831 eq. 6-8, as released.) The norm is not linear in S: there is one
evaluator, the loop.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.flow import takes_flow
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, full_states, match
from seqjax.ops.chunks import sequential, stepwise
from seqjax.ops.op import Evaluator, Op, Rule, Spec


class Inputs(NamedTuple):
    q: Any  # [T, H, K]
    k: Any  # [T, H, K]
    v: Any  # [T, H, V]
    beta: Any  # [T, H]
    mask: Any  # bool [T, H], or None


def naive(
    xs: Inputs,
    S: Array,
    *,
    scale: float,
    resets: Array | None = None,
    start: Array | None = None,
) -> tuple[Array, Array]:
    """The equations, one step after the other: S [H, K, V]."""

    def step(S: Array, x: Inputs) -> tuple[Array, Array]:
        error = x.v - jnp.einsum("hk,hkv->hv", x.k, S)
        new = S + (x.beta[:, None] * x.k)[:, :, None] * error[:, None]
        shrink = lax.rsqrt(jnp.maximum(jnp.sum(new * new, axis=(1, 2), keepdims=True), 1))
        new = jnp.where(jnp.any(S != 0, axis=(1, 2), keepdims=True), shrink * new, new)
        S = new if x.mask is None else jnp.where(x.mask[:, None, None], new, S)
        return S, scale * jnp.einsum("hk,hkv->hv", x.q, S)

    return stepwise(step, S, xs, resets, start)


@takes_flow
def bounded_delta_rule(
    q: Float[Array, "*B T H K"],
    k: Float[Array, "*B T H K"],
    v: Float[Array, "*B T H V"],
    beta: Float[Array, "*B T H"],
    state: Float[Array, "*B H K V"] | None = None,
    *,
    scale: float = 1.0,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Float[Array, "*B H K V"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T H V"], Float[Array, "*B H K V"]]:
    """Outputs [B, T, H, V] and the state [B, H, K, V]; the batch axis may be absent.

    q, k [B, T, H, K], v [B, T, H, V], beta [B, T, H]. `resets` [B, T] forgets the past before a
    step (the state becomes `start`, or zero), `mask` [B, T] leaves out the steps where it is False,
    `reverse` runs from the last step to the first.

    >>> k, v = jnp.ones((3, 1, 1)), jnp.array([[[0.5]], [[3.0]], [[9.0]]])
    >>> bounded_delta_rule(k, k, v, jnp.ones((3, 1)))[0][:, 0, 0].tolist()
    [0.5, 1.0, 1.0]
    """
    op = BOUNDED_DELTA_RULE.name
    batch = batch_letter(op, "THK", q=q)
    keys = f"{batch}THK"
    sizes = match(op, q=(q, keys), k=(k, keys), v=(v, f"{batch}THV"), beta=(beta, f"{batch}TH"))
    check_real(op, q=q, k=k, v=v, beta=beta)
    first, start = full_states(op, state, start, f"{batch}HKV", sizes, v.dtype)
    kept = None if mask is None else jnp.broadcast_to(mask[..., None], beta.shape)
    y, S = BOUNDED_DELTA_RULE(
        Inputs(q, k, v, beta, kept),
        first,
        batched=bool(batch),
        dtype=v.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=start,
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        scale=scale,
    )
    return y.astype(v.dtype), S


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `bounded_delta_rule` for a spec."""
    draw = np.random.default_rng(seed)
    B, T, H, K, V = (spec.sizes[letter] for letter in "BTHKV")
    return dict(
        q=draw.normal(size=(B, T, H, K)),
        k=draw.normal(size=(B, T, H, K)) / K**0.5,
        v=draw.normal(size=(B, T, H, V)),
        beta=draw.uniform(0, 1, (B, T, H)),
        state=0.1 * draw.normal(size=(B, H, K, V)),
    )


FILL = Inputs(0.0, 0.0, 0.0, 0.0, False)
BOUNDED_DELTA_RULE = Op(
    name="bounded_delta_rule",
    reference="2011.07831",
    structure="delta rule, normalised",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL, masked=2)),
    },
    table=(Rule("always", lambda call: True, ("sequential",)),),
    fill=FILL,
    specs=(
        Spec("small", dict(B=2, T=37, H=2, K=4, V=3)),
        Spec("long", dict(B=1, T=2048, H=2, K=16, V=16)),
    ),
    example=example,
    readers=("q",),
    apart=2,
)
