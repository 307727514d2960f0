"""What the golden adapters share: a layer with the reference's weights, a case that is all read."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Frozen


def with_parameters(layer, values):
    """The layer with its parameters replaced, all of them: {"W.kernel": array, ...}."""
    graph, params, rest = nnx.split(layer, (nnx.Param, Frozen), ...)
    flat = {".".join(map(str, path)): (path, p) for path, p in nnx.to_flat_state(params)}
    assert set(flat) == set(values), f"parameters {sorted(flat)}, given {sorted(values)}"
    for name, (path, p) in flat.items():
        assert p.shape == values[name].shape, f"{name}: {p.shape}, given {values[name].shape}"
        flat[name] = path, p.replace(jnp.asarray(values[name]))
    return nnx.merge(graph, nnx.from_flat_state(flat.values()), rest)


def without_resets(method, evaluator):
    """A method(..., h, flow) of a layer, over a batch: its last argument is the state."""

    def one(*arguments):
        *arguments, h = arguments
        return method(*arguments, Carry(h, h), Flow(evaluator=evaluator))

    return jax.vmap(one)


class Settings(Mapping[str, Any]):
    """The settings or inputs of a case, which remember which of them an adapter looked at.

    A setting that nobody looked at is one that the answer cannot depend on: where the reference
    depends on it, the numbers agree by luck.
    """

    def __init__(self, settings: Mapping[str, Any]):
        self.settings = {k: Settings(v) if isinstance(v, dict) else v for k, v in settings.items()}
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def __len__(self) -> int:
        return len(self.settings)

    def expect(self, **values: Any) -> None:
        """Settings that the adapter has from elsewhere, a shape or the layer itself, compared."""
        for name, value in values.items():
            assert self[name] == value, f"{name} is {self[name]!r} in the case, {value!r} here"

    def ignore(self, *names: str) -> None:
        """Settings and inputs that are known not to matter."""
        self.read.update(names)

    def unread(self, known: frozenset[str] = frozenset()) -> list[str]:
        """Names nobody looked at, "options.scale" for those inside others; not those `known`."""
        found = []
        for name, value in self.settings.items():
            if name in known:
                continue
            if isinstance(value, Settings) and (name in self.read or not value):
                found += [f"{name}.{inner}" for inner in value.unread(known)]
            elif name not in self.read:
                found.append(name)
        return found
