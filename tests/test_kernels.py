"""The Pallas kernels against the loop they mean, and through the lowering of their platform.

Values come from interpret mode on the CPU: always for TPU, and from jax 0.12 on for Mosaic GPU,
whose interpreter also looks for races. `make check-kernels` compiles for the chips themselves.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from seqjax.core.kernels import linear_scan_gpu, linear_scan_tpu

interpreted_gpu = pytest.mark.skipif(
    not hasattr(plgpu, "InterpretGPUParams"),
    reason="this jax cannot interpret Mosaic GPU kernels: here they are only lowered (export)",
)


@np.errstate(invalid="ignore")  # Inf * 0, where a test wants it
def naive(a, b, h0, reset=None, *, reverse=False, adjoint=False):
    wide = np.complex128 if np.iscomplexobj(b) else np.float64
    a, b, c = (np.asarray(x).astype(wide) for x in (a, b, h0))
    N, T, _ = b.shape
    a = np.broadcast_to(a, b.shape)
    reset = np.broadcast_to(False if reset is None else reset, (N, T))
    h = np.zeros_like(b)
    for t in reversed(range(T)) if reverse else range(T):
        cut = reset[:, t, None]
        if adjoint:
            h[:, t] = b[:, t] + c
            c = np.where(cut, 0, a[:, t] * h[:, t])
        else:
            c = np.where(cut, 0, c)
            h[:, t] = c = a[:, t] * c + b[:, t]
    return h


def signature(shape, dtype="float32", a_shape=(1, 1), reset=None):
    """Types of (a, b, h0, reset); `a_shape` and `reset` say which of (N, T) those two have."""
    N, T, D = shape
    state = "complex64" if dtype == "complex64" else "float32"
    types = [((N if a_shape[0] else 1, T if a_shape[1] else 1, D), dtype), (shape, dtype)]
    types += [((N, D), state)] + [((N if reset == "each" else 1, T), "bool")] * bool(reset)
    return [jax.ShapeDtypeStruct(*x) for x in types]


def inputs(*args, **kwargs):
    rng = np.random.default_rng(0)

    def draw(x):
        if x.dtype == bool:
            return rng.random(x.shape) < 0.1
        values = rng.normal(size=x.shape)
        return values + 1j * rng.normal(size=x.shape) if x.dtype == "complex64" else values

    types = signature(*args, **kwargs)
    a, *others = map(draw, types)
    values = [0.97 * a / np.maximum(abs(a), 1), *others]
    return [jnp.asarray(x).astype(t.dtype) for x, t in zip(values, types, strict=True)]


def check(kernel, arrays, **options):
    modes = {k: v for k, v in options.items() if k in ("reverse", "adjoint")}
    h = jax.jit(functools.partial(kernel, **options))(*arrays)
    expected = naive(*arrays, **modes)
    assert h.dtype == (jnp.complex64 if np.iscomplexobj(expected) else jnp.float32)
    np.testing.assert_array_equal(np.isfinite(h), np.isfinite(expected))
    scale = np.abs(expected[np.isfinite(expected)]).max()
    np.testing.assert_allclose(h, expected, rtol=1e-6, atol=1e-6 * scale)
    return h


FORWARD, BACKWARD = dict(reverse=False), dict(reverse=True)
ADJOINT, TRANSPOSE = dict(adjoint=True), dict(reverse=True, adjoint=True)


@pytest.mark.share(4)
@pytest.mark.parametrize(
    ("shape", "dtype", "a_shape", "reset", "mode"),
    [
        ((1, 1, 1), "float32", (1, 1), None, FORWARD),
        ((1, 300, 128), "float32", (1, 1), "shared", TRANSPOSE),
        ((3, 7, 5), "float32", (1, 1), "each", BACKWARD),
        ((3, 130, 200), "float32", (1, 0), "each", ADJOINT),
        ((9, 300, 5), "float32", (0, 1), "shared", BACKWARD),
        ((9, 130, 128), "float32", (1, 1), "each", TRANSPOSE),
        ((9, 130, 200), "bfloat16", (1, 1), None, FORWARD),
        ((3, 300, 128), "bfloat16", (0, 0), "each", ADJOINT),
        ((1, 7, 200), "bfloat16", (1, 1), "shared", BACKWARD),
        ((3, 130, 5), "complex64", (1, 1), "each", TRANSPOSE),
        ((9, 7, 200), "complex64", (0, 0), None, ADJOINT),
        ((1, 300, 1), "complex64", (0, 1), "shared", FORWARD),
        ((2, 9, 1500), "float32", (1, 1), "each", FORWARD),
    ],
)
def test_tpu_kernel_is_the_loop(shape, dtype, a_shape, reset, mode):
    arrays = inputs(shape, dtype, a_shape, reset)
    check(linear_scan_tpu.linear_scan, arrays, interpret=True, **mode)


def test_tpu_carry_crosses_blocks_of_time(monkeypatch):
    """Three blocks, the last one partial, which in reverse comes first."""
    monkeypatch.setattr(linear_scan_tpu, "VMEM_BYTES", 2**21)
    arrays = inputs((2, 300, 130), reset="each")
    assert linear_scan_tpu._block((2, 300, 130), arrays[:1], arrays[1:2]) == (2, 128, 130)
    for mode in (FORWARD, TRANSPOSE):
        check(linear_scan_tpu.linear_scan, arrays, interpret=True, **mode)


@interpreted_gpu
@pytest.mark.parametrize(
    ("shape", "dtype", "a_shape", "reset", "mode", "segments"),
    [
        ((1, 1, 1), "float32", (1, 1), None, FORWARD, 1),
        ((2, 70, 130), "float32", (1, 1), "each", ADJOINT, 1),
        ((2, 40, 128), "bfloat16", (0, 1), "shared", BACKWARD, 1),
        ((2, 100, 5), "float32", (1, 1), "each", BACKWARD, 2),
        ((1, 40, 5), "complex64", (0, 0), "each", ADJOINT, 2),
    ],
)
def test_gpu_kernel_is_the_loop_without_races(shape, dtype, a_shape, reset, mode, segments):
    arrays = inputs(shape, dtype, a_shape, reset)
    interpret = plgpu.InterpretGPUParams(detect_races=True)
    kernel = functools.partial(linear_scan_gpu.linear_scan, segments=segments)
    check(kernel, arrays, interpret=interpret, **mode)


def poisoned(cut):
    """NaN in b, Inf in a, and one reset: only the steps on its near side may show them."""
    a, b, h0, reset = inputs((1, 70, 5), reset="shared")
    a, b = a.at[0, 33, 0].set(jnp.inf), b.at[0, 20, 0].set(jnp.nan)
    a = a.at[0, cut, 1].set(jnp.inf)  # which the adjoint must not see either
    return a, b, h0, jnp.zeros_like(reset).at[0, cut].set(True)


def check_reset_selects(kernel, **options):
    for mode, cut in [(FORWARD, 40), (ADJOINT, 40), (BACKWARD, 10)]:
        h = check(kernel, poisoned(cut), **mode, **options)[0, :, 0]
        near, far = (h[20:33], h[:10]) if mode is BACKWARD else (h[34:40], h[41:])
        assert not jnp.isfinite(near).any() and jnp.isfinite(far).all()


def test_reset_selects_on_tpu():
    check_reset_selects(linear_scan_tpu.linear_scan, interpret=True)


@interpreted_gpu
def test_reset_selects_between_segments_on_gpu():
    kernel = functools.partial(linear_scan_gpu.linear_scan, segments=3)
    check_reset_selects(kernel, interpret=plgpu.InterpretGPUParams())


@interpreted_gpu
def test_growing_segments_do_not_invent_nan_on_gpu():
    """3^96 overflows float32, but nothing is there to grow before the last step."""
    a, b = jnp.full((1, 192, 1), 3.0, jnp.float32), jnp.zeros((1, 192, 1), jnp.float32)
    arrays = a, b.at[0, -1].set(1.0), jnp.zeros((1, 1), jnp.float32)
    kernel = functools.partial(linear_scan_gpu.linear_scan, segments=2)
    check(kernel, arrays, interpret=plgpu.InterpretGPUParams())


def test_gpu_segments_only_where_processors_are_idle():
    assert linear_scan_gpu._segments(programs=64, tiles=1000) == 1
    assert linear_scan_gpu._segments(programs=16, tiles=2048) == 8
    assert linear_scan_gpu._segments(programs=2, tiles=2048) == 66
    assert linear_scan_gpu._segments(programs=1, tiles=5) == 1


@pytest.mark.share(3)
@pytest.mark.parametrize("mode", [FORWARD, BACKWARD, ADJOINT, TRANSPOSE])
@pytest.mark.parametrize(
    ("shape", "dtype", "a_shape", "reset"),
    [
        ((8, 4096, 1024), "float32", (1, 1), None),
        ((9, 1000, 600), "bfloat16", (0, 1), "shared"),
        ((4, 300, 1500), "complex64", (1, 0), "each"),
        ((1, 4096, 130), "float32", (1, 1), "shared"),
    ],
)
def test_lowers_for_tpu_and_cuda(shape, dtype, a_shape, reset, mode):
    arrays = signature(shape, dtype, a_shape, reset)
    for platform, module, call in [
        ("tpu", linear_scan_tpu, "tpu_custom_call"),
        ("cuda", linear_scan_gpu, "mosaic_gpu_v2"),
    ]:
        kernel = jax.jit(functools.partial(module.linear_scan, **mode))
        accepted = [jax.export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")]
        exported = jax.export.export(kernel, platforms=[platform], disabled_checks=accepted)(
            *arrays
        )
        (out,) = exported.out_avals
        assert out.shape == shape
        assert out.dtype == ("complex64" if dtype == "complex64" else "float32")
        assert call in exported.mlir_module()
