"""Liquid-S4 (Hasani et al. 2022, arXiv:2209.12951): S4 whose transition depends on the input.

    x'(t) = [A + B 1^T u(t)] x(t) + B u(t)                 a linear liquid time-constant network
    x_k = (Abar + Bbar 1^T u_k) x_{k-1} + Bbar u_k         sec. 3.1

Unrolled, y is S4's convolution plus terms in products of inputs. Those of p inputs in a row,
c_p,k = u_k u_{k-1} ... u_{k-p+1}, are kept up to p = `degree`:

    y = K * u + sum_p (K s^(p-1)) * c_p                    "kb"                    s = 1^T Bbar
    y = K * u + sum_p (C Bbar s^(p-1)) c_p                 "pb": the same with Abar = I inside

so "kb" is S4 on the input u + sum_p s^(p-1) c_p, and "pb", which the paper found better, adds the
products at once. B 1^T is how the released code reads the paper's `I_N B`: B u is added to every
column of A, so that (Bbar 1^T)^(p-1) Bbar = s^(p-1) Bbar. The state is S4's and the last
degree - 1 inputs. The rest is `seqjax.layers.ssm.s4`.

The released code computes something else; `released` is that, for whole sequences of known length:
the products are turned around in time (so y_k sees the future), the degree doubles with each term
(u_k u_{k-1}^2 u_{k-2} and s^3 for p = 3), Bbar leaves the low-rank part out, and "kb" multiplies
spectra of different lengths. Of its options not here: allcombs, products of inputs that need not be
neighbours, whose choice depends on the length of the whole input, and lcontract, a tanh of the
products.
"""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry
from seqjax.layers.ssm.s4 import S4
from seqjax.nn.base import option
from seqjax.nn.convolution import token_shift
from seqjax.ops.convolution import fft_convolution

KERNELS = ("pb", "kb")


class LiquidState(NamedTuple):
    h: Array  # complex [features, N/2]
    window: Array  # [degree - 1, features], the last inputs, newest last


class LiquidS4(S4):
    side_ops = ("short_convolution",)

    def __init__(
        self,
        features: int,
        *,
        kernel: str = "pb",
        degree: int = 2,
        state: int = 64,
        measure: str = "legs",
        length: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        if degree < 2:
            raise ValueError(f"products of inputs have a degree of at least 2, got {degree}")
        self.liquid, self.degree = option("kernel", kernel, KERNELS), degree
        super().__init__(
            features,
            state=state,
            measure=measure,
            length=length,
            dt_min=dt_min,
            dt_max=dt_max,
            mix=mix,
            rngs=rngs,
        )

    def initial(self):
        return LiquidState(super().initial(), jnp.zeros((self.degree - 1, self.features)))

    def run(self, x, h, flow):
        system, window = self.system(), h.now.window
        u = x.astype(window.dtype)
        s = 2 * jnp.sum(system.B.real, axis=1)
        product, power, terms = u, s, jnp.zeros_like(u)
        for lag in range(1, self.degree):
            newest = Carry(h.now.window[-lag:], h.start.window[-lag:])
            past, window = token_shift(u, newest, flow=flow)
            product = product * past
            terms += power[None] * product
            power = power * s
        drive = u + terms if self.liquid == "kb" else u
        y, state = self.recurrence(drive, h.h, flow)
        if self.liquid == "pb":
            y += self.read(system, system.B)[None] * terms
        return self.output(y, x), LiquidState(state, window)


def released(
    u: Array,
    K: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    *,
    kernel: str = "pb",
    degree: int = 2,
    combinations: bool = False,
) -> Array:
    """The released code's y [T, H], not causal: u [T, H], S4's K [H, T], dt, D [H], A, B, C [H, n].

    combinations: products of any p of the last inputs, T of them, in place of neighbours.
    """
    T = len(u)
    step = dt[:, None].astype(A.dtype)
    Bbar = step * B / (1 - step / 2 * A)
    y = fft_convolution(u, K.T)[0] + D[None] * u
    s, K_liquid, product, spectrum = 2 * jnp.sum(Bbar.real, axis=1), K, u, 0.0
    for p in range(2, degree + 1):
        if combinations:
            product = products_of(u, p)
        else:
            product = product * jnp.concatenate([jnp.zeros_like(u[:1]), product[:-1]])
        if kernel == "pb":
            Bbar, s = Bbar * s[:, None].astype(Bbar.dtype), s**2
            y += product[::-1] * 2 * jnp.sum((C * Bbar).real, axis=1)[None]
        else:
            K_liquid = K_liquid * s[:, None]
            turned = jnp.fft.rfft(product[::-1], 2 * T, axis=0)
            spectrum += turned * jnp.fft.fft(K_liquid.T, T + 1, axis=0)
    return y if kernel == "pb" else y + jnp.fft.irfft(spectrum, 2 * T, axis=0)[:T]


def products_of(u: Array, p: int) -> Array:
    """T products of p inputs each: the last T choices from the fewest last steps that have T."""
    T = len(u)
    enough = next((n for n in range(2, T) if math.comb(n, p) >= T), 1)
    chosen = np.array(list(itertools.combinations(range(T - enough, T), p))[-T:], int)
    found = jnp.prod(u[chosen.reshape(-1, p)], axis=1)
    return jnp.concatenate([found, jnp.zeros((T - len(found), *u.shape[1:]), u.dtype)])
