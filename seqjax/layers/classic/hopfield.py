"""Hopfield network (Hopfield 1982), its graded form (1984) and the modern one (arXiv:2008.02217).

A network that does not read a series but settles: from a state near a stored pattern to it. Here
are that network, as functions, and a layer whose steps are its relaxation in a field x_t.

    W   = 1/N sum_k xi_k xi_k^T, without its diagonal           Hebb's storage            `hebb`
    s_i <- sign(sum_j W_ij s_j + I_i), sign(0) = 1              all at once, or one after the other
    E   = -1/2 s^T W s - I^T s                                  never rises one by one    `energy`

    s   <- Xi^T softmax(beta Xi s)                              modern; Xi [K, N]         `retrieve`
    E   = -lse(beta, Xi s) + 1/2 s^T s + log(K) / beta + 1/2 max_k |xi_k|^2     `modern_energy`

All at once, a state may alternate between two (E of both together does not rise); one by one, W
being symmetric with no diagonal, each change lowers E by 2 |a_i|, so that it ends at a fixed point.
About 0.14 N random patterns are held, by the modern one exponentially many in N. One step of that
is attention of a query s to the keys and values Xi.

The layer, with the patterns Xi [patterns, hidden] as its parameters:

    s_t = f(beta (W s_{t-1} + P x_t + b)) = y_t            form "graded": f = tanh, "sign": f = sign
    s_t = Xi^T softmax(beta Xi (s_{t-1} + P x_t + b))      form "modern"

`asynchronous`: the entries of s_t are set one after the other, in order, each from those set
before. "graded" goes to "sign" as beta grows; "sign" is differentiated as if it were tanh. For
tasks that need a few states held for ever: attractors are all the memory there is.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.scipy.special import logsumexp

from seqjax.core.mesh import loop
from seqjax.nn.base import option
from seqjax.nn.recurrent import Recurrent


def hebb(Xi: Array) -> Array:
    """W [N, N] that stores the patterns Xi [K, N] of +-1."""
    W = Xi.T @ Xi / Xi.shape[1]
    return W - jnp.diag(jnp.diagonal(W))


def sign(a: Array) -> Array:
    return jnp.where(a >= 0, jnp.ones_like(a), -jnp.ones_like(a))


def at_once(W: Array, s: Array, field: Array, f=sign) -> Array:
    return f(W @ s + field)


def one_by_one(W: Array, s: Array, field: Array, f=sign, order: Array | None = None) -> Array:
    """A sweep over the units in `order` [n], by default each of them once, from the first."""
    order = jnp.arange(len(s), dtype=jnp.int32) if order is None else order
    return loop(lambda s, i: (s.at[i].set(f(W[i] @ s + field[i])), None), s, order)[0]


def energy(W: Array, s: Array, field: Array) -> Array:
    return -(s @ W @ s) / 2 - field @ s


def retrieve(Xi: Array, s: Array, beta: float | Array) -> Array:
    return jax.nn.softmax(beta * (Xi @ s)) @ Xi


def modern_energy(Xi: Array, s: Array, beta: float | Array) -> Array:
    largest = jnp.max(jnp.sum(Xi * Xi, axis=1))
    lse = logsumexp(beta * (Xi @ s)) / beta
    return -lse + s @ s / 2 + jnp.log(1.0 * len(Xi)) / beta + largest / 2


@jax.custom_jvp
def sign_as_tanh(a: Array) -> Array:
    """sign(a), with the derivative of tanh(a)."""
    return sign(a)


sign_as_tanh.defjvps(lambda tangent, _, a: tangent * (1 - jnp.tanh(a) ** 2))
FORMS = {"graded": jnp.tanh, "sign": sign_as_tanh, "modern": None}


class Hopfield(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        patterns: int | None = None,
        form: str = "graded",
        beta: float = 1.0,
        asynchronous: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features, self.beta, self.asynchronous = features, beta, asynchronous
        self.form = option("form", form, FORMS)
        if form == "modern" and asynchronous:
            raise ValueError("the modern form sets all units at once: asynchronous must be False")
        N = self.out_features = hidden or features
        K = patterns or N
        self.Xi = nnx.Param(jax.random.rademacher(rngs.params(), (K, N), jnp.float32))
        self.P = nnx.Linear(features, N, rngs=rngs)  # carries b

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.P(x)

    def step(self, s, z):
        Xi, f = self.Xi[...], FORMS[self.form]
        if f is None:
            return retrieve(Xi, s + z, self.beta)
        settle = one_by_one if self.asynchronous else at_once
        return settle(self.beta * hebb(Xi), s, self.beta * z, f)
