"""ABC: attention with bounded memory control (Peng et al. 2021, arXiv:2110.02488).

    alpha_t = exp(W_phi x_t)                                   how much each slot takes of step t
    K_t = sum_{i <= t} k_i alpha_i^T / sum_i alpha_i           K [heads, K, slots]      eq. 5
    V_t = sum_{i <= t} alpha_i v_i^T / sum_i alpha_i           V [heads, slots, V]
    o_t = V_t^T softmax(K^-1/2 K_t^T q_t)                      both read after they are written

Softmax attention over a few slots in place of all steps: slots are means, weighted by what their
own row of W_phi looks for. In logarithms

    z_t = log(exp(z_{t-1}) + exp(s_t)),  s = W_phi x,  z [heads, slots]
    K_t = K_{t-1} Diag(f_t) + k_t exp(s_t - z_t)^T,  f_t = exp(z_{t-1} - z_t),  and so V

which is gated slot attention (`seqjax.slot_attention`) with other gates. z starts at -inf; in a
learned start at 0, since out of a weight of exp(-inf) no gradient comes. A step that finds z = -inf
has f_t = 1, as released: slots that come without a weight stay, and count as much as that step.

The paper has o_t into W_o. As released, q and k are turned by their positions (`rotary_fraction`),
s is kept within `clamp`, and y_t = W_o (norm(o_t) * SiLU(W_g x_t)), the norm over each head; each
may be left out. q, k and v pass through SiLU(conv(.)) with `conv` > 0, and through another SiLU
with `input_gate`. Useful where a state of few slots is to be read as sharply as attention reads.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.core.monoid import Monoid, log_sum as log_of_sum
from seqjax.core.ranges import Range
from seqjax.core.scan import scan
from seqjax.nn.base import Layer, option
from seqjax.nn.convolution import ShortConv, convolved
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import NORMS, Norm
from seqjax.nn.states import entering
from seqjax.ops.positions import places, rotary
from seqjax.ops.slot_attention import State, slot_attention


def log_add(a: Array, b: Array) -> Array:
    """log(exp a + exp b); `jnp.logaddexp` has no derivative where both are -inf."""
    return log_of_sum(jnp.stack([a, b]), 0)


log_sum = Monoid(
    log_add,
    lambda e: jnp.full_like(e, -jnp.inf),
    lambda e, h: log_add(h, e),
    "log-sum",
)


def running_softmax(s: Array, z: Carry, flow: Flow) -> tuple[Array, Array, Array]:
    """exp(s_t - z_t) and z_{t-1} - z_t [T, ...] for s [T, ...], and the last z [...]: the share of
    the present step in sums weighted by exp(s), and the logarithm of that of all before."""
    found, last = scan(log_sum, s, z, flow=flow.of())
    before = entering(found, z, flow)
    return jnp.exp(s - found), jnp.where(jnp.isneginf(before), 0, before - found), last


class Slots(NamedTuple):
    K: Array  # [heads, K, slots]
    V: Array  # [heads, slots, V]
    z: Array  # [heads, slots]
    place: Array  # int32 [], of the next step
    window: Any = ()  # of the short convolution

    def canonical(self):
        return self._replace(z=jnp.exp(self.z))


class ABC(Layer):
    ops = ("slot_attention",)
    side_ops = (log_sum.structure,)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        slots: int | None = None,
        rotary_fraction: float = 1.0,
        clamp: tuple[float, float] | None = (-32.0, 32.0),
        norm: str | None = "rms",
        norm_eps: float = 1e-5,
        output_gate: bool = True,
        input_gate: bool = False,
        conv: Annotated[int, Range(0)] = 0,
        conv_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.clamp, self.input_gate = heads, clamp, input_gate
        self.K = key_size or per_head("features", features, 2 * heads)
        self.V = value_size or per_head("features", features, heads)
        self.slots, self.rotary_fraction = slots or self.K, rotary_fraction
        if clamp is not None and not clamp[0] < clamp[1]:
            raise ValueError(f"clamp is {clamp}, expected a lower and a higher bound")
        linear = partial(nnx.Linear, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k = linear(heads * self.K), linear(heads * self.K)
        self.W_v, self.W_phi = linear(heads * self.V), linear(heads * self.slots)
        self.W_g = linear(heads * self.V) if output_gate else None
        channels = heads * (2 * self.K + self.V)
        self.conv = ShortConv(channels, conv, bias=conv_bias, rngs=rngs) if conv else None
        kind = None if norm is None else NORMS[option("norm", norm, NORMS)]
        self.norm = None if kind is None else Norm(self.V, eps=norm_eps, **kind)
        self.W_o = nnx.Linear(heads * self.V, features, use_bias=False, rngs=rngs)

    def initial(self):
        K = jnp.zeros((self.heads, self.K, self.slots))
        V = jnp.zeros((self.heads, self.slots, self.V))
        z = jnp.full((self.heads, self.slots), -jnp.inf)
        window = () if self.conv is None else self.conv.initial()
        return Slots(K, V, z, jnp.zeros((), jnp.int32), window)

    def run(self, x, h, flow):
        qkv, window = convolved(self.conv, (self.W_q(x), self.W_k(x), self.W_v(x)), h.window, flow)
        for silu in (self.conv is not None, self.input_gate):
            qkv = [jax.nn.silu(z) for z in qkv] if silu else qkv
        q, k, v = (split_heads(z, self.heads) for z in qkv)
        place, last = places(h.place, len(x), flow=flow)
        q, k = (rotary(z, place, fraction=self.rotary_fraction) for z in (q, k))
        s = split_heads(self.W_phi(x), self.heads).astype(accumulation_dtype(x.dtype))
        s = s if self.clamp is None else jnp.clip(s, *self.clamp)
        o, h = self.attend(q, k, v, s, h, flow, scale=self.K**-0.5)
        o = o if self.norm is None else self.norm(o)
        y = merge_heads(o).astype(x.dtype)
        y = y if self.W_g is None else y * jax.nn.silu(self.W_g(x))
        return self.W_o(y), h._replace(place=last, window=window)

    def attend(self, q, k, v, s, h, flow, *, scale):
        """Outputs [T, heads, V] and the next state, for s = W_phi x."""
        share, log_f, z = running_softmax(s, h.z, flow)
        held = Carry(State(h.now.K, h.now.V), State(h.start.K, h.start.V))
        o, (K, V) = slot_attention(q, k, v, share, log_f, held, scale=scale, flow=flow)
        return o, h.now._replace(K=K, V=V, z=z)
