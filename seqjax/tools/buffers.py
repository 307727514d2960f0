"""What a compiled program takes in the memory of one device, from XLA's assignment of buffers."""

from __future__ import annotations

import re
from typing import NamedTuple

from seqjax.tools.hlo import Program
from seqjax.tools.instructions import SHAPE

ALLOCATION = re.compile(r"allocation (\d+): size (\d+), (.*):$")
VALUE = re.compile(r" value: <\d+ (\S+?)(?:\{[\d,]*\})? @\d+> \(size=(\d+),offset=(\d+)\): (.*)")


class Buffer(NamedTuple):
    """One place in memory, which several arrays take in turn."""

    bytes: int
    shape: str  # of the first of them
    source: str  # what made it, and where that is written


class Memory(NamedTuple):
    """Bytes of one device."""

    arguments: int  # the state and the batch; the state that comes out takes their place
    temporaries: int  # at their peak
    outputs: int  # that take no place of an argument
    buffers: tuple[Buffer, ...]  # the largest, the state and the batch among them

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.outputs


def memory_of(text: str, program: Program, count: int = 8) -> Memory:
    """text: the assignment, as XLA dumps it beside the program."""
    arguments = temporaries = outputs = 0
    found: dict[tuple[int, int], tuple[int, str, str]] = {}
    counted, allocation = False, 0
    for line in text.splitlines():
        if begins := ALLOCATION.match(line):
            allocation, size, kind = int(begins[1]), int(begins[2]), begins[3]
            # a color is another memory, thread-local is inside of a fusion, a constant is code
            counted = not re.match(r"color|thread-local|constant", kind)
            if counted and kind.startswith("parameter"):
                arguments += size
            elif counted and "temp" in kind:
                temporaries += size
            elif counted:
                outputs += size
        elif counted and (value := VALUE.match(line)) and not value[4].startswith("("):
            place, one = (allocation, int(value[3])), (int(value[2]), value[1], value[4])
            if one[0] > found.get(place, (0,))[0]:
                found[place] = one
    largest = sorted(found.values(), reverse=True, key=lambda value: value[0])[:count]
    buffers = []
    for size, name, shape in largest:
        one, kind = program.instruction(name), SHAPE.search(shape)
        text = f"{kind[1]}[{kind[2]}]" if kind else shape
        buffers.append(Buffer(size, text, program.source(one) if one else name))
    return Memory(arguments, temporaries, outputs, tuple(buffers))
