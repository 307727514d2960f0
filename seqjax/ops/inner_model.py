"""The small model that learns inside a layer (`seqjax.ops.inner_learning`), and its state.

    z = f(k), a matrix product or several with an activation between
    loss(z; k, v),   y = output(f(q); q)

one head at a time, steps [C, D]. `Inner` is all that is static about it; its weights are a state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.mesh import alike


def layer_norm(z: Array, norm: tuple[Array, Array], eps: float) -> Array:
    z = z - jnp.mean(z, axis=-1, keepdims=True)
    z = z * lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + eps)
    weight, bias = norm
    return weight[None] * z + bias[None]


def regression(z: Array, k: Array, v: Array, norm: Any, eps: float) -> Array:
    """Of |z - v|^2 / 2."""
    del k, norm, eps
    return z - v


def residual(z: Array, k: Array, v: Array, norm: Any, eps: float) -> Array:
    """Of |k + LN(z) - v|^2 / 2."""
    return jax.grad(lambda z: jnp.sum((k + layer_norm(z, norm, eps) - v) ** 2) / 2)(z)


def residual_fla(z: Array, k: Array, v: Array, norm: Any, eps: float) -> Array:
    """`residual` as flash-linear-attention takes it in its Titans: the division by the standard
    deviation and by D reaches two of the three terms of the norm's derivative."""
    D, centred = z.shape[-1], z - jnp.mean(z, axis=-1, keepdims=True)
    rstd = lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    unit, g = centred * rstd, (k + layer_norm(z, norm, eps) - v) * norm[0][None]
    along = jnp.sum(g, axis=-1, keepdims=True) + unit * jnp.sum(g * unit, axis=-1, keepdims=True)
    return D * g - along * rstd / D


def still(z: Array, k: Array) -> Array:
    """z = f(k), held constant where a step is silent: a key of zeros, answered by a constant.

    There the norm's derivative is eps^-1/2, a thousand, and that of its gradient a million: the
    releases follow it, and after 64 steps of silence their gradients are infinite. The value, and
    what a gradient owes to the target and the norm's weights, is theirs.
    """
    silent = jnp.all(k == 0, axis=-1, keepdims=True) & jnp.all(
        z == z[:, :1], axis=-1, keepdims=True
    )
    return jnp.where(silent, lax.stop_gradient(z), z)


# name -> the derivative by z = f(k) of a loss of steps [C, D]
LOSSES: dict[str, Callable[..., Array]] = {
    "regression": regression,
    "residual": residual,
    "residual_fla": residual_fla,
}
# name -> what is read out of z = f(q)
OUTPUTS: dict[str, Callable[..., Array]] = {
    "plain": lambda z, q, norm, eps: z,
    "query": lambda z, q, norm, eps: q + layer_norm(z, norm, eps),
    "inner": lambda z, q, norm, eps: z + layer_norm(z, norm, eps),
}


@dataclass(frozen=True)
class Inner:
    """The inner model, its loss, and how it is read."""

    size: int  # steps that share the weights their gradients are taken at
    loss: str = "residual"
    output: str = "query"
    activation: Callable[[Array], Array] = jax.nn.gelu  # between layers
    bias: bool = True
    eps: float = 1e-6

    def layer(self, x: Array) -> Array:
        """The input [C, in] of a layer, with the 1 its bias is multiplied by."""
        return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1) if self.bias else x

    def run(self, x: Array, products: Any) -> tuple[Array, list[Array]]:
        """f(x) for x [C, D] and the inputs of its layers; products: one function per layer."""
        inputs = []
        for n, product in enumerate(products):
            inputs.append(self.layer(x if not n else self.activation(x)))
            x = product(inputs[-1])
        return x, inputs

    def gradients(self, W, k: Array, v: Array, norm) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Inputs [C, in] and errors [C, out] of every layer: the gradient of step s is
        x_s e_s^T."""

        def f(offsets):
            products = [lambda x, w=w, o=o: x @ w + o for w, o in zip(W, offsets)]
            z, inputs = self.run(k, products)
            return z, inputs

        # of one type with the rest, or devices would add up their errors inside `jax.shard_map`
        zeros, *_ = alike(tuple(jnp.zeros((len(k), w.shape[1]), w.dtype) for w in W), k, W)
        z, pull, inputs = jax.vjp(f, zeros, has_aux=True)
        (errors,) = pull(LOSSES[self.loss](still(z, k), k, v, norm, self.eps))
        return tuple(inputs), errors

    def read(self, z: Array, q: Array, norm) -> Array:
        return OUTPUTS[self.output](z, q, norm, self.eps)


class Steps(NamedTuple):
    """What the steps bring; None where the optimiser has no such thing."""

    q: Any  # [T, H, D]
    k: Any  # [T, H, D]
    v: Any  # [T, H, D]
    theta: Any  # [T, H], step sizes
    tau: Any = None  # [T, H]
    log_eta: Any = None  # [T, H], <= 0
    log_keep: Any = None  # [T, H], log(1 - alpha) <= 0
    mask: Any = None  # bool [T]


class Learner(NamedTuple):
    """The state. Weights are one matrix [H, in, out] per layer of f; with biases, the last row."""

    W: Any
    U: Any  # as W
    m: Any  # as W, or None without momentum
    d: Any  # [H], or None without decay
    count: Any  # int32 [], steps in the current chunk; None while one head is looked at


def start_of(W: tuple[Array, ...], *, momentum: bool, decay: bool) -> Learner:
    """Where learning begins, at weights [H, in, out]."""
    zeros = tuple(jnp.zeros_like(w) for w in W)
    d = jnp.ones(W[0].shape[:1], W[0].dtype) if decay else None
    return Learner(tuple(W), zeros, zeros if momentum else None, d, jnp.zeros((), jnp.int32))


def weights(W, U, d, tau) -> tuple[Array, ...]:
    d, tau = 1.0 if d is None else d, 1.0 if tau is None else tau
    return tuple(d * w + tau * u for w, u in zip(W, U))


def fold(h: Learner, R: tuple[Array, ...]) -> Learner:
    """The state at the start of a chunk that begins with the weights R."""
    zeros = tuple(jnp.zeros_like(u) for u in h.U)
    return Learner(R, zeros, h.m, None if h.d is None else jnp.ones_like(h.d), None)


def where(flag: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), yes, no)
