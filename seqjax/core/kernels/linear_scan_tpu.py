"""The diagonal linear scan as one Pallas kernel for TPU.

Meaning, element by element over `[N, T, D]` (the loop every other form is compared to)::

    c = h0                                        # [N, D]
    for t in (range(T) if not reverse else reversed(range(T))):
        if adjoint:
            h[t] = b[t] + c
            c = where(reset[t], 0, a[t] * h[t])
        else:
            c = where(reset[t], 0, c)
            h[t] = c = a[t] * c + b[t]

The transpose of `(reverse, adjoint)` in `b` is `(not reverse, not adjoint)`, so this one kernel
serves value, tangent and cotangent. A reset selects: nothing before it is multiplied into what
comes after, so a NaN or Inf stays on its side.

Shape of the work. The grid is (blocks of N, blocks of D, blocks of T); the time axis is
sequential and the carry lives in VMEM between its blocks, so every element of `a`, `b` and `h`
crosses HBM exactly once. Inside a block the loop walks over the rows of time. A row of up to 1024
channels is read by a strided load with 128 channels on each of the eight sublanes, and several
batch rows advance together, so the vector unit works on full registers and has independent
chains to overlap. The arithmetic is the naive loop's own, in its order, in float32: no products
of decays are formed.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
MAX_CHANNELS = 8 * LANES  # in one row: a full register
ROW_ELEMENTS = 2 * MAX_CHANNELS  # batch rows times channels advanced together
VMEM_BYTES = 12 * 2**20  # for all double-buffered blocks; the compiler's least limit is 16 MiB
UNROLL = 8


def linear_scan(
    a: jax.Array,  # [N or 1, T or 1, D]  float32, bfloat16 or complex64
    b: jax.Array,  # [N, T, D]
    h0: jax.Array,  # [N, D]               float32 or complex64
    reset: jax.Array | None = None,  # [N or 1, T]  bool
    *,
    reverse: bool = False,
    adjoint: bool = False,
    interpret: Any = False,
) -> jax.Array:  # [N, T, D]  float32 or complex64
    """All states of the recurrence in the module's docstring; `a` is complex where `b` is.

    Axes of length one in `a` are broadcast by the index map, never in memory. `interpret` is
    handed to `pallas_call`.
    """
    N, T, D = b.shape
    is_complex = jnp.issubdtype(b.dtype, jnp.complexfloating)

    def split(x):  # Pallas has no complex numbers
        return (jnp.real(x), jnp.imag(x)) if is_complex else (x,)

    a_parts, b_parts, h0_parts = split(a), split(b), split(h0[:, None])
    parts = len(b_parts)
    rows, steps, channels = _block(b.shape, a_parts, b_parts)
    grid = (pl.cdiv(N, rows), pl.cdiv(D, channels), pl.cdiv(T, steps))

    def time(k):  # blocks are visited in the order of the recurrence
        return grid[2] - 1 - k if reverse else k

    def block(shape):
        return (min(rows, shape[0]), min(steps, shape[1]), channels)

    def spec(shape):  # an axis of length one stays where it is
        n, t = int(shape[0] > 1), int(shape[1] > 1)
        return pl.BlockSpec(block(shape), lambda i, j, k: (i * n, time(k) * t, j))

    scratch = [pltpu.VMEM((rows, channels), jnp.float32)] * parts
    if a.shape[1] > 1 and a_parts[0].dtype != jnp.float32:
        scratch += [pltpu.VMEM(block(a.shape), jnp.float32)] * parts
    operands = [*a_parts, *b_parts, *h0_parts]
    in_specs = [spec(x.shape) for x in operands]
    if reset is not None:
        operands.append(_pack(jnp.broadcast_to(reset, (N, T)), rows))
        in_specs.append(
            pl.BlockSpec(
                (1, 1, steps), lambda i, j, k: (i, j * 0, time(k)), memory_space=pltpu.SMEM
            )
        )
    h = pl.pallas_call(
        functools.partial(
            _kernel,
            parts=parts,
            length=T,
            has_reset=reset is not None,
            reverse=reverse,
            adjoint=adjoint,
        ),
        grid=grid,
        in_specs=in_specs,
        out_specs=[spec(b.shape)] * parts,
        out_shape=[jax.ShapeDtypeStruct(b.shape, jnp.float32)] * parts,
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
        name="linear_scan",
    )(*operands)
    return lax.complex(*h) if is_complex else h[0]


def _block(shape, a_parts, b_parts) -> tuple[int, int, int]:
    """(rows, steps, channels) of one block of `b`; whole axes where they are short."""
    N, T, D = shape
    channels = D
    if D > MAX_CHANNELS:  # as even as whole registers allow
        channels = pl.cdiv(pl.cdiv(D, pl.cdiv(D, MAX_CHANNELS)), LANES) * LANES
    width = pl.cdiv(channels, LANES) * LANES
    rows = min(N, max(1, ROW_ELEMENTS // width))
    bytes_per_element = sum(2 * x.dtype.itemsize for x in (*a_parts, *b_parts))
    bytes_per_element += len(b_parts) * 8  # h, double-buffered too
    bytes_per_element += sum(4 for x in a_parts if x.dtype != jnp.float32)
    steps = VMEM_BYTES // (bytes_per_element * rows * width) // LANES * LANES
    return rows, min(T, steps), channels


def _pack(reset: jax.Array, rows: int) -> jax.Array:
    """bool [N, T] -> int32 [N / rows, 1, T]: bit i of a word is the flag of row i of the block."""
    N, T = reset.shape
    groups = pl.cdiv(N, rows)
    flags = jnp.pad(reset, ((0, groups * rows - N), (0, 0))).reshape(groups, rows, T)
    bit = lax.broadcasted_iota(jnp.int32, flags.shape, 1)
    return jnp.sum(flags.astype(jnp.int32) << bit, 1, keepdims=True, dtype=jnp.int32)


def _multiply(x, y):
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _kernel(*refs, parts, length, has_reset, reverse, adjoint):
    refs = iter(refs)
    a_refs, b_refs, h0_refs = ([next(refs) for _ in range(parts)] for _ in range(3))
    word_ref = next(refs) if has_reset else None
    h_refs, carry_refs = ([next(refs) for _ in range(parts)] for _ in range(2))
    wide_refs = list(refs)
    rows, steps, channels = h_refs[0].shape
    block, blocks = pl.program_id(2), pl.num_programs(2)

    @pl.when(block == 0)
    def _():
        for carry, h0 in zip(carry_refs, h0_refs, strict=True):
            carry[...] = h0[:, 0].astype(jnp.float32)

    # One row of a packed bfloat16 tile cannot be addressed, so whole blocks are widened first;
    # `b` is widened into `h`, where each row is read just before it is overwritten.
    for wide, a in zip(wide_refs, a_refs, strict=False):
        wide[...] = a[...].astype(jnp.float32)
    a_refs = wide_refs or a_refs
    if b_refs[0].dtype != jnp.float32:
        for h, b in zip(h_refs, b_refs, strict=True):
            h[...] = b[...].astype(jnp.float32)
        b_refs = h_refs

    valid = jnp.int32(steps)
    if length % steps:  # the block at the end of time is partial; in reverse it comes first
        start = (blocks - 1 - block if reverse else block) * steps
        valid = jnp.minimum(valid, length - start)
    bit = lax.broadcasted_iota(jnp.int32, (rows, channels), 0)

    def row(ref, t):
        return ref[:, t if ref.shape[1] > 1 else 0].astype(jnp.float32)

    def step(s, carry):
        t = valid - 1 - s if reverse else s
        a, b = ([row(ref, t) for ref in group] for group in (a_refs, b_refs))

        def forget(carry):
            if word_ref is None:
                return carry
            keep = (word_ref[0, 0, t] >> bit) & 1 == 0
            return tuple(jnp.where(keep, c, 0.0) for c in carry)

        if adjoint:
            h = tuple(x + c for x, c in zip(b, carry, strict=True))
            carry = forget(_multiply(a, h))
        else:
            h = tuple(x + y for x, y in zip(_multiply(a, forget(carry)), b, strict=True))
            carry = h
        for ref, x in zip(h_refs, h, strict=True):
            ref[:, t] = x
        return carry

    def unrolled(g, carry):
        for k in range(UNROLL):
            carry = step(g * UNROLL + k, carry)
        return carry

    whole = lax.div(valid, jnp.int32(UNROLL))
    carry = tuple(ref[...] for ref in carry_refs)
    carry = lax.fori_loop(jnp.int32(0), whole, unrolled, carry)
    carry = lax.fori_loop(whole * UNROLL, valid, step, carry)
    for ref, c in zip(carry_refs, carry, strict=True):
        ref[...] = c
