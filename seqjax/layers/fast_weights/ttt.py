"""TTT layers (Sun et al. 2024, arXiv:2407.04620): the state is a model, learning while it reads.

    k_t = rope(W_k x_t),  v_t = W_v x_t,  q_t = rope(W_q x_t)          per head, of size D
    loss(W; t) = |f(k_t; W) - v_t|^2 / 2,   f(x; W) = x + LN(f_res(x; W))          sec. 2.1, 2.7
    W_t = W_b - tau_p sum_{b < s <= t} eta_s grad loss(W_b; s)         b: where the mini-batch began
    eta_s = eta_base sigmoid(W_lr x_s + b_lr) / D                      sec. 2.7
    z_t = f(q_t; W_t),   y_t = W_o LN(z_t)                             the second LN over features

f_res is linear in `ttt_linear`, x W_1 + b_1, and in `ttt_mlp` gelu(x W_1 + b_1) W_2 + b_2, four
times as wide inside. Its weights at the start are slow weights, normal 0.02, biases zero. eta_base
is 1 and 0.1, mini-batches have 16 steps. tau_p = max(0, 1/p + learned), by the place p = 1, 2, ...
of a step in its mini-batch, and the rotary angles, which start over with every mini-batch, are the
release's; q is not scaled. See `seqjax.ops.inner_learning` for the learning, its
dual form ("chunked"), and how streams and resets meet mini-batches.

Not `residual`, f is f_res alone, without its norm, and without `bias` there are no inner biases:
with mini-batches of one step `ttt_linear` is then the delta rule with beta = eta, and with one
mini-batch for all and W_0 = 0 linear attention, times tau_p. Nothing then bounds the steps: where
eta |k|^2 > 2 the weights grow. The release's second backbone, one convolution for q and k and an
output gate, is not here.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, Precise
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.inner_learning import inner_learning
from seqjax.ops.inner_model import Inner, start_of
from seqjax.ops.positions import places, rotary

INIT = nnx.initializers.normal(0.02)


class InnerWeights(nnx.Module):
    """The inner model's weights at the start, [heads, in (+ 1), out] per layer, and its norm's."""

    def __init__(
        self,
        heads: int,
        widths: tuple[int, ...],
        *,
        bias: bool = True,
        norm: bool = True,
        rngs: nnx.Rngs,
    ):
        def draw(n, m):
            w = INIT(rngs.params(), (heads, n, m))
            return jnp.concatenate([w, jnp.zeros((heads, bias, m), w.dtype)], axis=1)

        self.W = nnx.List([Precise(draw(n, m)) for n, m in zip(widths, widths[1:])])
        shape = heads, widths[-1]
        self.norm_weight: Any = Precise(jnp.ones(shape)) if norm else None
        self.norm_bias: Any = Precise(jnp.zeros(shape)) if norm else None

    def start(self, **options):
        return start_of(tuple(w[...] for w in self.W), **options)

    @property
    def norm(self):
        return None if self.norm_weight is None else (self.norm_weight[...], self.norm_bias[...])


class TTTLinear(Layer):
    ops = ("inner_learning",)
    learned = ""  # the slow weights are, already

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        mini_batch: int = 16,
        eta_base: float = 1.0,
        hidden: tuple[int, ...] = (),
        residual: bool = True,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        """hidden: widths of the inner model's hidden layers."""
        if mini_batch < 1:
            raise ValueError(f"a mini-batch has at least 1 step, got {mini_batch}")
        self.features = self.out_features = features
        self.heads, self.D = heads, per_head("features", features, heads)
        self.eta_base, self.inner = eta_base, Inner(mini_batch, bias=bias)
        if not residual:
            self.inner = Inner(mini_batch, loss="regression", output="plain", bias=bias)
        linear = partial(nnx.Linear, use_bias=False, kernel_init=INIT, rngs=rngs)
        self.W_q, self.W_k, self.W_v = (linear(features, features) for _ in range(3))
        self.W_lr = linear(features, heads, use_bias=True)
        self.tau = Precise(jnp.zeros(mini_batch))
        widths, self.inner_bias = (self.D, *hidden, self.D), int(bias)
        self.slow = InnerWeights(heads, widths, bias=bias, norm=residual, rngs=rngs)
        self.norm = Norm(features, centre=True, bias=True)
        self.W_o = linear(features, features)

    def initial(self):
        return self.slow.start(momentum=False, decay=False)

    def run(self, x, h, flow):
        place, _ = places(h.count, len(x), size=self.inner.size, flow=flow)
        split = partial(split_heads, heads=self.heads)
        q, k = (rotary(split(W(x)), place) for W in (self.W_q, self.W_k))
        theta = self.eta_base / self.D * jax.nn.sigmoid(self.W_lr(x))
        rate = 1 / jnp.arange(1, self.inner.size + 1, dtype=self.tau.dtype)
        tau = jnp.maximum(rate + self.tau[...], 0)[place]
        z, h = inner_learning(
            q,
            k,
            split(self.W_v(x)),
            theta,
            h,
            tau=jnp.broadcast_to(tau[:, None], theta.shape),
            inner=self.inner,
            norm=self.slow.norm,
            flow=flow,
        )
        return self.W_o(self.norm(merge_heads(z)).astype(x.dtype)), h


class TTTMLP(TTTLinear):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        mini_batch: int = 16,
        eta_base: float = 0.1,
        hidden: tuple[int, ...] | None = None,
        residual: bool = True,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        """hidden: widths of the inner model's hidden layers; by default one of 4 D."""
        D = per_head("features", features, heads)
        super().__init__(
            features,
            heads=heads,
            mini_batch=mini_batch,
            eta_base=eta_base,
            hidden=(4 * D,) if hidden is None else hidden,
            residual=residual,
            bias=bias,
            rngs=rngs,
        )
