"""The text of one instruction of a compiled program: its shapes, flops and what it exchanges."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4,
         "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8, "c128": 16}  # fmt: skip
ELEMENTWISE = frozenset(
    "abs add and atan2 cbrt ceil clamp compare convert cosine divide erf exponential "
    "exponential-minus-one floor is-finite log log-plus-one logistic maximum minimum multiply "
    "negate not or power remainder round-nearest-afz round-nearest-even rsqrt select shift-left "
    "shift-right-arithmetic shift-right-logical sign sine sqrt subtract tan tanh xor".split()
)
SHAPE = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")


@dataclass
class Instruction:
    name: str
    shape: str  # as it is written, with its layout
    opcode: str
    rest: str  # operands and attributes

    @cached_property
    def operands(self) -> list[str]:
        depth = 1
        for n, c in enumerate(self.rest):
            depth += (c == "(") - (c == ")")
            if not depth:
                return re.findall(r"%([\w.-]+)", self.rest[:n])
        return []

    def called(self, attribute: str) -> str | None:
        found = re.search(rf"\b{attribute}=%?([\w.-]+)", self.rest)
        return found[1] if found else None

    @property
    def dims(self) -> tuple[int, ...]:
        return dims_of(self.shape)


@dataclass
class Computation:
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {}
        for one in self.instructions.values():
            for name in one.operands:
                found.setdefault(name, []).append(one)
        return found

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {
            int(one.rest.partition(")")[0]): one
            for one in self.instructions.values() if one.opcode == "parameter"
        }  # fmt: skip

    def shape(self, name: str) -> str:
        return self.instructions[name].shape if name in self.instructions else ""


def dims_of(shape: str) -> tuple[int, ...]:
    found = SHAPE.search(shape)
    return tuple(int(n) for n in found[2].split(",") if n) if found else ()


def nbytes(shape: str, *, held: bool = False) -> int:
    """Of the text of a shape, or of a tuple of them; held: in the memory of the device, where tiles
    are whole and what is elsewhere takes nothing."""
    total = 0
    for kind, size, order, layout in SHAPE.findall(shape):
        dims = [int(n) for n in size.split(",") if n]
        if held and re.search(r"S\([1-9]", layout):
            continue
        tile = re.search(r"T\(([\d,]+)\)", layout) if held else None
        if tile:
            tiles = [int(n) for n in tile[1].split(",")]
            minor = [int(n) for n in order.split(",") if n]
            for axis, by in zip(minor, reversed(tiles)):
                dims[axis] = -(-dims[axis] // by) * by
        total += SIZES.get(kind, 0) * prod(dims)
    return total


def continued(one: Instruction) -> bool:
    """Whether a collective is the same as one that began in another fusion."""
    flag = re.search(r'"async_collective_fusion_config":\{"flag_start":"(-?\d+)"', one.rest)
    return flag is not None and flag[1] != "-1"


def group_size(rest: str, devices: int) -> int:
    """How many devices exchange, from the three ways in which groups are written."""
    if one := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", one[1]))
        return prod(int(sizes.get(name, 1)) for name in re.findall(r"'([^']*)'", one[2]))
    if one := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(one[1].split(","))
    if one := re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest):
        return int(one[1])
    return devices


def ring(kind: str, n: int) -> float:
    """Bytes that each of n devices sends, of one byte that it gives."""
    share = (n - 1) / n
    return {"all-gather": n - 1, "all-reduce": 2 * share, "collective-permute": 1}.get(kind, share)


def product_flops(of: Computation, one: Instruction) -> float:
    """Of a matrix product or a convolution."""
    out = prod(one.dims)
    if one.opcode == "convolution":
        return 2.0 * _convolved(of, one)
    contracted = re.search(r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)', one.rest)
    if contracted is None or not (
        one.opcode == "dot" or "gemm" in one.rest or "matmul" in one.rest
    ):
        return 0.0
    lhs = dims_of(of.shape(one.operands[0]))
    return 2.0 * out * prod(lhs[int(n)] for n in contracted[1].replace('"', "").split(",") if n)


def _convolved(of: Computation, one: Instruction) -> float:
    """Multiply-adds of a convolution, without those of padding and of holes."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.rest)
    if labels is None:
        return 0.0
    left, right, result = labels.groups()
    lhs, rhs = (dims_of(of.shape(name)) for name in one.operands[:2])
    window = re.search(r"window=\{([^}]*)\}", one.rest)
    options = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
    batches = re.search(r"batch_group_count=(\d+)", one.rest)
    total = prod(one.dims[result.index(c)] for c in "bf") * rhs[right.index("i")]
    total //= int(batches[1]) if batches else 1

    def of_axis(name: str, axis: int, default: int) -> int:
        return int(options[name].split("x")[axis]) if name in options else default

    for axis in range(len(result) - 2):
        place = str(axis)
        size, kernel = lhs[left.index(place)], rhs[right.index(place)]
        stride, holes = of_axis("stride", axis, 1), of_axis("lhs_dilate", axis, 1)
        spread = of_axis("rhs_dilate", axis, 1)
        low = int(options["pad"].split("x")[axis].split("_")[0]) if "pad" in options else 0
        reach = (size - 1) * holes
        total *= sum(
            1
            for y in range(one.dims[result.index(place)])
            for k in range(kernel)
            if 0 <= (at := y * stride + k * spread - low) <= reach and at % holes == 0
        )
    return total


def is_exact(of: Computation, one: Instruction) -> bool:
    wide = all(of.shape(name).startswith(("f32", "c64")) for name in one.operands[:2])
    return wide and re.search(r'operand_precision"?[=:].{0,3}highest', one.rest, re.I) is not None


def elementwise_flops(of: Computation, one: Instruction) -> float:
    if one.opcode in ELEMENTWISE:
        return prod(one.dims)
    if one.opcode in ("reduce", "reduce-window") and one.operands:
        return prod(dims_of(of.shape(one.operands[0])))
    return 0.0
