"""How the tensors of a checkpoint become our parameters, and back: one table, read both ways.

A table maps their names to our paths. What stands at the path decides how the numbers are arranged:

    Linear, Head weight [out, in]        kernel [in, out]            and bias
    ShortConv   weight [C, 1, width]     weight [width, C]           and bias
    Norm        weight [n]               weight, of any shape        and bias
    Embedding   weight [V, D]            table [V, D]
    a parameter                          as it is

and a form where that is not all: `Shaped`, `Transposed`, `Joined` (several of theirs side by
side in one of ours), `Split` (the other way round), `Stacked` (theirs one by one, ours stacked),
`Halves` (two stacks in one of theirs), `Constant` (numbers that follow from the config). A part
that is None has no tensors. All of them only rearrange numbers, so what is exported is what was
imported, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from seqjax.answers.inputs import Embedding
from seqjax.nn.convolution import ShortConv
from seqjax.nn.norms import Norm
from seqjax.stacks.blocks import Head

Arrays = list[np.ndarray]


class Rule(NamedTuple):
    """theirs: names of tensors; ours: paths of parameters; take and give map lists of arrays."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    take: Callable[[Arrays], Arrays]
    give: Callable[[Arrays], Arrays]


def at(module: Any, path: str) -> Any:
    """What stands at a path such as "tail.0.layer.W_in"; None below None."""
    for name in path.split("."):
        if module is None:
            return None
        module = module[int(name)] if name.isdigit() else getattr(module, name)
    return module


def rules(model: nnx.Module, table: dict[Any, Any]) -> Iterator[Rule]:
    for theirs, ours in table.items():
        several = theirs if isinstance(theirs, tuple) else (theirs,)
        if isinstance(ours, str):
            (name,) = several
            yield from plain(model, name, ours)
        else:
            yield from ours.rules(model, several)


def plain(model: nnx.Module, name: str, path: str) -> Iterator[Rule]:
    """The tensors of the module or parameter at `path`."""
    for part, suffix, own, how in leaves(at(model, path)):
        if part is not None:
            one = arranged(how, part.shape)
            yield Rule((name + suffix,), (path + own,), each(one[0]), each(one[1]))


def leaves(target: Any) -> list[tuple[Any, str, str, str]]:
    """(parameter, end of their name, end of our path, arrangement) of a module or parameter."""
    match target:
        case None:
            return []
        case nnx.Linear() | Head():
            kernel = (target.kernel, ".weight", ".kernel", "transposed")
            return [kernel, (target.bias, ".bias", ".bias", "same")]
        case ShortConv():
            taps = (target.weight, ".weight", ".weight", "taps")
            return [taps, (target.bias, ".bias", ".bias", "same")]
        case Norm():
            weight = (target.weight, ".weight", ".weight", "flat")
            return [weight, (target.bias, ".bias", ".bias", "flat")]
        case Embedding():
            return [(target.table, ".weight", ".table", "same")]
        case nnx.Variable():
            return [(target, "", "", "same")]
    raise TypeError(f"a {type(target).__name__} has no tensors of its own")


def arranged(how: str, shape: tuple[int, ...]):
    """(theirs -> ours, ours -> theirs) for one array that has `shape` here."""
    return {
        "same": (lambda a: a, lambda a: a),
        "transposed": (lambda a: a.T, lambda a: a.T),
        "taps": (lambda a: a[:, 0].T, lambda a: a.T[:, None]),
        "flat": (lambda a: a.reshape(shape), lambda a: a.reshape(-1)),
    }[how]


def each(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: [function(a) for a in arrays]


@dataclass(frozen=True)
class Form:
    ours: str

    def under(self, prefix: str) -> Form:
        return replace(self, ours=f"{prefix}.{self.ours}")

    def rules(self, model: nnx.Module, theirs: tuple[str, ...]) -> Iterator[Rule]:
        raise TypeError(f"{type(self).__name__} must define rules()")


@dataclass(frozen=True)
class Shaped(Form):
    """A parameter that has another shape in the checkpoint; -1 as in reshape."""

    shape: tuple[int, ...]

    def rules(self, model, theirs):
        shape = at(model, self.ours).shape
        back = each(lambda a: a.reshape(self.shape))
        yield Rule(theirs, (self.ours,), each(lambda a: a.reshape(shape)), back)


@dataclass(frozen=True)
class Transposed(Form):
    """A parameter whose last two axes are swapped."""

    def rules(self, model, theirs):
        swap = each(lambda a: np.swapaxes(a, -1, -2))
        yield Rule(theirs, (self.ours,), swap, swap)


@dataclass(frozen=True)
class Joined(Form):
    """Several of their modules with `sizes` outputs side by side in one of ours."""

    sizes: tuple[int, ...]

    def rules(self, model, theirs):
        bounds = np.cumsum(self.sizes)[:-1]
        for part, suffix, own, how in leaves(at(model, self.ours)):
            if part is None:
                continue
            take, give = arranged(how, part.shape)
            yield Rule(
                tuple(name + suffix for name in theirs),
                (self.ours + own,),
                lambda arrays, take=take: [take(np.concatenate(arrays))],
                lambda arrays, give=give: np.split(give(arrays[0]), bounds),
            )


@dataclass(frozen=True)
class Halves(Form):
    """One tensor [n, 2 out, in] that is two parameters [n, in, out], one after the other or, if
    `alternating`, row by row."""

    second: str
    alternating: bool = False

    def under(self, prefix):
        return replace(self, ours=f"{prefix}.{self.ours}", second=f"{prefix}.{self.second}")

    def rules(self, model, theirs):
        def take(arrays):
            two = [arrays[0][:, k::2] for k in (0, 1)]
            two = two if self.alternating else np.split(arrays[0], 2, axis=1)
            return [np.swapaxes(a, 1, 2) for a in two]

        def give(arrays):
            two = [np.swapaxes(a, 1, 2) for a in arrays]
            if not self.alternating:
                return [np.concatenate(two, axis=1)]
            return [np.stack(two, axis=2).reshape(len(two[0]), -1, two[0].shape[2])]

        yield Rule(theirs, (self.ours, self.second), take, give)


@dataclass(frozen=True)
class Split(Form):
    """One of their Linear modules whose outputs are those of several of ours, in order.

    `order`: a permutation of their outputs that brings ours together, as an index array.
    """

    more: tuple[str, ...]
    order: tuple[int, ...] | None = None

    def under(self, prefix):
        more = tuple(f"{prefix}.{path}" for path in self.more)
        return replace(self, ours=f"{prefix}.{self.ours}", more=more)

    def rules(self, model, theirs):
        paths = (self.ours, *self.more)
        for suffix, own in ((".weight", "kernel"), (".bias", "bias")):
            parts = [at(model, f"{path}.{own}") for path in paths]
            if parts[0] is None:
                continue
            bounds = np.cumsum([part.shape[-1] for part in parts])
            order = np.arange(bounds[-1]) if self.order is None else np.asarray(self.order)
            back = np.argsort(order)

            def take(arrays, order=order, bounds=bounds):
                return [a.T for a in np.split(arrays[0][order], bounds[:-1])]

            def give(arrays, back=back):
                return [np.concatenate([a.T for a in arrays])[back]]

            (name,) = theirs
            yield Rule((name + suffix,), tuple(f"{p}.{own}" for p in paths), take, give)


@dataclass(frozen=True)
class Stacked(Form):
    """Weights that they keep one by one, `{}` in the name, and we in one parameter [n, in, out]."""

    def rules(self, model, theirs):
        count = at(model, self.ours).shape[0]
        (name,) = theirs
        yield Rule(
            tuple(f"{name.format(n)}.weight" for n in range(count)),
            (self.ours,),
            lambda arrays: [np.stack([a.T for a in arrays])],
            lambda arrays: [a.T for a in arrays[0]],
        )


@dataclass(frozen=True)
class Constant:
    """Numbers in the checkpoint that follow from its config: checked, and written back as read."""

    value: Any

    def under(self, prefix: str) -> Constant:
        return self

    def rules(self, model, theirs):
        yield Rule(theirs, (), lambda arrays: [], lambda arrays: [np.asarray(self.value)])


@dataclass(frozen=True)
class Rows(Form):
    """Several of their parameters, all of `shape`, that are the rows of one of ours."""

    shape: tuple[int, ...]

    def rules(self, model, theirs):
        shape = at(model, self.ours).shape
        yield Rule(
            theirs,
            (self.ours,),
            lambda arrays: [np.stack(arrays).reshape(shape)],
            lambda arrays: [row.reshape(self.shape) for row in arrays[0]],
        )
