"""How large a model is: its parameters, the bytes of its state, the work of a step.

    summarise(model)        a table of its modules
    parameters(model)       the number of what is trained
    fitted(config, spec)    the config with the width that meets `config.parameters`

Models and layers may be the shapes that `nnx.eval_shape` gives: nothing is computed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Jaxpr, jaxprs_in_params

from seqjax.core.ranges import check
from seqjax.stacks.config import ModelConfig
from seqjax.stacks.model import Model
from seqjax.stacks.stack import Stack
from seqjax.tasks.task import Spec
from seqjax.zoo import factory

TOLERANCE = 0.02  # share of a budget of parameters by which a model may miss it
WIDEST = 2**20  # features


class Size(NamedTuple):
    """What models are compared by, beside what they score."""

    parameters: int
    state_bytes: int  # that a sequence carries from step to step
    flops_per_token: float  # of a training step, an estimate (`flops`)
    frozen: int = 0  # of the parameters, those that are not trained

    @classmethod
    def of(cls, model: Model, step: Jaxpr, tokens: int, trained: int) -> Size:
        """step: the program of a training step on so many tokens; trained: parameters."""
        state, count = jax.eval_shape(lambda m: m.start(1), model), parameters(model)
        return cls(count, nbytes(state), flops(step) / tokens, count - trained)


def parameters(module: nnx.Module) -> int:
    """The number of its trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def nbytes(tree: Any) -> int:
    """Of all its arrays, or shapes of arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def summarise(module: nnx.Module, depth: int = 3) -> str:
    """A table of the modules inside, down to `depth` names: type, trained parameters, bytes.

    Bytes are of everything that is stored, also of what is not trained. What a model repeats is one
    module, with the parameters of all repetitions.
    """
    lines = [("module", "type", "parameters", "bytes")]
    for path, part in nnx.iter_modules(module):
        lists = isinstance(part, nnx.List)  # their items stand in lines of their own
        if len(path) <= depth and not lists:
            name = ".".join(map(str, path)) or "all"
            size, stored = parameters(part), nbytes(nnx.state(part))
            lines.append((name, type(part).__name__, f"{size:,}", f"{stored:,}"))
    lines[1:] = sorted(lines[1:], key=lambda line: (line[0] != "all", line[0]))
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{name:{width[0]}}  {kind:{width[1]}}  {size:>{width[2]}}  {stored:>{width[3]}}"
        for name, kind, size, stored in lines
    )


# ---- a width for a number of parameters ---------------------------------------------------------


def fitted(config: ModelConfig, spec: Spec) -> ModelConfig:
    """The config with the `features` by which its model has `config.parameters`, which it drops.

    The number grows with the width, so that it is found by bisection, on shapes alone: first among
    the multiples of what the layers divide the width by, such as heads, then among all widths
    between. Raises ValueError, with the nearest numbers there are, where none is within 2 %.
    """
    target = config.parameters
    if target is None:
        return config
    check(config, ModelConfig, "model")
    for layer in config.layer:
        factory((layer.name, layer.options))
    unit, sizes = _unit(config, spec), {0: 0}  # features -> parameters
    low, high, k = 0, None, max(1, config.features // unit)
    while high is None or high - low > 1:
        k = max(k, low + 1) if high is None else min(max(k, low + 1), high - 1)
        n = sizes[k * unit] = _count(config, spec, k * unit)
        low, high = (k, high) if n <= target else (low, k)
        if low * unit >= WIDEST:
            break
        k = round(k * (target / n) ** 0.5)  # matrices grow with the square

    def miss(features: int) -> float:
        return abs(sizes[features] / target - 1)

    if high is not None and miss(min(sizes, key=miss)) > TOLERANCE:
        for features in range(low * unit + 1, high * unit):
            with suppress(ValueError):  # of a width that the layers cannot divide
                sizes[features] = _count(config, spec, features)
    best = min(sizes, key=miss)
    if miss(best) > TOLERANCE:
        below = max(f for f in sizes if sizes[f] <= target)
        above = min((f for f in sizes if sizes[f] > target), default=0)
        near = " and ".join(f"{sizes[f]} of model.features={f}" for f in (below, above) if f)
        raise ValueError(
            f"model.parameters={target} cannot be met within {TOLERANCE:.0%}: the nearest are "
            f"{near}; another depth, or other options of the layers, may"
        )
    return replace(config, features=best, parameters=None)


def _unit(config: ModelConfig, spec: Spec) -> int:
    """What divides a width for sure: with a prime beside it, nothing else can divide it."""
    refused = None
    for unit in range(1, 129):
        try:
            _count(config, spec, 131 * unit)
            return unit
        except ValueError as error:
            refused = error
    raise ValueError(f"model.parameters: no width suits the layers: {refused}")


def _count(config: ModelConfig, spec: Spec, features: int) -> int:
    """The parameters of the model of this width, from one repetition of its patterns."""
    deep, source = config.depth, spec.inputs.pair[0]
    one = replace(
        config, parameters=None, features=features, depth=len(config.layer),
        encoder_depth=len(config.encoder or config.layer) if source else None,
    )  # fmt: skip
    model = nnx.eval_shape(lambda: Model(one, spec, rngs=nnx.Rngs(0)))

    def more(stack: Stack, depth: int) -> int:
        """Than one repetition."""
        sizes = [parameters(block) for block in stack.blocks]
        return sum(sizes[n % len(sizes)] for n in range(depth)) - sum(sizes)

    read = more(model.encoder, config.encoder_depth or deep) if model.encoder else 0
    return parameters(model) + more(model, deep) + read


# ---- work ---------------------------------------------------------------------------------------

# moved, not computed
FREE = {
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice",
    "dynamic_update_slice", "gather", "iota", "pad", "reshape", "rev", "scatter", "select_n",
    "slice", "split", "squeeze", "stop_gradient", "transpose",
}  # fmt: skip


def flops(jaxpr: Jaxpr) -> float:
    """Floating-point operations of a program: 2 n m k of a matrix product, else one a number.

    Read from the program before it is compiled, as XLA's own `cost_analysis` counts the body of a
    loop once, however often it runs. Of branches the dearest counts, of a loop of unknown length
    one turn.
    """
    return sum(map(_flops_of, jaxpr.eqns))


def _flops_of(eqn: Any) -> float:
    inside = [flops(one) for one in jaxprs_in_params(eqn.params)]
    name, out = eqn.primitive.name, [v.aval for v in eqn.outvars]
    if name == "cond":
        return max(inside)
    if inside:
        return eqn.params.get("length", 1) * sum(inside)  # of a scan
    if name in FREE or not any(jnp.issubdtype(a.dtype, jnp.inexact) for a in out):
        return 0
    operands = [v.aval for v in eqn.invars]
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * out[0].size * prod(operands[0].shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        channels = eqn.params["dimension_numbers"].rhs_spec[0]
        return 2 * out[0].size * operands[1].size / operands[1].shape[channels]
    if name == "fft":
        length = prod(eqn.params["fft_lengths"])
        return 2.5 * max(a.size for a in (*operands, *out)) * max(1, length - 1).bit_length()
    return max((getattr(a, "size", 0) for a in (*operands, *out)), default=0)
