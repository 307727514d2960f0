"""Continuous-time fast weight programmers (Irie et al. 2022, arXiv:2206.01649).

Fast weights W(s) [D, D] per head obey a differential equation whose right side is a learning rule;
x(s) is the line between the observations x_{t-1} and x_t, over the time dt between them (1, or that
of flow.dt):

    hebb     W' = beta v k^T
    oja      W' = beta v softmax(k - W^T v)^T
    delta    W' = beta (v - W k) k^T
    y_t = W_o W(t) softmax(W_q u(t)),    u(s) = LN(W_in x(s) + b_in)

control "ode" makes all of it from x(s): k = softmax(W_k u), v = tanh(W_v u), beta = sigmoid(w_b u);
the softmax of oja takes the place of the one on k. control "cde" is the neural controlled form, in
which one of the two comes from the velocity x'(s) = (x_t - x_{t-1}) / dt: the value of hebb,
W_v x', and of oja, tanh(W_v x'), and the key (and beta) of delta, from LN(W_in x' + b_in), whose
value is tanh(W_v x). The paper writes the rules without softmax and tanh; these are its code's,
which also places the softmax of oja where it bounds the rule.

The release has no dt, and makes time a channel of x where it matters. The first observation adds
the right side at x' = x, as the release starts (from W = 0). A step of `solver` covers 1 /
`substeps` of an interval (`seqjax.nn.ode`); the release takes rk4. The line, unlike the paper's
splines, does not look ahead, so that the layer streams. Its feed-forward block is left to the
model.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import option
from seqjax.nn.linear import per_head
from seqjax.nn.norms import Norm
from seqjax.nn.ode import SOLVERS, integrate
from seqjax.nn.recurrent import Recurrent

RULES, CONTROLS = ("hebb", "oja", "delta"), ("ode", "cde")


class ODEState(NamedTuple):
    W: jax.Array  # [heads, D, D], values by keys
    x: jax.Array  # [features], the last observation
    seen: jax.Array  # bool


class NeuralODEFWP(Recurrent):
    evaluators = ("sequential",)
    timed = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        heads: int = 4,
        rule: str = "delta",
        control: str = "ode",
        solver: str = "rk4",
        substeps: int = 1,
        rngs: nnx.Rngs,
    ):
        if substeps < 1:
            raise ValueError(f"substeps must be at least 1, got {substeps}")
        self.features = self.out_features = features
        hidden = hidden or features
        self.heads, self.D = heads, per_head("hidden", hidden, heads)
        self.rule = option("learning rule", rule, RULES)
        self.control = option("control", control, CONTROLS)
        self.solver, self.substeps = option("solver", solver, SOLVERS), substeps
        linear = partial(nnx.Linear, rngs=rngs)
        self.W_in, self.norm = linear(features, hidden), Norm(hidden, centre=True, bias=True)
        from_u = hidden if control == "ode" else features  # what makes the values
        self.W_k, self.W_v = linear(hidden, hidden), linear(from_u, hidden)
        self.w_b, self.W_q = linear(hidden, heads), linear(hidden, hidden)
        self.W_o = linear(hidden, features)

    def initial(self):
        W = jnp.zeros((self.heads, self.D, self.D))
        return ODEState(W, jnp.zeros(self.features), jnp.zeros((), bool))

    def field(self, W, x, dx):
        """W' [heads, D, D] at W, x and x'."""
        split = lambda z: z.reshape(self.heads, self.D)  # noqa: E731
        delta_cde = self.control == "cde" and self.rule == "delta"
        u = self.norm(self.W_in(dx if delta_cde else x))
        k, beta = split(self.W_k(u)), jax.nn.sigmoid(self.w_b(u))[:, None, None]
        if self.control == "ode":
            v = jnp.tanh(split(self.W_v(u)))
        else:
            v = split(self.W_v(x if delta_cde else dx))
            v = v if self.rule == "hebb" else jnp.tanh(v)
        if self.rule == "oja":
            k = k - jnp.einsum("hvk,hv->hk", W, v)
        k = jax.nn.softmax(k)
        if self.rule == "delta":
            v = v - jnp.einsum("hvk,hk->hv", W, k)
        return beta * v[:, :, None] * k[:, None]

    def drive(self, x, flow):
        return x, jnp.maximum(flow.elapsed(x), 0)

    def step(self, h, z):
        x, dt = (v.astype(h.x.dtype) for v in z)
        dx = x - h.x
        velocity = dx / jnp.where(dt > 0, dt, 1)

        def f(s, W):
            return self.field(W, h.x + s * velocity, velocity).astype(W.dtype)

        moved = integrate(f, h.W, dt, solver=self.solver, substeps=self.substeps)
        first = h.W + self.field(h.W, x, x).astype(h.W.dtype)
        return ODEState(jnp.where(h.seen, moved, first), x, jnp.ones_like(h.seen))

    def readout(self, h, x):
        q = jax.nn.softmax(self.W_q(self.norm(self.W_in(x))).reshape(self.heads, self.D))
        y = jnp.einsum("hvk,hk->hv", h.W, q.astype(h.W.dtype))
        return self.W_o(y.reshape(self.heads * self.D).astype(x.dtype))
