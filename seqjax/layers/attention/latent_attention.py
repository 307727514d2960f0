"""Multi-head latent attention: the cache keeps the compressed form of keys and values."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, option
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.look_back import empty
from seqjax.ops.softmax_attention import softmax_attention

POSITIONS = ("none", "rotary")


class LatentAttention(Layer):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434 sec. 2.1).

        [c_t, r_t] = W_down x_t,   c_t <- RMSNorm(c_t)        c [latent], r [shared]    eq. 9
        [k_t^h, v_t^h] = W_up c_t;   the key of head h is [k_t^h, r_t]                  eq. 10, 11
        y_t = W_o [softmax_s((K + shared)^-1/2 q_t^h . [k_s^h, r_s]) v_s^h]_h

    s in (t - window, t]: the state is a cache of the last window - 1 c and r. With `positions`
    "rotary" r and as many of the last channels of q^h are turned (eq. 14 to 17); Kimi Linear
    (2510.26692) has none. `gate`: the result of head h is multiplied by sigmoid(W_gate x)_h
    (2505.06708). By default K = `key_size` is features / heads, `latent` 4 K, `shared_size` K / 2
    and `value_size` K: the ratios of DeepSeek-V2, whose K is 128.
    rates, gain: as of `Attention`.
    Raises ValueError for a window below 1, unknown positions, an odd `shared_size` that is to be
    turned, `rates` of another number of pairs, and heads that do not divide features where they
    must.
    """

    ops = ("softmax_attention",)
    learned = ""  # a cache begins empty
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        latent: int | None = None,
        key_size: int | None = None,
        shared_size: int | None = None,
        value_size: int | None = None,
        query_latent: int | None = None,
        window: int = 1024,
        positions: str = "none",
        base: float = 10_000.0,
        rates: Sequence[float] | None = None,
        gain: float = 1.0,
        gate: bool = False,
        bias: bool = False,
        norm_eps: float = 1e-6,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.features = self.out_features = features
        self.heads, self.window = heads, window
        K = self.K = key_size or per_head("features", features, heads)
        self.R, self.V = max(1, K // 2) if shared_size is None else shared_size, value_size or K
        latent = self.latent = latent or 4 * K
        self.turned, self.base = option("positions", positions, POSITIONS) == "rotary", base
        if self.turned:
            half = per_head("shared_size", self.R, 2)
            if rates is not None and len(rates) != half:
                raise ValueError(f"rates are of {len(rates)} pairs, expected {half}")
        self.rates = None if rates is None or not self.turned else tuple(rates)
        self.gain = gain

        def linear(n, m, use_bias=False):
            return nnx.Linear(n, m, use_bias=use_bias, rngs=rngs)

        queries = heads * (self.K + self.R)
        self.W_q_down = linear(features, query_latent, bias) if query_latent else None
        self.q_norm = Norm(query_latent, eps=norm_eps) if query_latent else None
        self.W_q = linear(query_latent or features, queries)
        self.W_down, self.norm = linear(features, latent + self.R, bias), Norm(latent, eps=norm_eps)
        self.W_up = linear(latent, heads * (self.K + self.V))
        self.W_o = linear(heads * self.V, features, bias)
        self.W_gate = linear(features, heads) if gate else None

    def initial(self):
        c = jnp.zeros((self.window - 1, self.latent))
        return empty((c, jnp.zeros((self.window - 1, self.R))))

    def run(self, x, h, flow):
        q = x
        if self.W_q_down is not None and self.q_norm is not None:
            q = self.q_norm(self.W_q_down(x))
        q = split_heads(self.W_q(q), self.heads)
        q = self.turned_first(*jnp.split(q, (self.K,), axis=2))
        c, r = jnp.split(self.W_down(x), (self.latent,), axis=1)
        turn = (self.R + 0.5) / (self.K + self.R) if self.turned else 0.0  # R channels, rounded
        y, h = softmax_attention(
            q,
            self.norm(c),
            r,
            h,
            rotary_fraction=turn,
            base=self.base,
            rates=self.rates,
            gain=self.gain,
            expand=self.expand,
            flow=flow,
        )
        if self.W_gate is not None:
            y = y * jax.nn.sigmoid(self.W_gate(x))[:, :, None]
        return self.W_o(merge_heads(y).astype(x.dtype)), h

    def expand(self, c, r):
        """k and v [m, heads, ...] of c [m, latent] and r [m, shared]."""
        k, v = jnp.split(split_heads(self.W_up(c), self.heads), (self.K,), axis=2)
        r = jnp.broadcast_to(r[:, None], (len(c), self.heads, self.R))
        return self.turned_first(k, r), v

    def turned_first(self, k, r):
        """[k, r], or [r, k] where r is to be turned: attention turns the first channels."""
        return jnp.concatenate([r, k] if self.turned else [k, r], axis=2)
