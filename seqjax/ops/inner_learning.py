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

"naive" is the equations, "chunked" the dual form (`seqjax.ops.inner_dual`), of the same function.

The slow weights (W at the start, the norm of the loss) are trained through all of this, gradients
of gradients included. Everything is computed in at least float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.flow import Carry, Flow, takes_flow
from seqjax.core.mesh import loop
from seqjax.core.types import Flags, Float
from seqjax.ops.arguments import batch_letter, check_real, match
from seqjax.ops.chunks import sequential
from seqjax.ops.inner_dual import by_part
from seqjax.ops.inner_model import Inner, Learner, Steps, fold, weights, where
from seqjax.ops.op import Evaluator, Op, Rule, Spec
from seqjax.ops.positions import places
from seqjax.ops.segments import SegmentState, Window, scan_segments


def over_heads(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """An evaluator of the op from evaluate(inner, xs, last, norm, h, flow) for one head."""

    def run(
        xs: Steps, h: Learner, *, inner: Inner, norm: Any, resets: Any = None, start: Any = None
    ) -> Any:
        flow, start = Flow(resets, xs.mask), h if start is None else start
        place, count = places(h.count, len(xs.q), size=inner.size, resets=resets, mask=xs.mask)
        last = place == inner.size - 1
        last = last if xs.mask is None else last & xs.mask

        def head(xs: Steps, norm: Any, h: Carry) -> Any:
            return evaluate(inner, xs, last, norm, h, flow)

        carry = Carry(h._replace(count=None), start._replace(count=None))
        heads = jax.vmap(head, in_axes=(1, 0, 0), out_axes=(1, 0))
        y, new = heads(xs._replace(mask=None), norm, carry)
        return y, new._replace(count=count)

    return run


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

    end, y = loop(step, h.now, (xs, last, flow.resets, flow.mask))
    return y, end


# ---- the op -------------------------------------------------------------------------------------


naive = over_heads(by_steps)


in_one_window = over_heads(by_part)


def chunked(xs: Steps, h: Learner, *, resets: Any, start: Learner, **options: Any) -> Any:
    """The dual form, one window of the chunks after the other."""

    def body(h: Learner, xs: Steps, _: Any, window: Window) -> tuple[Array, Learner]:
        flow = window.flow
        return in_one_window(xs._replace(mask=flow.mask), h, resets=flow.resets, **options)

    fresh = jnp.zeros((), jnp.int32)
    y, end = scan_segments(
        body,
        xs._replace(mask=None),
        (),
        SegmentState(h, (), h.count),
        length=options["inner"].size,
        start=SegmentState(start._replace(count=fresh), (), fresh),
        resets=resets,
        mask=xs.mask,
    )
    return y, end.memory


@takes_flow
def inner_learning(
    q: Float[Array, "*B T H D"],
    k: Float[Array, "*B T H D"],
    v: Float[Array, "*B T H D"],
    theta: Float[Array, "*B T H"],
    state: Learner,
    *,
    inner: Inner,
    norm: tuple[Array, Array] | None = None,
    tau: Float[Array, "*B T H"] | None = None,
    log_eta: Float[Array, "*B T H"] | None = None,
    log_keep: Float[Array, "*B T H"] | None = None,
    resets: Flags | None = None,
    mask: Flags | None = None,
    start: Learner | None = None,
    reverse: bool = False,
    evaluator: str | Sequence[str] | None = None,
    chunk_size: int | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, "*B T H D"], Learner]:
    """Outputs [B, T, H, D] and the next `Learner`; the batch axis may be absent.

    q, k, v [B, T, H, D]; theta, tau, log_eta <= 0 and log_keep <= 0 [B, T, H]. inner: the model and
    its chunks, of `inner.size` steps; norm: weight and bias [H, D] of the loss's and the output's,
    if they have one. state: of `start_of`, with momentum and decay if log_eta and log_keep are
    there. `resets` [B, T] forgets the past before a step (the state becomes `start`, or the one
    given first), `mask` [B, T] leaves out the steps where it is False, `reverse` runs from the last
    step to the first. Raises ValueError for shapes that do not fit, and TypeError for what is no
    array.

    >>> from seqjax.ops.inner_model import Inner, start_of
    >>> x, W = jnp.ones((4, 1, 1)), (jnp.zeros((1, 1, 1)),)  # one weight, which learns 3 from 1
    >>> inner = Inner(1, "regression", "plain", bias=False)
    >>> state = start_of(W, momentum=False, decay=False)
    >>> y, _ = inner_learning(x, x, 3 * x, jnp.full((4, 1), 0.5), state, inner=inner)
    >>> y[:, 0, 0].tolist()
    [1.5, 2.25, 2.625, 2.8125]
    """
    op = INNER_LEARNING.name
    batch = batch_letter(op, "THD", q=q)
    steps, rates = f"{batch}THD", f"{batch}TH"
    match(
        op,
        q=(q, steps),
        k=(k, steps),
        v=(v, steps),
        theta=(theta, rates),
        tau=(tau, f"{rates}?"),
        log_eta=(log_eta, f"{rates}?"),
        log_keep=(log_keep, f"{rates}?"),
    )
    check_real(op, q=q, k=k, v=v, theta=theta, tau=tau, log_eta=log_eta, log_keep=log_keep)
    if not isinstance(state, Learner):
        raise TypeError(f"{op}: state is {state!r:.40}, expected a Learner, see start_of")
    for name, part, given in (("log_eta", "m", log_eta), ("log_keep", "d", log_keep)):
        if (given is None) != (getattr(state, part) is None):
            raise ValueError(f"{op}: {name} goes with state.{part}, expected both or neither")

    def full(h: Learner) -> Learner:
        if not batch or h.W[0].ndim == 4:
            return h
        return jax.tree.map(lambda s: jnp.broadcast_to(s[None], (len(q), *s.shape)), h)

    y, end = INNER_LEARNING(
        Steps(q, k, v, theta, tau, log_eta, log_keep, mask),
        full(state),
        batched=bool(batch),
        dtype=q.dtype,
        resets=resets,
        mask=mask,
        reverse=reverse,
        start=full(state if start is None else start),
        evaluator=evaluator,
        chunk_size=chunk_size,
        axis=axis,
        inner=inner,
        norm=norm,
    )
    return y.astype(q.dtype), end


def example(spec: Spec, seed: int) -> dict[str, Any]:
    """Arguments of `inner_learning` for a spec, with momentum and decay: a linear model, or one
    with a hidden layer of F; the state is inside a chunk of C steps."""
    draw = np.random.default_rng(seed)
    B, T, H, D = (spec.sizes[letter] for letter in "BTHD")
    size, F = spec.sizes.get("C", 5), spec.sizes.get("F")
    widths = (D, D) if F is None else (D, F, D)
    shapes = [(B, H, n + 1, m) for n, m in zip(widths, widths[1:])]

    def unit(*shape: int) -> np.ndarray:
        x = draw.normal(size=shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def some() -> tuple[np.ndarray, ...]:
        return tuple(draw.normal(size=shape) / shape[2] ** 0.5 for shape in shapes)

    W, U, m, d = some(), some(), some(), draw.uniform(0.5, 1, (B, H))
    U = tuple(0.1 * u for u in U)
    m = tuple(0.1 * z for z in m)
    return dict(
        q=draw.normal(size=(B, T, H, D)),
        k=unit(B, T, H, D),
        v=draw.normal(size=(B, T, H, D)),
        theta=draw.uniform(0, 1 / size, (B, T, H)),
        log_eta=np.log(draw.uniform(0.1, 0.9, (B, T, H))),
        log_keep=np.log(draw.uniform(0.8, 1, (B, T, H))),
        state=Learner(W, U, m, d, np.full(B, size // 2, np.int32)),
        inner=Inner(size, loss="regression", output="plain"),
    )


FILL = Steps(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False)
INNER_LEARNING = Op(
    name="inner_learning",
    reference="2407.04620, 2501.00663",
    structure="gradient step of an inner model",
    naive=naive,
    evaluators={
        "naive": Evaluator(naive, chunked=False),
        "sequential": Evaluator(sequential(naive, FILL, masked=1)),
        "chunked": Evaluator(chunked, chunked=False),
    },
    table=(Rule("always", lambda call: True, ("chunked",)),),
    fill=FILL,
    specs=(
        Spec("linear", dict(B=2, T=37, H=2, D=4, C=5)),
        Spec("mlp", dict(B=2, T=37, H=2, D=4, C=5, F=6)),
        Spec("long", dict(B=1, T=2048, H=4, D=16, C=64)),
    ),
    example=example,
    readers=("q",),
    grouped=False,
    apart=1,
)
