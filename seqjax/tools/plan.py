"""`seqjax plan NAME --topology v5e:16x16`: what training would take on chips that are not here.

The whole training step is compiled for the topology, as training would compile it, by the compiler
of its chips, which needs none of them. Memory is what the compiler assigns; flops, bytes and
collectives are counted from the program (`seqjax.tools.hlo`). The time of an instruction is the
longer of its matrix products and its bytes, at the peaks of the chip, and the time of collectives
is what they send over all links: real steps take longer. For GPUs the program is that of as many
virtual CPU devices: what is exchanged is the same, fusion, memory and evaluators are those of CPUs.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import tyro

from seqjax.core.ranges import Count
from seqjax.stacks.remat import Remat
from seqjax.tools.buffers import Memory, memory_of
from seqjax.tools.chips import FORMS, Chip, Target, target
from seqjax.tools.hlo import Program, Work
from seqjax.tools.profile import fresh
from seqjax.tools.screen import print_json, print_table
from seqjax.tools.train import with_config
from seqjax.train.config import Config, MeshConfig, check_config, fitted
from seqjax.train.layout import AXES
from seqjax.train.progress import short
from seqjax.train.step import prepare

POLICIES: tuple[Remat, ...] = ("none", "layer", "full")  # each takes less memory than those before


class Exchange(NamedTuple):
    """The collectives of one kind, of one step."""

    kind: str
    devices: int  # that exchange
    times: int
    sent: float  # bytes, by each chip
    ms: float


class Plan(NamedTuple):
    """Of one step, on each chip."""

    mesh: str
    remat: str
    parameters: int
    compile_s: float
    fits: bool
    memory: Memory
    product_flops: float
    exact_flops: float  # those of the products that are of float32 at full precision
    elementwise_flops: float
    hbm_bytes: float
    exchanges: list[Exchange]
    compute_ms: float  # of products alone
    memory_ms: float  # of bytes alone
    busy_ms: float  # of all instructions, each the longer of both
    kernels: int  # of Pallas, which are counted by their bytes alone

    @property
    def exchange_ms(self) -> float:
        return sum(one.ms for one in self.exchanges)

    @property
    def step_ms(self) -> float:
        """Where no collective hides behind other work."""
        return self.busy_ms + self.exchange_ms


def plan(words: list[str]) -> int:
    return with_config(words, "plan", _command)


def _command(default: Config, name: str) -> Callable[..., int]:
    def command(
        config: Annotated[Config, tyro.conf.arg(name="")] = default,
        topology: str = "",
        sweep: bool = False,
        tries: Count = 24,
        json: bool = False,
    ) -> int:
        """What a training step takes on chips that are not here: memory, exchange and time.

        Args:
            topology: of TPUs, as v5e:16x16 or v5p:8x8x8, or GPUs of one host, as h100x8
            sweep: try other meshes and model.remat, and recommend the fastest that fits
            tries: how many meshes a sweep compiles at most, those that split fewer axes first
            json: print JSON
        """
        if not topology:
            raise ValueError(f"give --topology: {FORMS}")
        where, config = target(topology), fitted(config)
        if sweep:
            return _sweep(config, name, where, tries, json)
        found = planned(over_all(config, where), where)
        if json:
            print_json({"topology": topology, **_plain(found)})
        else:
            _print(found, config, name, where)
        return 0 if found.fits else 1

    return command


def over_all(config: Config, where: Target) -> Config:
    """The config with its mesh, which must take all chips; without one they are all of fsdp."""
    sizes = [getattr(config.mesh, axis) for axis in AXES]
    count, taken = len(where.devices), math.prod(sizes)
    if taken == 1:
        config = replace(config, mesh=replace(config.mesh, fsdp=count))
    elif taken != count:
        raise ValueError(f"mesh {_mesh(config.mesh)} takes {taken} devices, and {where.name} has "
                         f"{count}")  # fmt: skip
    check_config(config)
    return config


def planned(config: Config, where: Target) -> Plan:
    """Compile a step of the config for those chips, and count it."""
    programs = prepare(config, devices=where.devices)
    lowered = programs.traced.lower()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, fresh():
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        fits = True
        try:
            lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            fits = False
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
        seconds = time.perf_counter() - began
        (text,) = Path(folder).glob("*after_optimizations.txt")
        (buffers,) = Path(folder).glob("*after_optimizations-buffer-assignment.txt")
        program = Program(text.read_text())
        memory = memory_of(buffers.read_text(), program)
    fits = fits and memory.peak <= where.chip.memory
    work = list(program.work())
    return Plan(
        _mesh(config.mesh), config.model.remat, programs.size.parameters, seconds, fits, memory,
        **counted(work, where.chip),
    )  # fmt: skip


def counted(work: list[Work], chip: Chip) -> dict[str, Any]:
    """What a step does, and how long the chip takes for it at its peaks."""
    total: dict[str, float] = defaultdict(float)
    exchanges: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0, 0.0])
    for one in work:
        compute = one.products * (chip.exact if one.exact else 1) / chip.flops
        moving = one.bytes / chip.bandwidth
        total["product_flops"] += one.times * one.products
        total["exact_flops"] += one.times * one.products * one.exact
        total["elementwise_flops"] += one.times * one.elementwise
        total["hbm_bytes"] += one.times * one.bytes
        total["compute_ms"] += 1e3 * one.times * compute
        total["memory_ms"] += 1e3 * one.times * moving
        total["busy_ms"] += 1e3 * one.times * max(compute, moving)
        if one.collective:
            so_far = exchanges[one.collective, one.devices]
            so_far[0] += one.times
            so_far[1] += one.times * one.sent
    each = [
        Exchange(kind, devices, int(times), sent, 1e3 * sent / chip.links)
        for (kind, devices), (times, sent) in exchanges.items()
    ]
    each.sort(key=lambda exchange: -exchange.sent)
    kernels = sum(one.kernel for one in work)
    return {**total, "exchanges": each, "kernels": kernels}


def _print(found: Plan, config: Config, name: str, where: Target) -> None:
    c, chips = config.task, len(where.devices)
    print(f"{name} on {where.name}: {chips} chips, mesh {found.mesh}, model.remat {found.remat}; "
          f"compiled in {found.compile_s:.0f} s")  # fmt: skip
    print(f"{short(found.parameters)} parameters, a step of {c.batch} x {c.length}")
    if where.stands_in:
        print(f"compiled for {chips} virtual devices of {where.stands_in}: fusion, memory and "
              "evaluators are theirs, what is exchanged is that of any")  # fmt: skip
    print()
    memory = found.memory
    sizes = [
        ("state and batch", memory.arguments),
        ("temporaries, at their peak", memory.temporaries),
        ("other outputs", memory.outputs),
        ("all", memory.peak),
    ]
    print_table("memory of a chip", ("", "GiB"), [(what, _gib(size)) for what, size in sizes])
    verdict = "fits" if found.fits else "does not fit"
    print(f"{verdict} in {_gib(where.chip.memory)} GiB; the largest buffers:\n")
    rows = [(_gib(one.bytes), one.shape, one.source) for one in memory.buffers]
    print_table("largest buffers", ("GiB", "first of its arrays", "made by"), rows)
    rows = [
        ("matrix products", short(found.product_flops) + "flop", _ms(found.compute_ms)),
        ("    of float32, in full", short(found.exact_flops) + "flop", ""),
        ("elementwise", short(found.elementwise_flops) + "flop", ""),
        ("memory", short(found.hbm_bytes) + "B", _ms(found.memory_ms)),
        *(
            (f"{one.kind} of {one.devices}, {one.times} times", short(one.sent) + "B", _ms(one.ms))
            for one in found.exchanges
        ),
    ]
    print_table("a step of a chip", ("", "amount", "ms at its peak"), rows)
    if found.kernels:
        print(f"{found.kernels} calls of Pallas kernels are counted by their bytes alone")
    tokens = 1e3 * c.batch * c.length
    print(
        f"a step takes at least {_ms(found.busy_ms)} ms, {_ms(found.step_ms)} ms where collectives "
        f"hide behind nothing: {short(tokens / found.step_ms)} tokens/s"
    )
    print(f"peaks of a chip: {where.chip.source}")


def meshes(config: Config, chips: int) -> Iterator[MeshConfig]:
    """Those that all chips make and that the sizes of the config divide, the simplest first."""
    c, found = config.task, []
    sizes = [n for n in range(1, chips + 1) if chips % n == 0]
    for data, fsdp, tensor in itertools.product(sizes, repeat=3):
        if chips % (data * fsdp * tensor):
            continue
        sequence = chips // (data * fsdp * tensor)
        whole = c.batch % (data * fsdp * config.optimiser.accumulate) or c.length % sequence
        if whole or config.model.features % tensor or (fsdp == 1 and data > 1 and tensor > 1):
            continue
        found.append((data, fsdp, tensor, sequence))

    def simplicity(sizes: tuple[int, ...]) -> tuple[int, ...]:
        data, fsdp, tensor, sequence = sizes
        return (sum(n > 1 for n in sizes), tensor * sequence, sequence, data)

    for sizes in sorted(found, key=simplicity):
        yield replace(config.mesh, **dict(zip(AXES, sizes, strict=True)))


def _sweep(config: Config, name: str, where: Target, tries: int, json: bool) -> int:
    """Each mesh with the policy that computes least again of those with which it fits."""
    found: list[Plan] = []
    every = list(meshes(config, len(where.devices)))
    if not every:
        raise ValueError(f"no mesh of {len(where.devices)} chips divides task.batch="
                         f"{config.task.batch} and task.length={config.task.length}")  # fmt: skip
    if not json:
        print(f"{name} on {where.name}: {min(tries, len(every))} of {len(every)} meshes")
    for mesh in every[:tries]:
        for policy in POLICIES:
            one = replace(config, mesh=mesh, model=replace(config.model, remat=policy))
            try:
                found.append(planned(one, where))
            except ValueError as error:  # such a mesh is none of these chips
                if not json:
                    print(f"    {_mesh(mesh):42} {error}")
                break
            if not json:
                print(_line(found[-1]), flush=True)
            if found[-1].fits:
                break
    fitting = [one for one in found if one.fits]
    best = min(fitting, key=lambda one: one.step_ms, default=None)
    if json:
        print_json({"topology": where.name, "tried": [_plain(one) for one in found],
                    "best": best and _plain(best)})  # fmt: skip
    elif best is None:
        print("none fits")
    else:
        sizes = " ".join(f"--mesh.{word}" for word in best.mesh.split())
        print(f"the fastest that fits: {sizes} --model.remat={best.remat}")
    return 1 if best is None else 0


def _line(one: Plan) -> str:
    fits = "" if one.fits else "  does not fit"
    return (f"    {one.mesh:42} remat {one.remat:6} {_gib(one.memory.peak):>8} GiB "
            f"{_ms(one.step_ms):>8} ms, {_ms(one.exchange_ms)} of them exchange{fits}")  # fmt: skip


def _plain(one: Plan) -> dict[str, Any]:
    memory = {**one.memory._asdict(), "peak": one.memory.peak,
              "buffers": [buffer._asdict() for buffer in one.memory.buffers]}  # fmt: skip
    exchanges = [each._asdict() for each in one.exchanges]
    return {**one._asdict(), "memory": memory, "exchanges": exchanges, "step_ms": one.step_ms}


def _mesh(mesh: MeshConfig) -> str:
    sizes = {axis: getattr(mesh, axis) for axis in AXES}
    return " ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or "of one"


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g}"


def _ms(ms: float) -> str:
    return f"{ms:.3g}" if ms < 100 else f"{ms:.0f}"
