"""`seqjax profile NAME`: where the time and the memory of a training step go, by layer and op.

The step that training runs is compiled with the names of its modules and ops in it, and run under
the profiler of XLA. Every instruction that ran is counted for the innermost module and op that it
was made by; instructions of the backward pass are those of the transposed program, recomputation
included. XLA fuses: a fused instruction counts where most of it comes from. Instructions run side
by side, so that their times may add up to more than the step takes.
"""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from flax import nnx
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.profiler import ProfileData

from seqjax.core.ranges import Count
from seqjax.nn import Layer
from seqjax.ops.op import Op
from seqjax.stacks.summary import nbytes as held
from seqjax.tools.instructions import nbytes
from seqjax.tools.screen import print_json, print_table
from seqjax.tools.train import with_config
from seqjax.train.config import Config, fitted, task_of
from seqjax.train.imported import build
from seqjax.train.progress import short
from seqjax.train.step import prepare, take_apart

MARK = "seqjax."  # before the names of modules and ops, in those of instructions
CONTROL = ("while", "conditional", "call")  # instructions that run others, which are counted


class Instruction(NamedTuple):
    """What the text of a compiled program has of one instruction."""

    part: str  # "Block > GLA > linear_attention"
    backward: bool
    control: bool
    bytes: int  # of its result


class Part(NamedTuple):
    """What was counted for one module or op, of one step."""

    name: str
    forward_ms: float
    backward_ms: float
    largest: int  # bytes of the largest array that it makes


class Profile(NamedTuple):
    """Of one step."""

    step_ms: float
    compile_s: float
    flops: float
    memory: dict[str, int]  # bytes
    parts: list[Part]


def profile(words: list[str]) -> int:
    return with_config(words, "profile", _command)


def _command(default: Config, name: str) -> Callable[..., int]:
    def command(
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
        repeats: Count = 5,
        trace: Path | None = None,
        json: bool = False,
    ) -> int:
        """Where the time and the memory of a training step go, by layer and op.

        Args:
            repeats: how many steps are run under the profiler, after one that is not
            trace: folder that keeps the trace, which https://ui.perfetto.dev opens
            json: print JSON
        """
        if trace is not None and trace.exists() and not trace.is_dir():
            raise ValueError(f"trace must be a folder, and {trace} is a file")
        config = fitted(config)
        found = measure(config, repeats, trace)
        if json:
            parts = [part._asdict() for part in found.parts]
            print_json({**found._asdict(), "parts": parts})
            return 0
        _print(found, config, name)
        if trace is not None:
            print(f"the trace is in {trace}: open *.trace.json.gz with https://ui.perfetto.dev")
        return 0

    return command


def measure(config: Config, steps: int, trace: Path | None = None) -> Profile:
    """Compile a step of the config, run it, and read the trace."""
    task = task_of(config)
    shape = nnx.eval_shape(lambda: build(config.model, task.spec, None, rngs=nnx.Rngs(0)))
    with named_scopes(shape):
        programs = prepare(config)
        model = build(config.model, task.spec, None, rngs=nnx.Rngs(config.train.seed))
        params, frozen, *_ = take_apart(model, config.train.freeze)
        state = programs.start(params, frozen)
        batch = next(task.batches(config.train.seed, config.task.batch, config.task.length))
        memory = {"parameters": held(state.params), "frozen": held(state.frozen),
                  "optimiser": held(state.moments), "carried state": held(state.carry),
                  "batch": held(batch)}  # fmt: skip
        began = time.perf_counter()
        with fresh():
            compiled = programs.update.lower(state, batch, np.float32(0)).compile()
    compile_s = time.perf_counter() - began
    stats = compiled.memory_analysis()
    if stats is not None:
        memory["temporary, at its peak"] = int(stats.temp_size_in_bytes)
    state, metrics = compiled(state, batch, np.float32(0))
    jax.block_until_ready(metrics)
    times = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if trace is None else trace
        with jax.profiler.trace(str(folder), create_perfetto_trace=False):
            for _ in range(steps):
                began = time.perf_counter()
                state, metrics = compiled(state, batch, np.float32(0))
                jax.block_until_ready(metrics)
                times.append(time.perf_counter() - began)
        newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
        ran = durations(newest)
    work = programs.size.flops_per_token * config.task.batch * config.task.length
    parts = counted(instructions(compiled.as_text()), ran, steps)
    return Profile(1e3 * float(np.median(times)), compile_s, work, memory, parts)


@contextmanager
def named_scopes(model: nnx.Module) -> Iterator[None]:
    """Inside, what the modules of the model and the ops compute is named after them."""
    classes = {type(part) for _, part in nnx.iter_modules(model)} - {type(model)}
    before: list[tuple[type, str, Any]] = []
    for cls in (*classes, Op):
        method = "example" if issubclass(cls, Layer) else "__call__"
        if hasattr(cls, method) and cls is not nnx.List:
            before.append((cls, method, vars(cls).get(method)))
    calls = [(cls, method, getattr(cls, method)) for cls, method, _ in before]
    for cls, method, call in calls:
        setattr(cls, method, _named(call))
    try:
        yield
    finally:
        for cls, method, own in before:
            delattr(cls, method) if own is None else setattr(cls, method, own)


def _named(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def named(self: Any, *args: Any, **options: Any) -> Any:
        name = self.name if isinstance(self, Op) else type(self).__name__
        with jax.named_scope(f"{MARK}{name}"):
            return call(self, *args, **options)

    return named


@contextmanager
def fresh() -> Iterator[None]:
    """A program from the cache has the names of the process that compiled it: none."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # jax looks at the option once
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()


def instructions(text: str) -> dict[str, Instruction]:
    """By their names, from the text of a compiled program."""
    line = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$", re.MULTILINE)
    inside = _inside(text)
    found = {}
    for name, result, opcode, rest in line.findall(text):
        called = re.search(r"calls=%?([\w.-]+)", rest)
        own = re.search(r'op_name="([^"]*)"', rest)
        names = inside.get(called[1], []) if called and opcode == "fusion" else []
        where = Counter(names).most_common(1)[0][0] if names else own[1] if own else ""
        found[name] = Instruction(
            part_of(where), "transpose(" in where, opcode in CONTROL, nbytes(result)
        )
    return found


def _inside(text: str) -> dict[str, list[str]]:
    """Fused computation -> the names of its instructions that are of a part."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if begins := re.match(r"%?([\w.-]+) .*\{$", line):
            current = found.setdefault(begins[1], [])
        elif MARK in line and (name := re.search(r'op_name="([^"]*)"', line)):
            current.append(name[1])
    return found


def part_of(name: str) -> str:
    """Of an instruction jit(update)/jvp(seqjax.Block)/seqjax.GLA/dot_general "Block > GLA".

    What is of no module is the loss where it is differentiated, and else the optimiser.
    """
    scopes = re.findall(rf"{re.escape(MARK)}(\w+)", name)
    chain = [scope for n, scope in enumerate(scopes) if scope not in scopes[:n]]
    if chain:
        return " > ".join(chain)
    return "loss, and between modules" if "jvp(" in name else "optimiser, and copies"


def durations(file: Path) -> Counter[str]:
    """Instruction -> nanoseconds, summed over all that ran."""
    found: Counter[str] = Counter()
    with warnings.catch_warnings():  # of its types, from Python 3.12 on; as an error it is fatal
        warnings.simplefilter("ignore", DeprecationWarning)
        for plane in ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name is not None:
                        found[str(name)] += int(event.duration_ns)
    return found


def counted(known: dict[str, Instruction], ran: Counter[str], steps: int) -> list[Part]:
    """The parts, the dearest first."""
    time_of: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    largest: dict[str, int] = defaultdict(int)
    for name, duration in ran.items():
        one = known.get(name)
        if one is None or one.control:
            continue
        time_of[one.part][one.backward] += duration / 1e6 / steps
        largest[one.part] = max(largest[one.part], one.bytes)
    parts = [Part(name, ms[0], ms[1], largest[name]) for name, ms in time_of.items()]
    return sorted(parts, key=lambda part: -part.forward_ms - part.backward_ms)


def _print(found: Profile, config: Config, name: str) -> None:
    c, per_second = config.task, 1e3 / found.step_ms
    rates = f"{short(c.batch * c.length * per_second)} tokens/s, {short(found.flops * per_second)}"
    print(f"{name}: a step of {c.batch} x {c.length} takes {found.step_ms:.3g} ms, {rates} flop/s; "
          f"compiled in {found.compile_s:.1f} s\n")  # fmt: skip
    sizes = [(what, _mib(size)) for what, size in found.memory.items() if size]
    print_table("memory", ("", "MiB"), sizes)
    total = sum(part.forward_ms + part.backward_ms for part in found.parts) or 1.0
    rows = [
        (part.name, f"{part.forward_ms:.3f}", f"{part.backward_ms:.3f}",
         f"{(part.forward_ms + part.backward_ms) / total:.1%}", _mib(part.largest))
        for part in found.parts
    ]  # fmt: skip
    columns = ("part", "forward ms", "backward ms", "share", "largest array, MiB")
    print_table("time of instructions, a step", columns, rows)


def _mib(size: int) -> str:
    return f"{size / 2**20:.3f}"
