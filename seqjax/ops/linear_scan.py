"""The diagonal linear scan, the recurrence under every state-space model and gated linear RNN.

    h_t = a_t * h_{t-1} + b_t          real or complex, element-wise

(S5, arXiv:2208.04933 eq. 9; LRU, 2303.06349 eq. 4; RG-LRU, 2402.19427 eq. 4; HGRN, 2311.04823.)
`a` is the multiplier itself, not its logarithm. With `reverse` the recurrence runs from the last
step to the first, h_t = a_t * h_{t+1} + b_t, and the final state is h_1.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.mesh import loop
from seqjax.core.monoid import diagonal
from seqjax.core.scan import scan
from seqjax.core.types import Flags, Inexact
from seqjax.ops.arguments import batch_letter, full_states, match
from seqjax.ops.op import Evaluator, Op, Rule, Spec
from seqjax.ops.span import elementwise


class Inputs(NamedTuple):
    a: Any  # [T, D], or None: then [D] in the option `constant`
    b: Any  # [T, D]


def naive(
    xs: Inputs,
    h: Array,
    *,
    resets: Array | None = None,
    start: Array | None = None,
    constant: Array | None = None,
    backward: bool = False,
) -> tuple[Array, Array]:
    """The equation, one step after the other: a, b [T, D], h [D]; a [D] may be `constant`."""
    a = xs.a if constant is None else jnp.broadcast_to(constant[None], xs.b.shape)
    fresh = jnp.zeros_like(h) if start is None else start

    def step(h, now):
        a_t, b_t, reset = now
        if reset is not None:
            h = jnp.where(reset, fresh, h)
        h = a_t * h + b_t
        return h, h

    h, hs = loop(step, h, (a, xs.b, resets), reverse=backward)
    return hs, h


def by_scan(
    xs: Inputs,
    h: Array,
    *,
    resets,
    start,
    evaluator: str,
    constant: Array | None = None,
    backward: bool = False,
    chunk_size: int | None = None,
) -> tuple[Array, Array]:
    """`seqjax.core.scan` over the diagonal monoid, by the evaluator of that name."""
    a = xs.a if constant is None else jnp.broadcast_to(constant[None], xs.b.shape)
    fresh = jnp.zeros_like(h) if start is None else start
    options: dict[str, Any] = {} if chunk_size is None else {"chunk_size": chunk_size}
    return scan(
        diagonal,
        (a, xs.b),
        h,
        evaluator=evaluator,
        reverse=backward,
        resets=resets,
        start=fresh,
        **options,
    )


@takes_flow
def linear_scan(
    a: Inexact[Array, "*B T D"] | Inexact[Array, " D"],
    b: Inexact[Array, "*B T D"],
    state: Inexact[Array, "*B D"] | None = None,
    *,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Inexact[Array, "*B D"] | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Inexact[Array, "*B T D"], Inexact[Array, "*B D"]]:
    """All states h [B, T, D] and the last one processed [B, D]; the batch axis may be absent.

    a [B, T, D], or [D] if it does not change over time (then it is never expanded); b [B, T, D];
    state [B, D], zero if absent. `resets` [B, T] forgets the past before a step (the
    state becomes `start`, or zero); `mask` [B, T] leaves out the steps where it is False
    (their outputs are zero).

    >>> h, last = linear_scan(jnp.full((4, 1), 0.5), jnp.ones((4, 1)))
    >>> h[:, 0].tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    op = LINEAR_SCAN.name
    batch = batch_letter(op, "TD", b=b)
    sizes = match(op, b=(b, f"{batch}TD"))
    match(op, sizes, a=(a, "D" if getattr(a, "ndim", 0) == 1 else f"{batch}TD"))
    dtype = accumulation_dtype(*(x.dtype for x in (a, b, state) if x is not None))
    first, start = full_states(op, state, start, f"{batch}D", sizes, dtype)
    constant = a if a.ndim == 1 and mask is None else None
    if (
        a.ndim == 1 and mask is not None
    ):  # a masked step multiplies by one: now the decay does change over time
        a = jnp.broadcast_to(a.reshape((1,) * (b.ndim - 1) + a.shape), b.shape)
    hs, last = LINEAR_SCAN(
        Inputs(a if constant is None else None, b),
        first,
        batched=bool(batch),
        dtype=dtype,
        resets=resets,
        start=start,
        mask=mask,
        reverse=False,
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        constant=constant,
        backward=reverse,
    )
    narrow = jnp.issubdtype(b.dtype, jnp.floating) and not jnp.iscomplexobj(hs)
    return hs.astype(b.dtype) if narrow else hs, last


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `linear_scan` for a spec, real or complex, some steps forgetting all."""
    draw = np.random.default_rng(seed)
    B, T, D = (spec.sizes[letter] for letter in "BTD")

    def normal(*shape):
        real = draw.normal(size=shape)
        return real + 1j * draw.normal(size=shape) if spec.options.get("complex") else real

    phase = np.exp(1j * draw.uniform(-3, 3, (B, T, D))) if spec.options.get("complex") else 1.0
    a = draw.uniform(0.8, 1.0, (B, T, D)) * (draw.random((B, T, D)) > 0.02) * phase
    return dict(a=a, b=normal(B, T, D), state=normal(B, D))


LINEAR_SCAN = Op(
    name="linear_scan",
    reference="2208.04933, 2303.06349, 2402.19427",
    structure="diagonal",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(partial(by_scan, evaluator="sequential"), chunked=False),
        "associative": Evaluator(partial(by_scan, evaluator="associative"), chunked=False),
        "chunked": Evaluator(partial(by_scan, evaluator="chunked")),
        "primitive": Evaluator(partial(by_scan, evaluator="primitive"), chunked=False),
    },
    table=(Rule("everywhere: it has a form for each platform", lambda call: True, ("primitive",)),),
    fill=Inputs(1.0, 0.0),
    specs=(
        Spec("tiny", dict(B=2, T=11, D=3)),
        Spec("complex", dict(B=2, T=11, D=3), dict(complex=True)),
        Spec("rg_lru", dict(B=8, T=4096, D=256)),
        Spec("long", dict(B=8, T=65536, D=64)),
    ),
    example=example,
    span=elementwise("b"),
)
