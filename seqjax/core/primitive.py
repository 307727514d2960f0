"""The diagonal linear scan as one JAX primitive: differentiable both ways through its fastest form.

    forward     h_t = a_t c_t + b_t,   c_{t+1} = h_t            c_0 = h0
    adjoint     h_t = b_t + c_t,       c_{t+1} = a_t h_t

with c_t = 0 where reset_t is set (before it is read in the forward form, after it is written in
the adjoint one), over t = 0..T-1 or, with `reverse`, over t = T-1..0.

Why a primitive: a `custom_vjp` around a loop or a kernel forbids `jax.jvp`, and with it RTRL.
The scan is linear in (b, h0); its tangent is the same scan with another drive, and its transpose is
the adjoint form run the other way:

    jvp         dh = scan(a, db + da c, dh0)
    transpose   (reverse, adjoint) -> (not reverse, not adjoint)

so three short rules close it under grad, jvp, vmap, jacfwd, linearize, checkpoint and any order.
The lowering is chosen by platform: on CPU a loop that updates its output in place (an associative
scan is 3 to 7 times slower there and uses more memory), on TPU and Hopper a Pallas kernel, on
other GPUs and in float64 on accelerators the associative scan.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from seqjax.core.common import accumulation_dtype
from seqjax.core.mesh import alike
from seqjax.core.monoid import diagonal, resettable

linear_scan_p = Primitive("linear_scan")


def linear_scan(a, b, h0, reset=None, *, reverse: bool = False, adjoint: bool = False):
    """Bind the primitive: a [N|1, T|1, D], b [N, T, D], h0 [N, D], reset bool [N|1, T] or None.

    Axes of length one are not expanded: a time-invariant decay costs no memory over time.
    Returns h [N, T, D] in at least float32 (the carry is accumulated there too).
    """
    operands = alike(a, b, h0) if reset is None else alike(a, b, h0, reset)
    return linear_scan_p.bind(*operands, reverse=reverse, adjoint=adjoint)


def _loop(a, b, h0, reset=None, *, reverse, adjoint):
    """The loop over time, for CPU: XLA runs it in place.

    Forward, the output buffer starts as b and each step overwrites its own slice, so no buffer is
    cleared first. The adjoint form uses b_t twice (in h_t and in c): there XLA would guard the
    second read by a copy of the whole buffer every step, so it writes to a buffer of its own.
    """
    T = b.shape[1]
    dtype = accumulation_dtype(a.dtype, b.dtype, h0.dtype)

    def at(x, t):
        """x[:, t] of an array whose time axis may have length one."""
        return lax.dynamic_index_in_dim(x, jnp.minimum(t, x.shape[1] - 1), 1, keepdims=False)

    def body(i, carry):
        h, c = carry
        t = T - 1 - i if reverse else i
        a_t, b_t = at(a, t).astype(dtype), at(b if adjoint else h, t)
        cut = None if reset is None else at(reset, t)[:, None]
        if adjoint:
            h_t = b_t + c
            c = a_t * h_t
            c = c if cut is None else jnp.where(cut, 0, c)
        else:
            c = c if cut is None else jnp.where(cut, 0, c)
            c = h_t = a_t * c + b_t
        return lax.dynamic_update_index_in_dim(h, h_t, t, 1), c

    b = b.astype(dtype)
    out = jnp.zeros_like(b) if adjoint else b
    return lax.fori_loop(0, T, body, (out, h0.astype(dtype)))[0]


def _tree(a, b, h0, reset=None, *, reverse, adjoint):
    """The same by `lax.associative_scan`, for accelerators that no kernel was written for."""
    dtype = accumulation_dtype(a.dtype, b.dtype, h0.dtype)
    a, b, h0 = jnp.broadcast_to(a, b.shape).astype(dtype), b.astype(dtype), h0.astype(dtype)
    flag = None if reset is None else jnp.broadcast_to(reset, b.shape[:2])
    if reverse:
        a, b, flag = jax.tree.map(lambda x: jnp.flip(x, 1), (a, b, flag))
    if adjoint:  # what the step before multiplies by and cuts, the forward form does on arrival
        a = jnp.concatenate([jnp.ones_like(a[:, :1]), a[:, :-1]], 1)
        if flag is not None:
            flag = jnp.concatenate([jnp.zeros_like(flag[:, :1]), flag[:, :-1]], 1)
    monoid, elements = diagonal, (a, b)
    if flag is not None:
        monoid, elements = resettable(diagonal, jnp.zeros((1, 1, 1), dtype)), (flag, (a, b))
    h = monoid.act(lax.associative_scan(monoid.combine, elements, axis=1), h0[:, None])
    return jnp.flip(h, 1) if reverse else h


def _tpu(a, b, h0, reset=None, *, reverse, adjoint):
    from seqjax.core.kernels import linear_scan_tpu

    run = linear_scan_tpu.linear_scan if _kernel_takes(a, b, h0) else _tree
    return run(*_same_kind(a, b, h0), reset, reverse=reverse, adjoint=adjoint)


def _cuda(a, b, h0, reset=None, *, reverse, adjoint):
    from seqjax.core.kernels import linear_scan_gpu

    run = linear_scan_gpu.linear_scan if _kernel_takes(a, b, h0) and _hopper() else _tree
    return run(*_same_kind(a, b, h0), reset, reverse=reverse, adjoint=adjoint)


def _kernel_takes(*operands) -> bool:
    dtypes = (jnp.float32, jnp.bfloat16, jnp.complex64)
    return all(x.dtype in dtypes and x.size for x in operands)


def _same_kind(a, b, h0):
    """The kernels want a and h0 complex where b is, and h0 in what is accumulated."""
    dtype = accumulation_dtype(a.dtype, b.dtype, h0.dtype)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return a, b, h0.astype(dtype)
    return a.astype(dtype), b.astype(dtype), h0.astype(dtype)


def _hopper() -> bool:
    """Whether the GPU has what the kernel is written in; assumed where none is at hand to ask."""
    if jax.default_backend() != "gpu":
        return True
    return float(getattr(jax.devices()[0], "compute_capability", 0)) >= 9


def _abstract(a, b, h0, reset=None, *, reverse, adjoint):
    del reverse, adjoint
    N, T, D = b.shape
    if (
        a.ndim != 3 or a.shape[0] not in (1, N) or a.shape[1] not in (1, T) or a.shape[2] != D
    ) or h0.shape != (N, D):
        raise ValueError(
            f"linear_scan takes a [N|1, T|1, D], b [N, T, D], h0 [N, D]; "
            f"got a {a.shape}, b {b.shape}, h0 {h0.shape}"
        )
    if reset is not None and (reset.shape not in ((1, T), (N, T)) or reset.dtype != jnp.bool_):
        raise ValueError(f"linear_scan takes reset bool [N|1, T]; got {reset.dtype} {reset.shape}")
    # as b in all else, in what mesh axes it varies over too
    return b.update(dtype=accumulation_dtype(a.dtype, b.dtype, h0.dtype), weak_type=False)


def carries(h, a, h0, reset=None, *, reverse, adjoint):
    """What a_t multiplies in the scan that gave h: c_t going forward, h_t in the adjoint form."""
    if adjoint:
        return h
    first = h0.astype(h.dtype)[:, None]
    if reverse:
        c = jnp.concatenate([h[:, 1:], first], axis=1)
    else:
        c = jnp.concatenate([first, h[:, :-1]], axis=1)
    return c if reset is None else jnp.where(reset[:, :, None], 0, c)


def _jvp(primals, tangents, *, reverse, adjoint):
    a, b, h0, *reset = primals
    da, db, dh0 = tangents[:3]
    h = linear_scan(*primals, reverse=reverse, adjoint=adjoint)
    drive = ad.instantiate_zeros(db).astype(h.dtype)
    if type(da) is not ad.Zero:
        inflow = da.astype(h.dtype) * carries(h, a, h0, *reset, reverse=reverse, adjoint=adjoint)
        if adjoint:  # h_t = b_t + a_{t'} h_{t'} at the step t' before: the inflow arrives one later
            if reset:
                inflow = jnp.where(reset[0][:, :, None], 0, inflow)
            none = jnp.zeros_like(inflow[:, :1])
            halves = (inflow[:, 1:], none) if reverse else (none, inflow[:, :-1])
            inflow = jnp.concatenate(halves, axis=1)
        drive = drive + inflow
    dh0 = ad.instantiate_zeros(dh0).astype(h0.dtype)
    return h, linear_scan(a, drive, dh0, *reset, reverse=reverse, adjoint=adjoint)


def _transpose(ct, a, b, h0, *reset, reverse, adjoint):
    if ad.is_undefined_primal(a):
        raise ValueError("linear_scan is linear in (b, h0) jointly, not in a")
    b_aval, h0_aval = (x.aval if ad.is_undefined_primal(x) else x for x in (b, h0))
    if type(ct) is ad.Zero:
        return (None, ad.Zero(b_aval), ad.Zero(h0_aval), *(None for _ in reset))
    back = linear_scan(
        a, ct, jnp.zeros_like(ct[:, 0]), *reset, reverse=not reverse, adjoint=not adjoint
    )
    ct_b = back.astype(b_aval.dtype) if ad.is_undefined_primal(b) else None
    ct_h0 = None
    if ad.is_undefined_primal(h0):
        first = -1 if reverse else 0
        ct_h0 = back[:, first]
        if not adjoint:
            ct_h0 = a[:, first if a.shape[1] > 1 else 0].astype(back.dtype) * ct_h0
            if reset:
                ct_h0 = jnp.where(reset[0][:, first, None], 0, ct_h0)
        ct_h0 = ct_h0.astype(h0_aval.dtype)
    return (None, ct_b, ct_h0, *(None for _ in reset))


def _batch(operands, axes, *, reverse, adjoint):
    """Fold a mapped axis into N; an operand that is not mapped and has N = 1 stays unexpanded."""
    size = next(x.shape[i] for x, i in zip(operands, axes, strict=True) if i is not None)
    N = operands[1].shape[0 if axes[1] is None else (1 if axes[1] == 0 else 0)]
    folded = []
    for k, (x, i) in enumerate(zip(operands, axes, strict=True)):
        shared = k in (0, 3)  # a and reset may keep N = 1
        if i is None and shared and x.shape[0] == 1:
            folded.append(x)
            continue
        x = jnp.broadcast_to(x[None], (size, *x.shape)) if i is None else jnp.moveaxis(x, i, 0)
        if x.shape[1] != N:
            x = jnp.broadcast_to(x, (size, N, *x.shape[2:]))
        folded.append(x.reshape(size * N, *x.shape[2:]))
    h = linear_scan(*folded, reverse=reverse, adjoint=adjoint)
    return h.reshape(size, N, *h.shape[1:]), 0


@partial(jax.jit, static_argnames=("reverse", "adjoint"))
def _compiled(*operands, reverse, adjoint):
    return linear_scan_p.bind(*operands, reverse=reverse, adjoint=adjoint)


def _eager(*operands, reverse, adjoint):
    """A primitive is compiled also under `jax.disable_jit`, as jax's own are."""
    with jax.disable_jit(False):
        return _compiled(*operands, reverse=reverse, adjoint=adjoint)


linear_scan_p.def_impl(_eager)
linear_scan_p.def_abstract_eval(_abstract)
ad.primitive_jvps[linear_scan_p] = _jvp
ad.primitive_transposes[linear_scan_p] = _transpose
batching.primitive_batchers[linear_scan_p] = _batch


def _alone(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The lowering to a kernel, which each device runs by itself. Where XLA divides the arrays,
    over axes of a mesh outside of `jax.shard_map`, it is the tree, which XLA can divide."""

    def lower(ctx: Any, *operands: Any, **params: Any) -> Any:
        context = ctx.module_context.axis_context
        if (manual := getattr(context, "manual_axes", None)) is not None:
            divided = {*context.mesh.axis_names} - {*manual, *context.mesh.manual_axes}
        else:
            divided = getattr(context, "num_devices", 1) != 1
        run = mlir.lower_fun(_tree if divided else kernel, multiple_results=False)
        return run(ctx, *operands, **params)

    return lower


for _platform, _lower in ((None, _loop), ("rocm", _tree)):
    mlir.register_lowering(
        linear_scan_p, mlir.lower_fun(_lower, multiple_results=False), platform=_platform
    )
for _platform, _lower in (("tpu", _tpu), ("cuda", _cuda)):
    mlir.register_lowering(linear_scan_p, _alone(_lower), platform=_platform)
