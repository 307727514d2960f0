"""One timer: compile time, run time and temporary memory; ours, the peer and the floor in one run.

    floor   a * b + 1 over an input of the case, into fresh memory and into a donated buffer: what
            any pass over the data costs on this machine
    peer    what one would write without this library: `lax.associative_scan`, the outer products
            or transition matrices materialised; XLA's convolution; `lax.scan` for a nonlinear step
    loop    an op's plain loop over time, `lax.scan`
    ours    the evaluator that runs by default, or all of them

All programs of a case are compiled first and then take turns, so that a busy moment of the machine
falls on all of them. Forward+backward is the value and all gradients of a weighted sum of outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from tyro.conf import Positional

import seqjax
from seqjax import ops
from seqjax.core import monoid as m
from seqjax.core.common import unknown
from seqjax.core.scan import scan
from seqjax.ops.op import Call
from seqjax.tools.screen import announce, print_json, print_table
from seqjax.tools.selfcheck import example
from seqjax.train.config import Count
from seqjax.train.record import environment
from seqjax.zoo import LAYERS, make

SAMPLE_SECONDS = 0.02  # a shorter program runs several times a sample
LONG = 1024  # Specs of at least so many steps are timed


# ---- the timer ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """A function of arrays to time."""

    name: str
    role: str  # floor, peer, loop or ours
    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    donate: bool = False  # what it returns is its next first input


@dataclass(frozen=True)
class Case:
    """Programs that compute the same, or cross the same data."""

    name: str
    programs: tuple[Program, ...]


@dataclass(frozen=True)
class Timing:
    compile_s: float
    run_ms: float  # median
    temp_mb: float


@dataclass(frozen=True)
class Result:
    """A program, forward and forward+backward; floors have no backward."""

    case: str
    program: str
    role: str
    forward: Timing
    both: Timing | None


class _Compiled:
    """A compiled program, and samples of its run time."""

    def __init__(self, program: Program):
        start = time.perf_counter()
        jitted = jax.jit(program.function, donate_argnums=0 if program.donate else ())
        self.run = jitted.lower(*program.inputs).compile()
        self.compile_s = time.perf_counter() - start
        self.donate, self.inputs = program.donate, program.inputs
        if self.donate:
            self.inputs = (jnp.copy(self.inputs[0]), *self.inputs[1:])
        self.seconds()  # the first run touches new memory
        self.count = max(1, round(SAMPLE_SECONDS / self.seconds()))
        self.samples: list[float] = []

    def seconds(self) -> float:
        start = time.perf_counter()
        output = jax.block_until_ready(self.run(*self.inputs))
        passed = time.perf_counter() - start
        if self.donate:
            self.inputs = (output, *self.inputs[1:])
        return passed

    def timing(self) -> Timing:
        memory = self.run.memory_analysis()
        temp = memory.temp_size_in_bytes if memory else 0
        return Timing(self.compile_s, 1e3 * median(self.samples), temp / 2**20)


def measure(programs: Sequence[Program], repeats: int) -> list[Timing]:
    """Compile all, then let them take turns, `repeats` samples of each."""
    with _without_compilation_cache():
        ready = [_Compiled(program) for program in programs]
    for _ in range(repeats):
        for one in ready:
            one.samples.append(sum(one.seconds() for _ in range(one.count)) / one.count)
    return [one.timing() for one in ready]


def with_gradients(program: Program) -> Program:
    """The value and all gradients of a weighted sum of its outputs, the weights an input."""
    outputs = jax.eval_shape(program.function, *program.inputs)
    draw = np.random.default_rng(1)
    weights = jax.tree.map(lambda y: jnp.asarray(draw.normal(size=y.shape), y.dtype), outputs)

    def loss(inputs, weights):
        outputs = program.function(*inputs)
        return sum(jax.tree.leaves(jax.tree.map(lambda y, w: jnp.sum(y * w), outputs, weights)))

    return replace(
        program, function=jax.value_and_grad(loss, allow_int=True), inputs=(program.inputs, weights)
    )


@contextmanager
def _without_compilation_cache() -> Iterator[None]:
    """A compile time read from a cache on disk would be none."""
    config: Any = jax.config
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    reset_cache()  # what it decided at the first compilation of this process
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", before)
        reset_cache()


def run(case: Case, repeats: int) -> list[Result]:
    """Time a case, forward and forward+backward."""
    backward = [with_gradients(p) for p in case.programs if p.role != "floor"]
    timings = iter(measure([*case.programs, *backward], repeats))
    forward = [next(timings) for _ in case.programs]
    both = [None if p.role == "floor" else next(timings) for p in case.programs]
    return [
        Result(case.name, p.name, p.role, f, b)
        for p, f, b in zip(case.programs, forward, both, strict=True)
    ]


# ---- what is timed --------------------------------------------------------------------------


def op_cases(name: str, every: bool) -> Iterator[Case]:
    """An op at its long Specs: the floors, a peer if it has one, its loop and its evaluators."""
    op = ops.OPS[name]
    for spec in (spec for spec in op.specs if spec.sizes["T"] >= LONG):
        arrays, options = example(op, spec)
        with jax.enable_x64(False):
            arrays = jax.tree.map(jnp.asarray, arrays)
        call = Call(spec.sizes["T"], jax.default_backend(), options={**arrays, **options})
        able = [evaluator for evaluator, e in op.evaluators.items() if e.supports(call) is None]
        chosen = op.choose(call).evaluator
        programs = [*floors(jax.tree.leaves(arrays)[0])]
        if name in PEERS:
            label, peer = PEERS[name]
            programs.append(Program(label, "peer", _of(partial(peer, **options)), (arrays,)))
        for evaluator in able:
            if every or evaluator in ("naive", chosen):
                role = "loop" if evaluator == "naive" else "ours"
                run = partial(getattr(seqjax, name), **options, evaluator=evaluator)
                programs.append(Program(evaluator, role, _of(run, 0), (arrays,)))
        sizes = " ".join(f"{letter}={size}" for letter, size in spec.sizes.items())
        yield Case(" ".join(filter(None, (name, spec.name, sizes))), tuple(programs))


def _of(function: Callable[..., Any], index: Any = ...) -> Callable[[dict[str, Any]], Any]:
    """`function` of a dict of its arguments; of (outputs, state) the outputs, with index 0."""
    return lambda arrays: function(**arrays) if index is ... else function(**arrays)[index]


def floors(x: jax.Array) -> tuple[Program, Program]:
    """A pass over data of the size of x."""
    inputs = (x, jnp.copy(x))
    return (
        Program("a * b + 1", "floor", lambda a, b: a * b + 1, inputs),
        Program("a * b + 1, donated", "floor", lambda a, b: a * b + 1, inputs, donate=True),
    )


def layer_case(name: str, steps: int = 1024, features: int = 64) -> Case:
    """A layer, all its evaluators; the peer is its plain loop."""
    layer = make(name, features)
    graph, parameters, rest = nnx.split(layer, nnx.Param, ...)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, steps, features)), jnp.float32)

    def call(evaluator: str, parameters: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, parameters, rest)(x, evaluator=evaluator)[0]

    programs = [
        Program(evaluator, "ours" if n else "peer", partial(call, evaluator), (parameters, x))
        for n, evaluator in enumerate(layer.evaluators)
    ]
    return Case(f"{name} B=4 T={steps} features={features}", (*floors(x), *programs))


def cases(name: str, every: bool) -> Iterator[Case]:
    """Of an op, a layer or newton."""
    if name == "newton":
        yield replace(layer_case("gru", steps=512, features=8), name="newton: gru B=4 T=512 D=8")
    elif name in ops.OPS:
        yield from op_cases(name, every)
    else:
        yield layer_case(name)


# ---- peers: what one would write with lax.associative_scan -----------------------------------


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    return x[..., :, None] * y[..., None, :]


def _identity(k: jax.Array) -> jax.Array:
    return jnp.eye(k.shape[-1], dtype=k.dtype)[None, None, None]


def _affine_scan(a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    """All states of h_t = a_t h_{t-1} + b_t, time the second axis."""

    def combine(p, q):
        return q[0] * p[0], q[0] * p[1] + q[1]

    a, b = lax.associative_scan(combine, (a, b), axis=1)
    return a * state[:, None] + b


def _states(algebra: m.Monoid, elements: Any, state: Any) -> Any:
    """`lax.associative_scan` of an algebra of `seqjax.core.monoid`, elements [B, T, H, ...]."""
    scanned = partial(scan, algebra, evaluator="associative")
    heads = jax.vmap(lambda e, h: scanned(e, h)[0], in_axes=(1, 0), out_axes=1)
    return jax.vmap(heads)(elements, state)


def _read(q: jax.Array, S: jax.Array) -> jax.Array:
    return jnp.einsum("bthk,bthkv->bthv", q, S)


def _linear_attention(q, k, v, state, log_a: Any = None, log_b: Any = None):
    if log_b is not None:  # of the values, which are the keys of the transposed states
        turned = jnp.swapaxes(state, -1, -2)
        states = _states(m.key_decay, (jnp.exp(log_b), _outer(v, k)), turned)
        return _read(q, jnp.swapaxes(states, -1, -2))
    algebra = m.scalar_decay if log_a.ndim == 3 else m.key_decay
    return _read(q, _states(algebra, (jnp.exp(log_a), _outer(k, v)), state))


def _gated_delta_rule(q, k, v, beta, state, log_a):
    decay = jnp.exp(log_a if log_a.ndim == 4 else log_a[..., None])
    write = beta[..., None] * k
    A = (jnp.eye(k.shape[-1], dtype=k.dtype)[None, None, None] - _outer(write, k)) * decay[
        ..., None, :
    ]
    return _read(q, _states(m.dense, (A, _outer(write, v)), state))


def _dplr(q, k, v, a, b, state, log_w):
    A = jnp.eye(k.shape[-1], dtype=k.dtype)[None, None, None] * jnp.exp(log_w)[..., None] + _outer(
        b, a
    )
    return _read(q, _states(m.dense, (A, _outer(k, v)), state))


def _stabilised_attention(q, k, v, log_i, log_f, state):
    C, n, exponent = state
    extended = jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)
    state = (exponent, jnp.concatenate([C, n[..., None]], -1))
    exponent, S = _states(m.stabilised, (log_f, log_i, _outer(k, extended)), state)
    y = _read(q, S)
    return y[..., :-1] / (jnp.maximum(jnp.abs(y[..., -1]), jnp.exp(-exponent)) + 1e-6)[..., None]


def _selective_scan(u, delta, A, B, C, D, z, delta_bias, state, delta_softplus):
    assert delta_softplus
    dt = jax.nn.softplus(delta + delta_bias[None, None])
    a = jnp.exp(dt[..., None] * A[None, None])
    h = _affine_scan(a, (dt * u)[..., None] * B[:, :, None], state)
    y = jnp.einsum("btdn,btn->btd", h, C) + D[None, None] * u
    return y * jax.nn.silu(z)


def _short_convolution(x, kernel, bias, state):
    x = jnp.concatenate([state, x], axis=1)
    y = lax.conv_general_dilated(
        x,
        kernel[:, None],
        (1,),
        "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=x.shape[-1],
    )
    return y + bias[None, None]


TREE, CONVOLUTION = "lax.associative_scan", "lax.conv_general_dilated"
PEERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "linear_scan": (TREE, _affine_scan),
    "linear_attention": (TREE, _linear_attention),
    "gated_delta_rule": (TREE, _gated_delta_rule),
    "dplr": (TREE, _dplr),
    "stabilised_attention": (TREE, _stabilised_attention),
    "selective_scan": (TREE, _selective_scan),
    "short_convolution": (CONVOLUTION, _short_convolution),
}


# ---- the command ----------------------------------------------------------------------------

DEFAULT = (*PEERS, "newton")


def bench(
    names: Positional[tuple[str, ...]] = (),
    repeats: Count = 7,
    every: bool = False,
    json: bool = False,
) -> int:
    """Time, memory and compile time beside the peer and the floor, in one run.

    Args:
        names: ops, layers, or newton; by default the ops and newton.
        repeats: samples of each program; the median is shown.
        every: all evaluators of an op, not only the one that runs by default.
        json: print JSON, with the device, versions and the command.
    """
    known = [*ops.OPS, "newton", *LAYERS]
    for name in names:
        if name not in known:
            raise ValueError(unknown("benchmark", name, known))
    tables = []
    for name in names or DEFAULT:
        for case in announce(cases(name, every), f"bench {name}"):
            tables.append(run(case, repeats))
            if not json:
                print_table(*table(tables[-1]))
    if json:
        print_json({
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(),
            "repeats": repeats,
            "results": [asdict(result) for results in tables for result in results],
        })  # fmt: skip
    return 0


TIMED = ("compile s", "ms", "faster", "temp MB", "less")
COLUMNS = ("role", "program", *(f"{part} {name}" for part in ("fwd", "+bwd") for name in TIMED))


def table(results: Sequence[Result]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, columns and rows; "faster" and "less" are the peer's number over this one's."""
    peer = next((r for r in results if r.role == "peer"), None)
    rows = []
    for r in results:
        row = [r.role, r.program]
        for mine, theirs in ((r.forward, peer and peer.forward), (r.both, peer and peer.both)):
            if mine is None:
                row += [""] * len(TIMED)
                continue
            faster = less = ""
            if theirs and r.role in ("loop", "ours"):
                faster = f"{_number(theirs.run_ms / mine.run_ms)} x"
                less = f"{_number(theirs.temp_mb / mine.temp_mb)} x" if mine.temp_mb > 0.1 else ""
            row += [f"{mine.compile_s:.2f}", _number(mine.run_ms), faster,
                    f"{mine.temp_mb:.1f}", less]  # fmt: skip
        rows.append(tuple(row))
    return results[0].case, COLUMNS, rows


def _number(x: float) -> str:
    """Two digits or more, no exponent."""
    return f"{x:.0f}" if x >= 10 else f"{x:.2g}"
