"""The error table: every way to compute, against the naive loop in float64, on the user's device.

Each evaluator of each op, and of `scan` over each algebra, runs in each dtype at named shapes and
at a long T; its outputs, final state and gradients are compared to the meaning: the naive loop, in
float64, of the same rounded inputs. The error of an array is max |x - oracle| / max |oracle|, and
the largest over the arrays is shown. It passes up to

    tolerance = 2 eps of the dtype + 16 sqrt(T) eps of the dtype it accumulates in

the roundings of what goes in and comes out, and the random walk of T roundings in between; 16 is
the conditioning granted to the worst op (stabilised attention divides by a sum that may be small).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from tyro.conf import Positional

import seqjax
from seqjax import ops
from seqjax.core import monoid as m
from seqjax.core.common import accumulation_dtype, unknown
from seqjax.core.monoid import Monoid
from seqjax.core.scan import EVALUATORS, scan
from seqjax.ops.op import Call, Op, Spec
from seqjax.tools.screen import announce, print_json, print_table
from seqjax.train.record import environment

SHORT, LONG = 64, 2048  # steps: all evaluators run up to SHORT, the long T is at least LONG
# what a kernel leaves in a lowered program -> what it is
KERNELS = {"mosaic_gpu": "Mosaic GPU kernel", "tpu_custom_call": "Pallas TPU kernel"}


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    what: str  # an op, or "scan"
    case: str  # a Spec of the op, or the algebra
    steps: int
    evaluator: str
    dtype: str
    form: str  # what ran: "XLA", or the kernel that the primitive chose
    value: float  # error of outputs and final state
    gradient: float  # error of the gradients with respect to all inputs
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.value <= self.tolerance and self.gradient <= self.tolerance  # a NaN does not


@dataclass(frozen=True, eq=False)
class Problem:
    """Float64 inputs, and what evaluators compute of them."""

    what: str
    case: str
    steps: int
    inputs: Any
    run: Callable[[Any, str], Any]  # (inputs, evaluator) -> outputs
    evaluators: tuple[str, ...]
    oracle: str
    dtypes: tuple[str, ...]


def tolerance(steps: int, dtype: str) -> float:
    """The largest error that passes; written once, here."""
    eps = [float(jnp.finfo(d).eps) for d in (dtype, accumulation_dtype(dtype))]
    return 2 * eps[0] + 16 * math.sqrt(steps) * eps[1]


def solve(problem: Problem) -> Iterator[Check]:
    """All evaluators in all dtypes."""
    oracle = _program(problem, problem.oracle)
    for dtype in problem.dtypes:
        inputs = _rounded(problem.inputs, dtype)
        signs = _signs(problem, inputs)
        with jax.enable_x64(True), jax.default_device(_host()):
            expected = oracle(_rounded(inputs, "float64"), signs)
            expected = jax.tree.map(np.asarray, expected)
        for evaluator in problem.evaluators:
            with jax.enable_x64(dtype == "float64" or _wide()):
                lowered = _program(problem, evaluator).lower(inputs, signs)
                text = lowered.as_text()
                found = lowered.compile()(inputs, signs)
            value, gradient = map(_error, found, expected)
            form = next((kernel for mark, kernel in KERNELS.items() if mark in text), "XLA")
            shown = [str(x.dtype) for x in jax.tree.leaves(inputs) if np.iscomplexobj(x)] + [dtype]
            yield Check(
                problem.what,
                problem.case,
                problem.steps,
                evaluator,
                shown[0],
                form,
                value,
                gradient,
                tolerance(problem.steps, dtype),
            )


def _program(problem: Problem, evaluator: str) -> Any:
    """(inputs, signs) -> (outputs, gradients of the sum of the outputs with these signs)."""

    def loss(inputs, signs):
        outputs = problem.run(inputs, evaluator)
        return sum(map(_signed_sum, jax.tree.leaves(outputs), signs)), outputs

    def run(inputs, signs):
        with jax.numpy_dtype_promotion("standard"), jax.default_matmul_precision("highest"):
            gradients, outputs = jax.grad(loss, has_aux=True, allow_int=True)(inputs, signs)
        return outputs, gradients

    return jax.jit(run)


def _signs(problem: Problem, inputs: Any) -> list[np.ndarray]:
    """A random sign for every number that comes out: a cotangent that is exact in every dtype."""
    with jax.numpy_dtype_promotion("standard"):
        outputs = jax.eval_shape(lambda x: problem.run(x, problem.oracle), inputs)
    draw = np.random.default_rng(1)
    return [draw.choice(np.array([-1, 1], np.int8), x.shape) for x in jax.tree.leaves(outputs)]


def _signed_sum(x: jax.Array, signs: jax.Array) -> jax.Array:
    x = (x.real + x.imag).astype(accumulation_dtype(x.real.dtype))
    return jnp.sum(x * signs.astype(x.dtype))


def _rounded(inputs: Any, dtype: str) -> Any:
    """Inputs in a dtype; states, like those a call returns, in at least float32."""

    def cast(path, x):
        to = accumulation_dtype(dtype) if "state" in jax.tree_util.keystr(path) else dtype
        if np.iscomplexobj(x):
            to = accumulation_dtype(dtype, jnp.complex64)
        return x if np.issubdtype(x.dtype, np.integer) else np.asarray(x, to)

    return jax.tree_util.tree_map_with_path(cast, inputs)


def _error(found: Any, expected: Any) -> float:
    errors = [0.0]
    for x, true in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if true.dtype != jax.dtypes.float0 and true.size:
            wide = np.asarray(x).astype(true.dtype)
            errors.append(float(np.max(np.abs(wide - true)) / (np.max(np.abs(true)) or 1.0)))
    return float(np.max(errors))  # unlike max(), keeps a NaN


def _host() -> Any:
    """Where float64 is real; accelerators emulate it or have none."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
        return None


def _wide() -> bool:
    """Whether float64 is enabled here."""
    return jax.dtypes.canonicalize_dtype("float64") == "float64"


def _dtypes(full: bool) -> tuple[str, ...]:
    wide = full and jax.default_backend() != "tpu" or _wide()
    return ("float32", "bfloat16", "float16", "float64")[: 4 if wide else 3]


# ---- ops ------------------------------------------------------------------------------------


def op_problems(name: str, full: bool) -> Iterator[Problem]:
    """The op at its Specs and at a long T.

    At a short T all evaluators run, in all dtypes at the first Spec; at a long T the one that
    the op's table chooses. full: all of them everywhere.
    """
    op = ops.OPS[name]
    specs = list(op.specs)
    if max(spec.sizes["T"] for spec in specs) < LONG:
        specs.append(replace(specs[0], name="long", sizes={**specs[0].sizes, "B": 1, "T": LONG}))
    for spec in specs:
        arrays, options = example(op, spec)
        steps = spec.sizes["T"]
        call = Call(steps, jax.default_backend(), options={**arrays, **options})
        able = tuple(n for n, e in op.evaluators.items() if e.supports(call) is None)
        yield Problem(
            name,
            spec.name,
            steps,
            arrays,
            partial(_call, getattr(seqjax, name), options),
            able if full or steps <= SHORT else (op.choose(call).evaluator,),
            "naive",
            _dtypes(full) if full or spec is specs[0] else ("float32",),
        )


def _call(function: Callable, options: dict[str, Any], arrays: Any, evaluator: str) -> Any:
    return function(**arrays, **options, evaluator=evaluator)


def example(op: Op, spec: Spec, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """An op's arguments at a Spec: the float64 arrays, and the options."""
    arguments = op.example(spec, seed)

    def is_array(x: Any) -> bool:
        leaves = jax.tree.leaves(x)
        return bool(leaves) and all(isinstance(leaf, np.ndarray) for leaf in leaves)

    arrays = {name: x for name, x in arguments.items() if is_array(x)}
    return arrays, {name: x for name, x in arguments.items() if name not in arrays}


# ---- scan -----------------------------------------------------------------------------------

Draw = np.random.Generator


def _decays(draw: Draw, *shape: int) -> np.ndarray:
    return np.exp(-draw.exponential(0.2, size=shape))


def _orthogonal(draw: Draw, *shape: int) -> np.ndarray:
    return 0.97 * np.linalg.qr(draw.normal(size=shape))[0]


def _complex(draw: Draw, *shape: int) -> np.ndarray:
    return draw.normal(size=shape) + 1j * draw.normal(size=shape)


def _windows(draw: Draw, steps: int) -> tuple:
    x = np.zeros((steps, 3, 4))
    x[:, -1] = draw.normal(size=(steps, 4))
    return np.ones(steps, np.int32), x


# name -> (monoid, elements of T steps, state)
ALGEBRAS: dict[str, tuple[Monoid, Callable[[Draw, int], Any], Callable[[Draw], Any]]] = {
    "diagonal": (
        m.diagonal, lambda d, T: (_decays(d, T, 8), d.normal(size=(T, 8))),
        lambda d: d.normal(size=8)),
    "diagonal complex": (
        m.diagonal,
        lambda d, T: (_decays(d, T, 8) * np.exp(1j * d.normal(size=8)), _complex(d, T, 8)),
        lambda d: _complex(d, 8)),
    "dense": (
        m.dense, lambda d, T: (_orthogonal(d, T, 4, 4), d.normal(size=(T, 4))),
        lambda d: d.normal(size=4)),
    "block_diagonal": (
        m.block_diagonal, lambda d, T: (_orthogonal(d, T, 3, 2, 2), d.normal(size=(T, 3, 2))),
        lambda d: d.normal(size=(3, 2))),
    "scalar_decay": (
        m.scalar_decay, lambda d, T: (_decays(d, T), d.normal(size=(T, 4, 3))),
        lambda d: d.normal(size=(4, 3))),
    "key_decay": (
        m.key_decay, lambda d, T: (_decays(d, T, 4), d.normal(size=(T, 4, 3))),
        lambda d: d.normal(size=(4, 3))),
    "stabilised": (
        m.stabilised,
        lambda d, T: (np.log(_decays(d, T, 2)), 3 * d.normal(size=(T, 2)),
                      d.normal(size=(T, 2, 3))),
        lambda d: (d.normal(size=2), d.normal(size=(2, 3)))),
    "maxplus": (
        m.maxplus, lambda d, T: (d.normal(size=(T, 4)), d.normal(size=(T, 4))),
        lambda d: d.normal(size=4)),
    "forward": (
        m.forward, lambda d, T: d.normal(size=(T, 4, 4)), lambda d: d.normal(size=4)),
    "viterbi": (
        m.viterbi, lambda d, T: d.normal(size=(T, 4, 4)), lambda d: d.normal(size=4)),
    "sum": (
        m.total, lambda d, T: {"xx": d.normal(size=(T, 3, 3)), "xy": d.normal(size=(T, 3))},
        lambda d: {"xx": d.normal(size=(3, 3)), "xy": d.normal(size=3)}),
    "shift": (m.shift(3), _windows, lambda d: d.normal(size=(3, 4))),
}  # fmt: skip
# Rounded to 16 bits the exponents tie, and at a tie every subgradient is right; and there are no
# complex numbers of 16 bits.
FLOAT32_ONLY = ("maxplus", "viterbi", "diagonal complex")


def scan_problems(full: bool) -> Iterator[Problem]:
    """`scan` over every algebra; over the diagonal ones also with resets and a long T.

    Trees take long to compile. Without full they are short, "sharded" and 16 bits are tried with
    the diagonal algebra only, and no tree spans the long T.
    """
    cases = [(name, 13, False) for name in ALGEBRAS]
    cases += [(name, LONG, True) for name in (ALGEBRAS if full else list(ALGEBRAS)[:2])]
    for name, steps, with_resets in cases:
        monoid, elements, state = ALGEBRAS[name]
        draw = np.random.default_rng(0)
        inputs = {"elements": elements(draw, steps), "state": state(draw)}
        resets = draw.random(steps) < 0.01 if with_resets else None
        names = [n for n, e in EVALUATORS.items() if not e.supports(monoid.structure)]
        names.append("sharded")  # time over a mesh axis
        if not full:
            slow = ("associative", "sharded") if with_resets else ("sharded",)
            names = [n for n in names if n not in slow or (name, steps) == ("diagonal", 13)]
        dtypes = _dtypes(full) if full or name == "diagonal" else ("float32",)
        dtypes = [d for d in dtypes if jnp.finfo(d).bits > 16 or name not in FLOAT32_ONLY]
        yield Problem(
            "scan",
            f"{name}, resets" if with_resets else name,
            steps,
            inputs,
            partial(_scan, monoid, resets),
            tuple(names),
            "sequential",
            tuple(dtypes),
        )


def _scan(monoid: Monoid, resets: np.ndarray | None, inputs: Any, evaluator: str) -> Any:
    steps = len(jax.tree.leaves(inputs["elements"])[0])
    if evaluator != "sharded":
        options: dict[str, Any] = (
            {"chunk_size": 4 if steps <= SHORT else 64} if evaluator == "chunked" else {}
        )
        return scan(
            monoid,
            inputs["elements"],
            inputs["state"],
            evaluator=evaluator,
            resets=None if resets is None else jnp.asarray(resets),
            **options,
        )
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices[: math.gcd(len(devices), steps)]), ("time",))

    def local(elements, state, resets):
        return scan(monoid, elements, state, axis="time", resets=resets)

    specs = (P("time"), P(), P("time"))
    run = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=(P("time"), P()))
    return run(inputs["elements"], inputs["state"], None if resets is None else jnp.asarray(resets))


# ---- the command ----------------------------------------------------------------------------


def problems(names: Iterable[str] = (), full: bool = False) -> list[Problem]:
    """Of the ops named, and of "scan"; of all if none is named."""
    known = ["scan", *ops.OPS]
    for name in names:
        if name not in known:
            raise ValueError(unknown("op", name, known))
    found: list[Problem] = []
    for name in tuple(names) or known:
        found += scan_problems(full) if name == "scan" else op_problems(name, full)
    return found


def check(names: Iterable[str] = (), full: bool = False) -> list[Check]:
    """The table. Problems run side by side: compiling, most of the time, takes one core each."""
    tasks = problems(names, full)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        done = pool.map(lambda problem: list(solve(problem)), tasks)
        return [line for lines in announce(done, "selfcheck", len(tasks)) for line in lines]


def selfcheck(
    names: Positional[tuple[str, ...]] = (), full: bool = False, json: bool = False
) -> int:
    """Every evaluator against the naive float64 loop, on this device; exit code 1 if one fails.

    Args:
        names: ops, or scan; by default all.
        full: all dtypes at all shapes, float64 among them.
        json: print JSON, with the device and versions.
    """
    start = time.perf_counter()
    lines = check(names, full)
    failed = sum(not line.passed for line in lines)
    if json:
        print_json({
            "environment": environment(),
            "passed": not failed,
            "checks": [{**asdict(line), "passed": line.passed} for line in lines],
        })  # fmt: skip
        return 1 if failed else 0
    print_table(
        "errors against the naive float64 loop, relative to the largest entry",
        ("of", "case", "T", "evaluator", "dtype", "form", "value", "gradient", "tolerance", ""),
        [(x.what, x.case, str(x.steps), x.evaluator, x.dtype, x.form, f"{x.value:.1e}",
          f"{x.gradient:.1e}", f"{x.tolerance:.1e}", "PASS" if x.passed else "FAIL")
         for x in lines],
    )  # fmt: skip
    seconds = time.perf_counter() - start
    print(
        f"{len(lines)} checks, {failed} failed, {seconds:.0f} s on "
        f"{jax.devices()[0].device_kind} ({jax.default_backend()})"
    )
    return 1 if failed else 0
