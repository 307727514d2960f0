"""Independently recurrent network (Li et al. 2018, arXiv:1803.04831).

    h_t = f(W x_t + u * h_{t-1} + b) = y_t          h, u [hidden]                      eq. 2

Every unit sees of the past only itself, so dh_t/dh_{t-1} = diag(f' u) and the gradient over n steps
is a product of n numbers (eq. 5) that bounds on |u| keep from exploding: |u| <= gamma^(1/n) holds
the gain over n steps below gamma (sec. 3.2). `bound` is that limit, enforced where u is used; its
default 1 is the limit for sequences of any length, None leaves u free. u starts uniform on
[0, bound], as in sec. 5.

With `norm`, W x_t + b is LayerNorm(W x_t) * gamma + b (arXiv:1607.06450), as in released kernels.

f is relu (the paper's choice), tanh or linear. With a linear f the recurrence is affine and the
"newton" evaluator is exact after one scan. Zoneout, as the same kernels have it, is `zoneout`
around this layer.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Precise, option
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Recurrent

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "linear": lambda x: x}


class IndRNN(Recurrent):
    jacobian = "diagonal"

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        activation: str = "relu",
        bound: float | None = 1.0,
        norm: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features, self.out_features = features, hidden or features
        self.activation = option("activation", activation, ACTIVATIONS)
        self.bound = bound
        self.W = nnx.Linear(features, self.out_features, use_bias=not norm, rngs=rngs)  # carries b
        self.norm = Norm(self.out_features, centre=True, bias=True, eps=1e-5) if norm else None
        u = jax.random.uniform(rngs.params(), (self.out_features,))
        self.u = Precise(u * (1.0 if bound is None else bound))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return self.W(x) if self.norm is None else self.norm(self.W(x))

    def step(self, h, z):
        u = self.u[...]
        u = u if self.bound is None else jnp.clip(u, -self.bound, self.bound)
        return ACTIVATIONS[self.activation](z + u * h)
