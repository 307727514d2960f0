"""What a compiled program does on one device, counted from its text.

XLA's own `cost_analysis` counts the body of a loop once. Here each instruction has the times it
runs, the product of the trips of the loops it is in, and with them

    flops   of matrix products 2 a multiply-add, of what is elementwise 1 a number
    bytes   read from and written to the memory of the device: what goes in and out of each fused
            instruction, of slices the part that is touched, on a TPU in whole tiles; what is placed
            in memory on the chip is free
    sent    by collectives over rings: of n devices an all-gather sends n - 1 times what it takes,
            reduce-scatter and all-to-all (n - 1) / n of it, all-reduce twice that, a permute all

A branch is the dearest of a conditional. A kernel of Pallas is counted by its bytes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from seqjax.tools.instructions import (
    SHAPE,
    Computation,
    Instruction,
    continued,
    elementwise_flops,
    group_size,
    is_exact,
    nbytes,
    product_flops,
    ring,
)

COLLECTIVES = (
    "all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute",
)  # fmt: skip
MOVES_NOTHING = frozenset(
    "parameter constant get-tuple-element tuple bitcast after-all while conditional call "
    "partition-id replica-id opt-barrier async-start async-update async-done domain".split()
)
LINE = re.compile(r"^\s*(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")


class Work(NamedTuple):
    """One instruction of the program."""

    name: str
    opcode: str
    times: int  # it runs
    products: float  # flops of matrix products, each time
    exact: bool  # whether they are of float32, at its full precision
    elementwise: float  # flops of the rest
    bytes: float
    collective: str  # its kind, or nothing
    devices: int  # that exchange
    sent: float  # bytes, by each
    kernel: bool  # of Pallas


class Program:
    """A compiled program, by its text (`compiled.as_text()`)."""

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.text, self.entry, current = text, "", Computation()
        for line in text.splitlines():
            if begins := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
                current = self.computations.setdefault(begins[2], Computation())
                self.entry = begins[2] if begins[1] else self.entry
            elif found := LINE.match(line):
                root, name, shape, opcode, rest = found.groups()
                current.instructions[name] = Instruction(name, shape, opcode, rest)
                current.root = name if root else current.root
        if not self.entry:
            raise ValueError("the text of a compiled program has an ENTRY computation, got none")

    def work(self) -> Iterator[Work]:
        """All that runs, loops opened."""
        return self._work(self.entry, 1)

    def _work(self, name: str, times: int) -> Iterator[Work]:
        of = self.computations.get(name, Computation())
        for one in of.instructions.values():
            if one.opcode == "while":
                body, trips = one.called("body"), self.trips(one)
                yield from self._work(body or "", times * trips)
            elif one.opcode == "call":
                yield from self._work(one.called("to_apply") or one.called("calls") or "", times)
            elif one.opcode == "conditional":
                names = re.findall(r"(?:true|false)_computation=%?([\w.-]+)", one.rest)
                if branches := re.search(r"branch_computations=\{([^}]*)\}", one.rest):
                    names = re.findall(r"[\w.-]+", branches[1])
                each = [list(self._work(branch, times)) for branch in names]
                yield from max(each, key=_weight, default=[])
            elif one.opcode == "async-start":
                yield from self._work(one.called("calls") or "", times)
            else:
                yield self._of(of, one, times)

    def _of(self, of: Computation, one: Instruction, times: int) -> Work:
        products, elementwise, exact = 0.0, 0.0, False
        collective, devices, sent = "", 1, 0.0
        for part, inside in self._parts(of, one):
            flops = product_flops(inside, part)
            products += flops
            exact |= flops > 0 and is_exact(inside, part)
            elementwise += elementwise_flops(inside, part)
            kind = part.opcode.removesuffix("-start")
            if kind in COLLECTIVES and not continued(part):
                scatters = kind == "all-reduce" and "all-reduce-scatter" in one.rest
                kind = "reduce-scatter" if scatters else kind
                devices = group_size(part.rest, self.partitions)
                taken = sum(nbytes(inside.shape(name)) for name in part.operands)
                if devices > 1:
                    collective, sent = kind, sent + taken * ring(kind, devices)
        moved = 0.0
        if one.opcode not in MOVES_NOTHING and not one.opcode.endswith("-done"):
            moved = self._bytes(of, one)
        return Work(
            one.name, one.opcode, times, products, exact, elementwise, moved,
            collective, devices, sent, kernel="tpu_custom_call" in one.rest,
        )  # fmt: skip

    @cached_property
    def partitions(self) -> int:
        found = re.search(r"num_partitions=(\d+)", self.text[: self.text.find("\n")])
        return int(found[1]) if found else 1

    def _parts(
        self, of: Computation, one: Instruction
    ) -> Iterator[tuple[Instruction, Computation]]:
        """The instruction, or those inside of it where it is a fusion."""
        if one.opcode != "fusion":
            yield one, of
            return
        inside = self.computations.get(one.called("calls") or "", Computation())
        for part in inside.instructions.values():
            yield from self._parts(inside, part)

    def _bytes(self, of: Computation, one: Instruction) -> float:
        shapes = [of.shape(name) for name in one.operands]
        if one.opcode == "fusion":
            inside = self.computations.get(one.called("calls") or "", Computation())
            read = sum(self._read(inside, n, shape) for n, shape in enumerate(shapes))
            return read + self._written(inside, one.shape)
        if one.opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * nbytes(one.shape, held=True)
        if one.opcode == "dynamic-update-slice":
            return 2 * nbytes(shapes[1], held=True)
        if one.opcode == "scatter":
            return 2 * nbytes(shapes[-1], held=True)
        if one.opcode == "copy-start":
            whole = SHAPE.search(one.shape)
            return nbytes(whole[0], held=True) + nbytes(shapes[0], held=True) if whole else 0
        if one.opcode.removesuffix("-start") in COLLECTIVES and one.opcode.endswith("-start"):
            return 2 * sum(nbytes(shape, held=True) for shape in shapes)
        return nbytes(one.shape, held=True) + sum(nbytes(shape, held=True) for shape in shapes)

    def _read(self, inside: Computation, number: int, shape: str) -> float:
        """Of an operand of a fusion: all of it, or what slices take; nothing if it is written into,
        or handed on."""
        whole, part = nbytes(shape, held=True), 0.0
        if number not in inside.parameters:
            return whole
        names = [inside.parameters[number].name]
        while names:
            name = names.pop()
            for user in inside.users.get(name, []):
                first = user.operands[:1] == [name]
                if user.opcode == "bitcast":
                    names.append(user.name)
                elif user.opcode in ("dynamic-slice", "gather", "slice") and first:
                    part += nbytes(user.shape)
                elif user.opcode == "fusion":
                    nested = self.computations.get(user.called("calls") or "", Computation())
                    part += self._read(nested, user.operands.index(name), shape)
                elif not (
                    user.opcode == "dynamic-update-slice" and first
                    or user.opcode == "tuple" or continued(user)
                ):  # fmt: skip
                    return whole
        return min(part, whole)

    def _written(self, inside: Computation, shape: str) -> float:
        """What a fusion writes: its result, or the part of it that is updated."""
        root = inside.instructions.get(inside.root)
        if root is None:
            return nbytes(shape, held=True)
        results = root.operands if root.opcode == "tuple" else [root.name]
        total = 0.0
        for name, part in zip(results, SHAPE.finditer(shape), strict=False):
            made = inside.instructions[name]
            while made.opcode == "bitcast" and made.operands[0] in inside.instructions:
                made = inside.instructions[made.operands[0]]
            whole = nbytes(part[0], held=True)
            if made.opcode == "dynamic-update-slice":
                total += min(nbytes(inside.shape(made.operands[1])), whole)
            elif made.opcode != "parameter" and not continued(made):
                total += whole
        return total

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs: as XLA noted it, or by the number its counter is compared with."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
            return int(known[1])
        condition = self.computations.get(loop.called("condition") or "", Computation())
        numbers = [
            int(found[1]) for one, _ in self._inside(condition)
            if one.opcode == "constant" and (found := re.match(r"(\d+)\)", one.rest))
        ]  # fmt: skip
        return max(numbers, default=1)

    def _inside(self, of: Computation) -> Iterator[tuple[Instruction, Computation]]:
        for one in of.instructions.values():
            yield from self._parts(of, one)

    def source(self, one: Instruction) -> str:
        """The name of what made it and, where the text has it, file and line of our own."""
        seen = {one.name}
        while one.opcode.startswith(("copy", "bitcast")) and "op_name=" not in one.rest:
            before = self.instruction(one.operands[0]) if one.operands else None
            if before is None or before.name in seen:
                break
            one = before
            seen.add(one.name)
        names = [one.rest]
        if one.opcode == "fusion":
            inside = self.computations.get(one.called("calls") or "", Computation())
            names += [part.rest for part in reversed(inside.instructions.values())]
        rest = next((text for text in names if "op_name=" in text), "")
        name = re.search(r'op_name="([^"]*)"', rest)
        frame = re.search(r"stack_frame_id=(\d+)", rest)
        place = self._place(int(frame[1])) if frame else ""
        return " ".join(filter(None, [readable(name[1]) if name else one.opcode, place]))

    def instruction(self, name: str) -> Instruction | None:
        each = (of.instructions.get(name) for of in self.computations.values())
        return next(filter(None, each), None)

    def _place(self, frame: int) -> str:
        """The innermost line of the package that a frame was called from."""
        seen: set[int] = set()
        while frame in self._frames and frame not in seen:
            seen.add(frame)
            file, line, parent = self._frames[frame]
            if "/seqjax/" in file and not file.endswith("/core/mesh.py"):  # its loops are of others
                return f"({file.rpartition('/seqjax/')[2]}:{line})"
            frame = parent
        return ""

    @cached_property
    def _frames(self) -> dict[int, tuple[str, int, int]]:
        """Stack frames of the header: file, line, and the frame that called."""
        numbered = r"^(\d+) "
        files = dict(re.findall(numbered + r'"(.*)"$', self._table("FileNames"), re.MULTILINE))
        places = {n: (files.get(file, ""), int(line)) for n, file, line in re.findall(
            numbered + r"\{file_name_id=(\d+).*? line=(\d+)", self._table("FileLocations"),
            re.MULTILINE)}  # fmt: skip
        return {
            int(n): (*places.get(place, ("", 0)), int(parent))
            for n, place, parent in re.findall(
                numbered + r"\{file_location_id=(\d+) parent_frame_id=(\d+)",
                self._table("StackFrames"), re.MULTILINE,
            )
        }  # fmt: skip

    def _table(self, name: str) -> str:
        begin = self.text.find(f"\n{name}\n")
        return "" if begin < 0 else self.text[begin : self.text.find("\n\n", begin)]


def sent(text: str) -> int:
    """Bytes that each device sends by collectives in a run of a compiled program."""
    return round(sum(one.times * one.sent for one in Program(text).work()))


def readable(name: str) -> str:
    """jit(update)/transpose(jvp(...))/while/body/dot_general as "backward: dot_general"."""
    around = (
        r"jit\(|jvp\(|transpose\(|vmap\(|checkpoint|rematted|"
        r"(while|body|cond|closed_call|shard_map)$"
    )
    words = [word for word in name.split("/") if not re.match(around, word)]
    backward = "backward: " if "transpose(" in name else ""
    return backward + (" > ".join(words[-2:]) or "program")


def _weight(work: list[Work]) -> float:
    return sum(one.times * (one.products + one.bytes) for one in work)
