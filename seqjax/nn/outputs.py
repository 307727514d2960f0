"""A layer or model as a plain function of its inputs: the state after them is dropped."""

from flax import nnx
from jax import Array


class Outputs(nnx.Module):
    """y = module(x)[0]: what stands among modules that pass one array on.

    >>> nnx.Sequential(nnx.Linear(3, 16, rngs=rngs), Outputs(layer), nnx.Linear(16, 2, rngs=rngs))

    A layer returns outputs and a state; `nnx.Sequential` takes the pair for two arguments of what
    comes next. Every call begins at the start of a sequence; to stream, call the layer itself,
    which is `module` here.

    options: of the layer's call: `resets`, `mask`, `evaluator`, `reverse`; of a model's, `key`.
    """

    def __init__(self, module: nnx.Module):
        self.module = module

    def __call__(self, x: Array, **options) -> Array:
        return self.module(x, **options)[0]  # pyright: ignore[reportCallIssue]
