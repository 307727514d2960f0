"""The diagonal linear scan as Pallas kernels for NVIDIA Hopper (Mosaic GPU).

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

Parallelism. One program (a warpgroup of 128 threads) owns 128 channels of one batch row, one
channel a thread, and walks over time; the carry stays in a register. Tiles of `a` and `b` arrive
in shared memory through the tensor memory accelerator, two tiles ahead of the arithmetic, and
tiles of `h` leave the same way, so `a`, `b` and `h` cross device memory once. That fills the chip
when N * D / 128 is of the order of its 132 multiprocessors. With far fewer programs time is cut
into segments: a first pass folds each segment into one affine map, a scan over these maps gives
every segment its initial carry, and a second pass runs all segments at once. That moves 5/3 of
the bytes, and is done where it occupies at least four times the processors. (Both figures are
counted, not timed: the kernel is compiled for the H100 and H200, and interpreted.)
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

CHANNELS = 128  # one warpgroup, one channel a thread
STAGES = 3  # input tiles in shared memory: one in use, two on their way
TILE_BYTES = 16 * 2**10  # of one float32 tile of `h`, re and im together
PROCESSORS = 132  # multiprocessors of an H100 or H200
MIN_TILES = 8  # tiles in the shortest segment worth a second pass
UNROLL = 8
MAX_FLOAT = float(jnp.finfo(jnp.float32).max)


def linear_scan(
    a: jax.Array,  # [N or 1, T or 1, D]  float32, bfloat16 or complex64
    b: jax.Array,  # [N, T, D]
    h0: jax.Array,  # [N, D]               float32 or complex64
    reset: jax.Array | None = None,  # [N or 1, T]  bool
    *,
    reverse: bool = False,
    adjoint: bool = False,
    segments: int | None = None,
    interpret: Any = None,
) -> jax.Array:  # [N, T, D]  float32 or complex64
    """All states of the recurrence in the module's docstring; `a` is complex where `b` is.

    Axes of length one in `a` are broadcast by indexing, never in memory. `segments` cuts the time
    axis (chosen from the shape if None); `interpret` is handed to `plgpu.kernel`.
    """
    N, T, D = b.shape
    is_complex = jnp.issubdtype(b.dtype, jnp.complexfloating)

    def split(x):  # Pallas has no complex numbers
        return _align((jnp.real(x), jnp.imag(x)) if is_complex else (x,))

    def join(parts):
        return (lax.complex(*parts) if is_complex else parts[0])[..., :D]

    tile = TILE_BYTES // (4 * CHANNELS * (1 + is_complex))
    tiles = pl.cdiv(T, tile)
    if segments is None:
        segments = _segments(N * pl.cdiv(D, CHANNELS), tiles)
    span = pl.cdiv(tiles, segments)
    segments = pl.cdiv(tiles, span)
    words = None if reset is None else _pack_tiles(reset, tile)
    run = functools.partial(
        _run,
        split(a),
        split(b),
        words,
        steps=T,
        tile=tile,
        segments=segments,
        span=span,
        reverse=reverse,
        adjoint=adjoint,
        interpret=interpret,
    )
    start = h0[:, None]
    if segments > 1:
        maps = run(None)
        offset, factor = maps[: len(maps) // 2], maps[len(maps) // 2 :]
        # Where |a| > 1 a segment's factor may overflow: keep Inf * 0 from making a NaN of rest.
        factor = [jnp.clip(x, -MAX_FLOAT, MAX_FLOAT) for x in factor]
        cut = None if words is None else _any_reset(words, segments, span, reverse)
        ends = linear_scan(join(factor), join(offset), h0, cut, segments=1, interpret=interpret)
        start = jnp.concatenate([start, ends[:, :-1]], 1)
    return join(run(split(start)))


def _segments(programs: int, tiles: int) -> int:
    if 4 * programs > PROCESSORS:
        return 1
    return max(1, min(PROCESSORS // programs, tiles // MIN_TILES))


def _align(parts):
    """Pad the channels so that rows are whole 16-byte units, as the copy engine needs."""
    pad = -parts[0].shape[-1] % (16 // parts[0].dtype.itemsize)
    if not pad:
        return parts
    return tuple(jnp.pad(x, ((0, 0), (0, 0), (0, pad))) for x in parts)


def _pack_tiles(reset: jax.Array, tile: int) -> jax.Array:
    """bool [N or 1, T] -> int32 [N or 1, T / tile]: bit i of a word is the flag of row i."""
    n, T = reset.shape
    tiles = pl.cdiv(T, tile)
    flags = jnp.pad(reset, ((0, 0), (0, tiles * tile - T))).reshape(n, tiles, tile)
    bit = lax.broadcasted_iota(jnp.int32, flags.shape, 2)
    return jnp.sum(flags.astype(jnp.int32) << bit, 2, dtype=jnp.int32)


def _any_reset(words: jax.Array, segments: int, span: int, reverse: bool) -> jax.Array:
    """bool [N or 1, segments], in the order of the recurrence."""
    words = words[:, ::-1] if reverse else words
    words = jnp.pad(words, ((0, 0), (0, segments * span - words.shape[1])))
    return jnp.any(words.reshape(words.shape[0], segments, span) != 0, 2)


def _multiply(x, y):
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _divmod(x: jax.Array, n: int):
    return lax.div(x, jnp.int32(n)), lax.rem(x, jnp.int32(n))


def _run(a, b, words, start, *, steps, tile, segments, span, reverse, adjoint, interpret):
    """One launch over (row, segment, 128 channels); a segment is `span` tiles.

    With `start` [N, segments, D], the carry entering each segment, returns the parts of `h`.
    With None returns the parts of (offset, factor) [N, segments, D], what each segment does to
    its carry: carry out = factor * carry in + offset.
    """
    N, _, D = b[0].shape
    parts, fixed, fold = len(b), a[0].shape[1] == 1, start is None
    blocks, tiles = pl.cdiv(D, CHANNELS), pl.cdiv(steps, tile)
    streams = b if fixed else a + b  # what comes tile by tile, and what comes once
    constants = (() if fold else start) + (a if fixed else ())
    row = jax.ShapeDtypeStruct((CHANNELS,), jnp.float32)
    out_shape = (N, segments, D) if fold else b[0].shape
    out_block = (CHANNELS,) if fold else (2, tile, CHANNELS)
    outs = parts * (1 + fold)

    def body(*refs):
        refs = iter(refs)
        stream_refs = [next(refs) for _ in streams]
        constant_refs = [next(refs) for _ in constants]
        word_ref = None if words is None else next(refs)
        out_refs = [next(refs) for _ in range(outs)]
        stream_smem, constant_smem, out_smem, arrived, ready = refs

        program, block = _divmod(lax.axis_index("program"), blocks)
        n, segment = _divmod(program, segments)
        channels = pl.ds(block * CHANNELS, CHANNELS)

        def batch(ref):
            return ref.at[n if ref.shape[0] > 1 else 0]

        first = segment * span  # tiles are counted in the order of the recurrence
        count = jnp.minimum(span, tiles - first)

        def place(i):  # of the i-th tile of this segment in the arrays
            return tiles - 1 - (first + i) if reverse else first + i

        def fetch(i):
            rows = pl.ds(place(i) * tile, tile)
            _, slot = _divmod(i, STAGES)
            for source, target in zip(stream_refs, stream_smem, strict=True):
                plgpu.copy_gmem_to_smem(
                    batch(source).at[rows, channels], target.at[slot], arrived.at[slot]
                )

        for i in range(STAGES):
            pl.when(i < count)(functools.partial(fetch, jnp.int32(i)))
        for source, target in zip(constant_refs, constant_smem, strict=True):
            line = segment if source.shape[1] == segments else 0
            plgpu.copy_gmem_to_smem(batch(source).at[line, channels], target, ready)
        if constants:
            plgpu.barrier_wait(ready)
        lines = [ref[...].astype(jnp.float32) for ref in constant_smem]
        a_line = lines[len(lines) - parts :]
        if fold:
            zero, one = jnp.zeros(row.shape, row.dtype), jnp.ones(row.shape, row.dtype)
            carry = (zero,) * parts + (one, zero)[:parts]
        else:
            carry = tuple(lines[:parts])

        def step(x, y, forget, carry):
            """One row of the loop in the module's docstring; with `fold`, of the factor too."""

            def cut(carry):
                if forget is None:
                    return carry
                gone = jnp.broadcast_to(forget, row.shape)
                return tuple(jnp.where(gone, jnp.zeros_like(c), c) for c in carry)

            carry = carry if adjoint else cut(carry)
            c, factor = carry[:parts], carry[parts:]
            if adjoint:
                h = tuple(u + v for u, v in zip(y, c, strict=True))
                c = _multiply(x, h)
            else:
                h = c = tuple(u + v for u, v in zip(_multiply(x, c), y, strict=True))
            carry = c + (_multiply(x, factor) if fold else ())
            return h, cut(carry) if adjoint else carry

        def advance(i, carry):  # through one tile
            (_, slot), (_, half) = _divmod(i, STAGES), _divmod(i, 2)
            word = None if words is None else batch(word_ref)[place(i)]
            plgpu.barrier_wait(arrived.at[slot])
            if not fold:  # the half of `out_smem` about to be written was stored two tiles ago
                plgpu.wait_smem_to_gmem(1, wait_read_only=True)
            valid = jnp.minimum(tile, steps - place(i) * tile)

            def group(size, at, carry):  # rows at, ..., at + size - 1 of the tile, in order
                where = [valid - 1 - (at + k) if reverse else at + k for k in range(size)]
                loaded = [[ref[slot, t].astype(jnp.float32) for ref in stream_smem] for t in where]
                results = []
                for t, line in zip(where, loaded, strict=True):
                    x, y = (a_line if fixed else line[:parts]), line[-parts:]
                    h, carry = step(x, y, None if word is None else (word >> t) & 1 == 1, carry)
                    results.append(h)
                if not fold:
                    for t, h in zip(where, results, strict=True):
                        for ref, value in zip(out_smem, h, strict=True):
                            ref[half, t] = value
                return carry

            whole, _ = _divmod(valid, UNROLL)
            carry = lax.fori_loop(
                jnp.int32(0), whole, lambda g, c: group(UNROLL, g * UNROLL, c), carry
            )
            carry = lax.fori_loop(whole * UNROLL, valid, lambda k, c: group(1, k, c), carry)

            plgpu.commit_smem()
            if not fold:
                rows = pl.ds(place(i) * tile, tile)
                for source, target in zip(out_smem, out_refs, strict=True):
                    plgpu.copy_smem_to_gmem(
                        source.at[half], target.at[n, rows, channels], commit_group=False
                    )
                plgpu.commit_smem_to_gmem_group()
            pl.when(i + STAGES < count)(lambda: fetch(i + STAGES))
            return carry

        carry = lax.fori_loop(jnp.int32(0), count, advance, carry)
        if fold:
            for ref, value in zip(out_smem, carry, strict=True):
                ref[...] = value
            plgpu.commit_smem()
            for source, target in zip(out_smem, out_refs, strict=True):
                plgpu.copy_smem_to_gmem(source, target.at[n, segment, channels])
        plgpu.wait_smem_to_gmem(0)

    return plgpu.kernel(
        body,
        out_type=[jax.ShapeDtypeStruct(out_shape, jnp.float32)] * outs,
        scratch_types=[
            [plgpu.SMEM((STAGES, tile, CHANNELS), x.dtype) for x in streams],
            [plgpu.SMEM((CHANNELS,), x.dtype) for x in constants],
            [plgpu.SMEM(out_block, jnp.float32)] * outs,
            plgpu.Barrier(num_arrivals=len(streams), num_barriers=STAGES),
            plgpu.Barrier(num_arrivals=max(1, len(constants))),
        ],
        grid=(N * segments * blocks,),
        grid_names=("program",),
        compiler_params=plgpu.CompilerParams(
            # Every thread reads and writes its own channel; the copies are ordered explicitly.
            unsafe_no_auto_barriers=True,
            lowering_semantics=plgpu.LoweringSemantics.Warpgroup,
        ),
        kernel_name="linear_scan",
        interpret=interpret,
    )(*streams, *constants, *(() if words is None else (words,)))
