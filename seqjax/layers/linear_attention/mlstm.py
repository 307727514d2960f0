"""mLSTM (Beck et al. 2024, arXiv:2405.04517 sec. 2.3): a matrix memory with exponential gates.

    C_t = f_t C_{t-1} + i_t k_t v_t^T                      C [heads, key, value]       eq. 19
    n_t = f_t n_{t-1} + i_t k_t                            n [heads, key]              eq. 20
    h_t = o_t * Norm(C_t^T q_t / max(|n_t . q_t|, 1))      the norm over each head     eq. 21
    q_t = W_q x_t + b_q,  k_t = K^-1/2 (W_k x_t + b_k),  v_t = W_v x_t + b_v           eq. 22-24
    i_t = exp(w_i x_t + b_i),  f_t = sigmoid or exp(w_f x_t + b_f)      per head       eq. 25, 26
    o_t = sigmoid(W_o x_t + b_o)                                                       eq. 27
    y_t = W_out h_t

(The paper writes the transpose of C.) This is the mixer of an xLSTM block: Norm and W_out are the
block's (fig. 11; in this order in arXiv:2503.13427), without its up-projection and convolution.
The state (C, n, m) stands for C exp(m) and n exp(m), m the running maximum of the exponents
(eq. 15). It starts at m = 0, as the released recurrent form; the parallel form's m = -inf differs
by the epsilon of the denominator only. We scale q, not k: h is the same, C and n differ by K^-1/2.

b_f starts evenly spaced in [3, 6] over the heads, b_i normal with deviation 0.1, w_i and w_f zero.
input "sigmoid": i_t = sigmoid(w_i x_t + b_i) (arXiv:2503.14376). Then nothing grows: m stays
0, and this is linear attention; normalise=False leaves the denominator out. gate_cap c:
pre-activations of i and f go through c tanh(. / c) (arXiv:2503.13427, c = 15). The release's layer,
with its up-projection, convolution, block-diagonal q, k, v and gates that see all three, is the
block of `seqjax.layers.elementwise.xlstm`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import takes_flow
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.stabilised_attention import State, stabilised_attention

FORGET = {"sigmoid": jax.nn.log_sigmoid, "exp": lambda z: z}  # the gates' logarithms
INPUT = ("exp", "sigmoid")


@takes_flow
def bounded_attention(q, k, v, i, log_f, state, *, scale, normalise, eps=1e-6, **options):
    """mLSTM of one example with the input gate sigmoid(i): q, k [T, H, K], i, log_f [T, H].

    h_t = scale C_t^T q_t / (max(|scale n_t . q_t|, 1) + eps)
    """
    k = jax.nn.sigmoid(i)[:, :, None] * k
    v = jnp.concatenate([v, jnp.ones_like(v[:, :, :1])], axis=2)  # n is a column of C
    reset = options.pop("start", None)
    join = lambda s: jnp.concatenate([s.C, s.n[:, :, None]], axis=2)  # noqa: E731
    y, S = linear_attention(
        q, k, v, log_f, join(state), scale=scale, start=reset and join(reset), **options
    )
    y, divisor = y[:, :, :-1], y[:, :, -1:]
    if normalise:
        y = y / (jnp.maximum(jnp.abs(divisor), 1) + eps)
    return y, State(S[:, :, :-1], S[:, :, -1], jnp.zeros_like(state.m))


class MLSTM(Layer):
    ops = ("stabilised_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        forget: str = "sigmoid",
        input: str = "exp",
        normalise: bool = True,
        bias: bool = True,
        gate_cap: float | None = None,
        norm_eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.gate_cap = heads, gate_cap
        self.K = key_size or per_head("features", features, heads)
        self.V = value_size or per_head("features", features, heads)
        self.forget = option("forget gate", forget, FORGET)
        self.input, self.normalise = option("input gate", input, INPUT), normalise
        if input == "exp" and not normalise:
            raise ValueError("an exponential input gate needs its normaliser")
        if input == "sigmoid":
            if forget != "sigmoid":
                raise ValueError("a sigmoid input gate goes with a sigmoid forget gate")
            self.ops = ("linear_attention",)

        def linear(n, m, use_bias=bias, **options):
            return nnx.Linear(n, m, use_bias=use_bias, rngs=rngs, **options)

        self.W_q, self.W_k = linear(features, heads * self.K), linear(features, heads * self.K)
        self.W_v, self.W_o = linear(features, heads * self.V), linear(features, heads * self.V)
        zeros = nnx.initializers.zeros
        self.w_if = linear(features, 2 * heads, use_bias=False, kernel_init=zeros)
        self.b_i = Precise(0.1 * jax.random.normal(rngs.params(), (heads,)))
        self.b_f = Precise(jnp.linspace(3.0, 6.0, heads))
        self.norm = Norm(heads, self.V, centre=True, eps=norm_eps)
        self.W_out = linear(heads * self.V, features)

    def initial(self):
        C = jnp.zeros((self.heads, self.K, self.V))
        return State(C, C[:, :, 0], C[:, 0, 0])

    def run(self, x, h, flow):
        i, f = jnp.split(self.w_if(x), 2, axis=1)
        i, f = i + self.b_i[...][None], f + self.b_f[...][None]
        if self.gate_cap is not None:
            i, f = (self.gate_cap * jnp.tanh(z / self.gate_cap) for z in (i, f))
        q, k, v = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        attend = stabilised_attention
        if self.input == "sigmoid":
            attend = partial(bounded_attention, normalise=self.normalise)
        y, h = attend(
            q,
            k,
            wide(v),
            i,
            FORGET[self.forget](f),
            h,
            scale=self.K**-0.5,
            flow=flow,
        )
        y = merge_heads(self.norm(y)).astype(x.dtype)
        return self.W_out(jax.nn.sigmoid(self.W_o(x)) * y), h
