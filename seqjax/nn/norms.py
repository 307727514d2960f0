"""Normalisation over the last axis."""

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.nn.variables import Precise


class Norm(nnx.Module):
    """x / sqrt(mean x^2 + eps) * weight over the last axis; weights of any `shape` that x ends in.

    `centre` subtracts the mean first (LayerNorm; with a shape [H, V], GroupNorm of H groups).
    `offset` 1 stores weight - 1 (Gemma's way); weight=False has none. In at least float32. At zero
    its derivative is weight eps^-1/2, as in every release: a thousand times for each norm that
    silence passes through in a stack.
    """

    def __init__(
        self,
        *shape: int,
        centre: bool = False,
        bias: bool = False,
        weight: bool = True,
        offset: float = 0.0,
        eps: float = 1e-6,
    ):
        self.weight = Precise(jnp.full(shape, 1.0 - offset)) if weight else None
        self.bias = Precise(jnp.zeros(shape)) if bias else None
        self.centre, self.offset, self.eps = centre, offset, eps

    def __call__(self, x: Array) -> Array:
        dtype = accumulation_dtype(x.dtype)
        z = x.astype(dtype)
        if self.centre:
            z = z - jnp.mean(z, axis=-1, keepdims=True)
        z = z * lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + self.eps)
        if self.weight is not None:
            z = z * jnp.broadcast_to(self.weight[...] + self.offset, z.shape)
        if self.bias is not None:
            z = z + jnp.broadcast_to(self.bias[...], z.shape)
        return z.astype(x.dtype)


NORMS = {"layer": dict(centre=True, bias=True), "rms": {}, "plain": dict(weight=False)}
"""Options of a `Norm` by the name of its kind: LayerNorm, RMSNorm, and that without weights."""


def unit(x: Array, eps: float = 1e-6) -> Array:
    """x / sqrt(|x|^2 + eps) over the last axis: near length one, and smooth at zero."""
    z = x.astype(accumulation_dtype(x.dtype))
    return (z * lax.rsqrt(jnp.sum(z * z, axis=-1, keepdims=True) + eps)).astype(x.dtype)
