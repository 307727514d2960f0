"""Matrices for heads, gated linear units."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.nn.activations import gelu_tanh, silu


def per_head(what: str, size: int, heads: int) -> int:
    """size / heads, or one error if the heads do not divide it."""
    if heads < 1 or size % heads:
        raise ValueError(f"{what} = {size} cannot be split into {heads} equal parts")
    return size // heads


def split_heads(x: Array, heads: int) -> Array:
    """[T, heads * K] -> [T, heads, K]."""
    return x.reshape(len(x), heads, x.shape[1] // heads)


def merge_heads(x: Array) -> Array:
    """[T, heads, K] -> [T, heads * K]."""
    return x.reshape(len(x), x.shape[1] * x.shape[2])


def wide(x: Array) -> Array:
    """x in at least float32.

    What heads read is summed over all time before a norm or a quotient brings it back in range: in
    float16 it would leave 65504 long before. An op whose values are wide returns wide outputs.
    """
    return x.astype(accumulation_dtype(x.dtype))


class GLU(nnx.Module):
    """W_3 (f(W_1 x) * g(W_2 x)), a gated linear unit in place of an MLP (arXiv:2002.05202)."""

    def __init__(
        self,
        features: int,
        inner: int,
        f: Callable[[Array], Array] = silu,
        *,
        g: Callable[[Array], Array] | None = None,
        bias: bool = False,
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        """g: None, as in the paper: the identity. scale: of the first W_3, over the usual fan-in
        one."""
        self.f, self.g = f, g
        init = nnx.initializers.variance_scaling(scale**2, "fan_in", "normal")
        self.W_1, self.W_2 = (
            nnx.Linear(features, inner, use_bias=bias, rngs=rngs) for _ in range(2)
        )
        self.W_3 = nnx.Linear(inner, features, use_bias=bias, kernel_init=init, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        z = self.W_2(x)
        return self.W_3(self.f(self.W_1(x)) * (z if self.g is None else self.g(z)))


class MLP(nnx.Module):
    """W_2 f(W_1 x)."""

    def __init__(
        self,
        features: int,
        inner: int,
        f: Callable[[Array], Array] = gelu_tanh,
        *,
        bias: bool = False,
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        """scale: of the first W_2, over the usual fan-in one."""
        self.f = f
        self.W_1, self.W_2 = (
            nnx.Linear(
                n,
                m,
                use_bias=bias,
                kernel_init=nnx.initializers.variance_scaling(s**2, "fan_in", "normal"),
                rngs=rngs,
            )
            for n, m, s in ((features, inner, 1.0), (inner, features, scale))
        )

    def __call__(self, x: Array) -> Array:
        return self.W_2(self.f(self.W_1(x)))


class Bottleneck(nnx.Module):
    """W_2 W_1 x, through `rank` channels."""

    def __init__(
        self,
        n: int,
        rank: int,
        m: int,
        *,
        bias: bool = False,
        init: Any = None,
        rngs: nnx.Rngs,
    ):
        drawn: dict[str, Any] = {} if init is None else {"kernel_init": init}
        self.W_1 = nnx.Linear(n, rank, use_bias=False, rngs=rngs, **drawn)
        self.W_2 = nnx.Linear(rank, m, use_bias=bias, rngs=rngs, **drawn)

    def __call__(self, x: Array) -> Array:
        return self.W_2(self.W_1(x))


class HeadLinear(nnx.Module):
    """A matrix for each head: [T, heads * n] or [T, heads, n] to [T, heads, m]."""

    def __init__(self, heads: int, n: int, m: int, *, init=None, rngs: nnx.Rngs):
        init = init or nnx.initializers.lecun_normal(batch_axis=0)
        self.kernel = nnx.Param(init(rngs.params(), (heads, n, m), jnp.float32))

    def __call__(self, x: Array) -> Array:
        x = x.reshape(len(x), *self.kernel.shape[:2])
        return jnp.einsum("thn,hnm->thm", x, self.kernel[...])
