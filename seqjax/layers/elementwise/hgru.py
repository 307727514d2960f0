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
h_{t-1} becomes 2 lambda_t - 1 (arXiv:2411.12537), which is negative only where gamma < 1/2. Of
flash-linear-attention an `HGRU` has a state wider than x (`inner`), short convolutions of W_c x and
W_mu x (`conv` > 0), no biases, and RMSNorm ("rms") or one without weights ("plain").
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.convolution import Convolved, ShortConv, convolved
from seqjax.nn.gates import EIGENVALUES, multiplier
from seqjax.nn.linear import GLU
from seqjax.nn.norms import NORMS, Norm
from seqjax.ops.linear_scan import linear_scan


class HGRU(Layer):
    """One layer, of lower bound 0, or `bounded` from below by gamma."""

    ops = ("linear_scan",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        complex_gate: bool,
        inner: int | None = None,
        bias: bool = True,
        norm: str = "layer",
        norm_eps: float = 1e-5,
        conv: int = 0,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        if complex_gate and eigenvalues != "[0,1]":
            raise ValueError("a complex gate turns already: eigenvalues are for the real one")
        self.inner = inner or features
        size = 2 * self.inner if complex_gate else self.inner
        linear = partial(nnx.Linear, use_bias=bias, rngs=rngs)
        self.W_c, self.W_g = (linear(features, size) for _ in range(2))
        self.W_mu = linear(features, self.inner)
        self.conv = ShortConv(size + self.inner, conv, bias=False, rngs=rngs) if conv else None
        place = jnp.arange(float(self.inner)) / self.inner
        self.theta = Precise(10_000.0**-place) if complex_gate else None
        self.norm = Norm(size, eps=norm_eps, **NORMS[option("norm", norm, NORMS)])
        self.W_o = linear(size, features)

    def initial(self):
        zero = jnp.zeros(self.inner, float if self.theta is None else complex)
        return zero if self.conv is None else Convolved(self.conv.initial(), zero)

    def run(self, x, h, flow):
        return self.bounded(x, h, flow, jnp.zeros(self.inner, x.dtype))

    def bounded(self, x, h, flow, gamma):
        """y and the next h of x [T, features], for a lower bound gamma [inner]."""
        (c, mu), window, S = (self.W_c(x), self.W_mu(x)), (), h
        if self.conv is not None:
            (c, mu), window = convolved(self.conv, (c, mu), h.window, flow)
            S = h.S
        c = jax.nn.silu(c)
        # 1 - lambda = (1 - gamma) (1 - mu), without cancellation where lambda is near 1
        written = (1 - gamma[None]) * jax.nn.sigmoid(-mu)
        if self.theta is None:
            kept = multiplier(1 - written, self.eigenvalues)
            states, S = linear_scan(kept, written * c, S, flow=flow)
            feature = states
        else:
            dtype, angle = S.now.real.dtype, self.theta[...][None]
            turn = lax.complex(jnp.cos(angle), jnp.sin(angle)).astype(S.now.dtype)
            c = lax.complex(c[:, ::2].astype(dtype), c[:, 1::2].astype(dtype))
            written = written.astype(S.now.dtype)
            states, S = linear_scan((1 - written) * turn, written * c, S, flow=flow)
            feature = jnp.concatenate([states.real, states.imag], axis=1)
        y = self.W_o(self.norm(feature.astype(x.dtype)) * jax.nn.silu(self.W_g(x)))
        return y, S if self.conv is None else Convolved(window, S)


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
            y, state = self.layers[i].bounded(self.norms[i](x), h[i], flow, gamma)
            states.append(state)
            x = x + y
            if self.glus:
                x = x + self.glus[i](self.glu_norms[i](x))
        return x, tuple(states)
