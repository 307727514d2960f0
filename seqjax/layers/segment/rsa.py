"""Self-attention with recurrence (Huang et al., "Encoding recurrence into Transformers", ICLR
2023).

    RSA(X) = [(1 - sigmoid(mu_h)) softmax(Q_h K_h^T / sqrt(K)) + sigmoid(mu_h) P_h] V_h    per head

with P_h a recurrence encoding matrix (REM), zero on and above the diagonal and below it, j = t - s,

    P^R_ts = lambda^j                 "regular"                        lambda = tanh(eta)
    P^C1_ts = gamma^j cos(j theta)    "cyclical", the first `cosine`   gamma = sigmoid(nu)
    P^C2_ts = gamma^j sin(j theta)    and the last `sine` of them

in this order over the heads; heads beyond `regular` + `cosine` + `sine` are attention alone. A
linear RNN h_t = W_h h_{t-1} + W_x x_t is exactly a sum of them, one for each real eigenvalue of W_h
and one of each kind for each complex pair, and of W_x x_t: so a head is the RNN of one eigenvalue
where its gate is open, and attention where it is shut.

P V is never built: it is the linear recurrence s_t = a s_{t-1} + v_t, of which step t reads Re(a
s_{t-1}), or Im for the sine, with a = lambda or gamma e^{i theta}. Its past has no end; softmax
attention sees the last `window` steps, through the cache, with rotary positions or those of
`positions` (`seqjax.layers.attention`).

The masked form of the paper; that of its encoders, in which P has the same powers of |t - s| on
both sides, and dilated REMs (steps of j more than one apart) are not here. Drawn here: |eta| from
U[1, 2] with alternating signs, nu from U[1, 3], theta from U[0, pi], mu 0.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.ranges import Range
from seqjax.layers.attention.attention import Attention
from seqjax.nn.base import Precise, evaluators_of
from seqjax.ops.linear_scan import linear_scan
from seqjax.ops.look_back import Cache


class RSAState(NamedTuple):
    cache: Cache
    S: jax.Array  # complex [heads with a REM, K]


class RSA(Attention):
    ops = ("softmax_attention", "linear_scan")
    learned = "S"

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        regular: Annotated[int | None, Range(0)] = None,
        cosine: Annotated[int, Range(0)] = 1,
        sine: Annotated[int, Range(0)] = 1,
        head_size: int | None = None,
        window: int = 1024,
        positions: str = "rotary",
        rngs: nnx.Rngs,
    ):
        """regular: by default all heads that are neither `cosine` nor `sine`."""
        super().__init__(
            features,
            heads=heads,
            head_size=head_size,
            window=window,
            positions=positions,
            rngs=rngs,
        )
        regular = heads - cosine - sine if regular is None else regular
        self.kinds = regular, cosine, sine
        self.encoded = sum(self.kinds)
        if regular < 0 or not 1 <= self.encoded <= heads:
            raise ValueError(
                f"regular + cosine + sine are 1 to heads = {heads} heads, got {self.kinds}"
            )

        def drawn(n, low, high):
            return jax.random.uniform(rngs.params(), (n,), minval=low, maxval=high)

        self.eta = Precise(drawn(regular, 1, 2).at[1::2].multiply(-1))
        self.nu = Precise(drawn(cosine + sine, 1, 3))
        self.theta = Precise(drawn(cosine + sine, 0, jnp.pi))
        self.mu = Precise(jnp.zeros(self.encoded))

    def initial(self):
        return RSAState(super().initial(), jnp.zeros((self.encoded, self.K), jnp.complex64))

    def multipliers(self):
        """a, complex [heads with a REM]."""
        gamma, theta = jax.nn.sigmoid(self.nu[...]), self.theta[...]
        real = jnp.concatenate([jnp.tanh(self.eta[...]), gamma * jnp.cos(theta)])
        return lax.complex(real, jnp.append(jnp.zeros_like(self.eta[...]), gamma * jnp.sin(theta)))

    def run(self, x, h, flow):
        q, k, v = self.projected(x)
        y, cache = self.attend(q, k, v, h.cache, flow.of(evaluators_of("softmax_attention")))
        r, S = self.recurrence(v[:, : self.encoded], h.S, flow)
        g = jax.nn.sigmoid(self.mu[...])[None, :, None]
        mixed = (1 - g) * y[:, : self.encoded] + g * r
        y = jnp.concatenate([mixed.astype(y.dtype), y[:, self.encoded :]], axis=1)
        return self.joined(x, y), RSAState(cache, S)

    def recurrence(self, v, h, flow):
        """P V [T, heads, K] of the heads that have a P, and the state after it."""
        a, flat = jnp.repeat(self.multipliers(), self.K), jax.tree.map(jnp.ravel, h)
        b = v.reshape(len(v), -1).astype(a.dtype)
        s, S = linear_scan(a, b, flat, flow=flow.of(evaluators_of("linear_scan")))
        read, first = (s - b).reshape(v.shape), sum(self.kinds[:2])  # a s_{t-1}
        r = jnp.concatenate([read[:, :first].real, read[:, first:].imag], axis=1)
        return r, S.reshape(v.shape[1:])
