"""Random feature attention (Peng et al. 2021, arXiv:2103.02143), and RFA-gate.

    phi(x) = M^-1/2 [sin W x, cos W x] of x / |x|,  W = sigma R     R standard normal, sigma learned
    S_t = S_{t-1} + phi(k_t) v_t^T,  z_t = z_{t-1} + phi(k_t)                       sec. 3.1
    y_t = W_o [phi(q_t)^T S_t / phi(q_t).z_t]

and with `gate`, recency (sec. 3.2): g_t = sigmoid(w_g.x_t + b_g), one per head,

    S_t = g_t S_{t-1} + (1 - g_t) phi(k_t) v_t^T,  z_t = g_t z_{t-1} + (1 - g_t) phi(k_t)

q and k have length one, so exp(q.k) is a Gaussian kernel up to a constant. phi(q).z may have any
sign: it is kept away from zero by max(|.|, eps), which is the release's parallel form. (Its
recurrent form divides by max(., 1) and has 0.1 for M^-1/2: for short sequences that does not
normalise at all. `denominator="max", eps=1` is that, up to the factor of phi.)

Not `causal` and `cross` are those of `seqjax.layers.linear_attention.linear_transformer`, without
the gate. Of the release's options not here: R drawn anew at every step of training (ours is drawn
once), and a sigma that is not learned.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.linear_attention.linear_transformer import LinearTransformer
from seqjax.nn.base import Precise
from seqjax.nn.linear import merge_heads


class RFA(LinearTransformer):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        count: int | None = None,
        tau: float = 1.0,
        gate: bool = False,
        denominator: str = "abs",
        eps: float = 1e-3,
        bias: bool = True,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        if gate and not causal:
            raise ValueError("the gate of RFA forgets the past: it needs causal=True")
        super().__init__(
            features,
            heads=heads,
            feature_map=("rfa", {"count": count, "tau": tau}),
            denominator=denominator,
            eps=eps,
            bias=bias,
            causal=causal,
            rngs=rngs,
        )
        self.w_g = nnx.Linear(features, heads, use_bias=False, rngs=rngs) if gate else None
        self.b_g = Precise(jnp.zeros(heads)) if gate else None

    def cross(self, x, context, mask=None):
        if self.w_g is not None:
            raise ValueError("RFA with a gate has no cross-attention: the gate forgets the past")
        return super().cross(x, context, mask)

    def run(self, x, h, flow):
        q, k, v = self.project(x)
        log_g = None
        if self.w_g is not None and self.b_g is not None:
            logits = self.w_g(x) + self.b_g[...][None]
            log_g, write = jax.nn.log_sigmoid(logits), jax.nn.sigmoid(-logits)
            k = write[:, :, None].astype(k.dtype) * k
        y, h = self.attend(q, k, v, h, flow, log_g)
        return self.W_o(merge_heads(y).astype(x.dtype)), h
