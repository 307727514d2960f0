"""Liquid time-constant network (Hasani et al. 2021, arXiv:2006.04439), with its fused solver.

    c_j v_j' = g_j (v_leak_j - v_j) + sum_i S_ij (E_ij - v_j)
    S_ij = w_ij sigmoid(sigma_ij (v_i - mu_ij))

over the synapses i -> j from the inputs and among the units; v [hidden], matrices [source, target].
The synapses make the time constant of a unit, c / (g + sum S), depend on what arrives. `unfolds`
semi-implicit steps of ds = dt / unfolds an input (alg. 1), dt that of flow.dt or 1:

    v <- (c v + ds (g v_leak + sum S E)) / (c + ds (g + sum S + eps))                   eq. 3

Inputs are a_in x + b_in, outputs a_out v + b_out of the first `outputs` units, each map "affine",
"linear" (no b) or "none". For control and signals with few units, sampled at uneven times.

A share `density` of the synapses is there (`mask`, which may be set to any wiring); E starts at -1
for a third of them and 1 for the others, the rest in the ranges of the release. w, c and g are
softplus of their parameters with `implicit`; without, they are the parameters, which training has
to keep above 0, as the release does after each update. With `mixed_memory`, as in the release, an
LSTM takes (x_t, v) first and its h is where the solver starts, while its cell stays with it.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.layers.classic.lstm import LSTM, LSTMState
from seqjax.nn.base import Frozen, Precise, option
from seqjax.nn.recurrent import Recurrent

MAPPINGS = ("affine", "linear", "none")


class Synapses(nnx.Module):
    """From `sources` to `targets`: S and S E, summed over the sources."""

    def __init__(self, sources: int, targets: int, density: float, rngs: nnx.Rngs):
        shape = sources, targets

        def draw(low, high):
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=low, maxval=high))

        self.w, self.sigma, self.mu = draw(0.001, 1.0), draw(3.0, 8.0), draw(0.3, 0.8)
        self.mask = Frozen(jax.random.bernoulli(rngs.params(), density, shape).astype(jnp.float32))
        sign = jnp.where(jax.random.bernoulli(rngs.params(), 1 / 3, shape), -1.0, 1.0)
        self.E = nnx.Param(sign * self.mask[...])

    def __call__(self, v: jax.Array, positive) -> tuple[jax.Array, jax.Array]:
        gate = jax.nn.sigmoid(self.sigma[...] * (v[:, None] - self.mu[...]))
        S = positive(self.w[...]) * gate * self.mask[...]
        return S.sum(0), (S * self.E[...]).sum(0)


class LTC(Recurrent):
    timed = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        outputs: int | None = None,
        unfolds: int = 6,
        implicit: bool = True,
        density: float = 1.0,
        input_mapping: str = "affine",
        output_mapping: str = "affine",
        eps: float = 1e-8,
        mixed_memory: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.hidden = hidden or features
        M = self.out_features = outputs or H
        if M > H:
            raise ValueError(f"outputs are the first of the units: at most {H}, got {M}")
        self.unfolds, self.implicit, self.eps = unfolds, implicit, eps
        self.input, self.within = (Synapses(n, H, density, rngs) for n in (features, H))

        def draw(low, high):
            return Precise(jax.random.uniform(rngs.params(), (H,), minval=low, maxval=high))

        self.memory = LSTM(features, hidden=H, rngs=rngs) if mixed_memory else None
        self.c, self.g, self.v_leak = draw(0.4, 0.6), draw(0.001, 1.0), draw(-0.2, 0.2)
        self.a_in, self.b_in = mapping(features, "input_mapping", input_mapping)
        self.a_out, self.b_out = mapping(M, "output_mapping", output_mapping)

    def positive(self, w: jax.Array) -> jax.Array:
        return jax.nn.softplus(w) if self.implicit else w

    def initial(self):
        return jnp.zeros(self.hidden) if self.memory is None else self.memory.initial()

    def drive(self, x, flow):
        more = None if self.memory is None else self.memory.drive(x)
        into = jax.vmap(partial(mapped, a=self.a_in, b=self.b_in))(x)
        arrives = jax.vmap(lambda x: self.input(x, self.positive))(into)
        return arrives, more, flow.elapsed(x)

    def step(self, h, z):
        (given, driven), more, dt = z
        memory = None if self.memory is None else self.memory.step(h, more)
        c, g, ds = self.positive(self.c[...]), self.positive(self.g[...]), dt / self.unfolds
        leak = g * self.v_leak + driven

        def unfold(_, v):
            S, SE = self.within(v, self.positive)
            v_new = (c * v + ds * (leak + SE)) / (c + ds * (g + given + S + self.eps))
            return v_new.astype(v.dtype)

        v = lax.fori_loop(0, self.unfolds, unfold, h if memory is None else memory.h)
        return v if memory is None else LSTMState(v, memory.c)

    def readout(self, h, x):
        v = h if self.memory is None else h.h
        return mapped(v[: self.out_features], self.a_out, self.b_out)


def mapping(size: int, what: str, name: str) -> tuple[nnx.Param | None, nnx.Param | None]:
    """a and b, each where there is one."""
    a, b = option(what, name, MAPPINGS) != "none", name == "affine"
    return nnx.Param(jnp.ones(size)) if a else None, nnx.Param(jnp.zeros(size)) if b else None


def mapped(x: jax.Array, a: nnx.Param | None, b: nnx.Param | None) -> jax.Array:
    """a x + b, of what there is of it."""
    x = x if a is None else a * x
    return x if b is None else x + b
