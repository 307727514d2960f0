"""What tests share that compute a layer in NumPy: the layer, its weights, common functions.

Shapes: x [T, features], q, k [T, H, K], v [T, H, V], S [H, K, V].
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax import inner_learning
from seqjax.nn.base import cast_parameters
from seqjax.zoo import make

T, FEATURES = 7, 4


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def layer_of(name, *, features=FEATURES, **options):
    """In float64, off its initial zeros."""
    layer = cast_parameters(make(name, features, rngs=nnx.Rngs(0), **options), jnp.float64)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    draw = np.random.default_rng(0)
    moved = [p + 0.1 * draw.normal(size=p.shape) for p in leaves]
    return nnx.merge(graph, jax.tree.unflatten(tree, moved), rest)


def numbers(layer, kind=nnx.Param):
    """Its parameters, or variables of another kind, as NumPy arrays by name."""
    flat = nnx.to_flat_state(nnx.split(layer, kind, ...)[1])
    return {".".join(map(str, path)): np.asarray(p[...]) for path, p in flat}


def learn(inner, xs, norm, h, flow):
    """`inner_learning` of `Steps`."""
    rates = dict(tau=xs.tau, log_eta=xs.log_eta, log_keep=xs.log_keep)
    return inner_learning(xs.q, xs.k, xs.v, xs.theta, h, inner=inner, norm=norm, flow=flow, **rates)


class Weights:
    """Parameters by name; `read` remembers which were asked for."""

    def __init__(self, values, read=None, prefix=""):
        self.values, self.read, self.prefix = values, set() if read is None else read, prefix

    def __getitem__(self, name):
        self.read.add(self.prefix + name)
        return self.values[self.prefix + name]

    def under(self, prefix):
        return Weights(self.values, self.read, f"{self.prefix}{prefix}.")

    def linear(self, name, x):
        return x @ self[f"{name}.kernel"]

    def affine(self, name, x):
        return self.linear(name, x) + self[f"{name}.bias"]

    def rms(self, name, z, eps):
        return rms(z, eps) * self[f"{name}.weight"]

    def layer_norm(self, name, z, eps):
        return standard(z, eps) * self[f"{name}.weight"] + self[f"{name}.bias"]


def rms(z, eps):
    return z / np.sqrt((z * z).mean(-1, keepdims=True) + eps)


def standard(z, eps):
    return rms(z - z.mean(-1, keepdims=True), eps)


def unit(z):
    return z / np.sqrt((z * z).sum(-1, keepdims=True) + 1e-6)


def silu(a):
    return a * sigmoid(a)


def softplus(a):
    return np.log1p(np.exp(a))


def heads_of(z, heads):
    return z.reshape(len(z), heads, -1)


def flat(o):
    return np.reshape(o, (len(o), -1))


def outer(k, v):
    return k[..., :, None] * v[..., None, :]


def read(S, q):
    """S^T q of every head: S [H, K, V], q [H, K]."""
    return np.einsum("hkv,hk->hv", S, q)


def causal_conv(x, weight, bias=0.0):
    past = np.concatenate([np.zeros((len(weight) - 1, x.shape[1])), x])
    return np.stack([(weight * past[t : t + len(weight)]).sum(0) for t in range(len(x))]) + bias


def before(x):
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(a):
    weight = np.exp(a - a.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)
