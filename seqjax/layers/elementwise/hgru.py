"""HGRN: hierarchically gated recurrence (Qin et al. 2023, arXiv:2311.04823).

    c_t      = SiLU(W_c x_t + b_c)                              complex: pairs (Re, Im) in a row
    mu_t     = sigmoid(W_mu x_t + b_mu)
    lambda_t = gamma + (1 - gamma) * mu_t                       the forget gate's modulus
    h_t      = lambda_t exp(i theta) * h_{t-1} + (1 - lambda_t) * c_t      h complex [features]
    y_t      = W_o (LayerNorm([Re h_t, Im h_t]) * SiLU(W_g x_t + b_g)) + b_o

gamma bounds the gate from below, more so in higher layers, which are to remember longer. The bounds
of a stack of `depth` layers are learned together ("cumax"): the exclusive cumulative sum over the
layers of softmax(Gamma), so that gamma = 0 in the lowest one. theta is data independent and starts
as rotary frequencies, 10000^(-j / features).

`HGRN` is that stack of residual blocks, x += HGRU(RMSNorm(x)), x += GLU(RMSNorm(x)) with a GLU
`expansion` wide (0: none); its state is the tuple of the layers' h. complex_gate False: h, c real
and no theta. The gate SiLU(W_g x) and the norm before it are those of the official code.
eigenvalues "[-1,1]", of the real gate (the complex one turns already): the lambda_t that multiplies
h_{t-1} becomes 2 lambda_t - 1 (arXiv:2411.12537), which is negative only where gamma < 1/2. Of the
constructor of flash-linear-attention not here: expand_ratio, a state wider than x (1 in it), and
short convolutions (off in it).
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.gates import EIGENVALUES, multiplier
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm
from seqjax.ops.linear_scan import linear_scan


class HGRU(nnx.Module):
    """One layer: y and the last h of x [T, features], the lower bound gamma [features], and h."""

    def __init__(
        self,
        features: int,
        *,
        complex_gate: bool,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        if complex_gate and eigenvalues != "[0,1]":
            raise ValueError("a complex gate turns already: eigenvalues are for the real one")
        size = 2 * features if complex_gate else features
        self.W_c, self.W_g = (nnx.Linear(features, size, rngs=rngs) for _ in range(2))
        self.W_mu = nnx.Linear(features, features, rngs=rngs)
        place = jnp.arange(float(features)) / features
        self.theta = Precise(10_000.0**-place) if complex_gate else None
        self.norm = Norm(size, centre=True, bias=True, eps=1e-5)
        self.W_o = nnx.Linear(size, features, rngs=rngs)

    def __call__(self, x, gamma, h, flow):
        c = jax.nn.silu(self.W_c(x))
        # 1 - lambda = (1 - gamma) (1 - mu), without cancellation where lambda is near 1
        written = (1 - gamma[None]) * jax.nn.sigmoid(-self.W_mu(x))
        if self.theta is None:
            kept = multiplier(1 - written, self.eigenvalues)
            states, h = linear_scan(kept, written * c, h, flow=flow)
            feature = states
        else:
            dtype, angle = h.now.real.dtype, self.theta[...][None]
            turn = lax.complex(jnp.cos(angle), jnp.sin(angle)).astype(h.now.dtype)
            c = lax.complex(c[:, ::2].astype(dtype), c[:, 1::2].astype(dtype))
            written = written.astype(h.now.dtype)
            states, h = linear_scan((1 - written) * turn, written * c, h, flow=flow)
            feature = jnp.concatenate([states.real, states.imag], axis=1)
        return self.W_o(self.norm(feature.astype(x.dtype)) * jax.nn.silu(self.W_g(x))), h


class HGRN(Layer):
    block = True
    ops = ("linear_scan",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        depth: int = 2,
        expansion: float = 2.0,
        complex_gate: bool = True,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.depth, self.complex_gate = depth, complex_gate
        self.Gamma = Precise(jnp.zeros((depth, features)))
        layer = partial(HGRU, complex_gate=complex_gate, eigenvalues=eigenvalues, rngs=rngs)
        self.layers = nnx.List([layer(features) for _ in range(depth)])
        self.norms = nnx.List([Norm(features) for _ in range(depth)])
        wide = max(1, round(expansion * features))
        count = depth if expansion else 0
        self.glus = nnx.List([GLU(features, wide, rngs=rngs) for _ in range(count)])
        self.glu_norms = nnx.List([Norm(features) for _ in range(count)])

    def initial(self):
        zero = jnp.zeros(self.features, complex if self.complex_gate else float)
        return (zero,) * self.depth

    def lower_bounds(self):
        """gamma [depth, features]."""
        share = jax.nn.softmax(self.Gamma[...], axis=0)
        return jnp.cumsum(share, axis=0) - share

    def run(self, x, h, flow):
        states = []
        for i, gamma in enumerate(self.lower_bounds()):
            y, state = self.layers[i](self.norms[i](x), gamma, h[i], flow)
            states.append(state)
            x = x + y
            if self.glus:
                x = x + self.glus[i](self.glu_norms[i](x))
        return x, tuple(states)
