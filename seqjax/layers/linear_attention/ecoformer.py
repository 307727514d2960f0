"""EcoFormer (Liu et al. 2022, arXiv:2209.09004): linear attention between binary codes.

    H(x) = sign(A (kappa(x) - mean))        b bits in {-1, 1}, of RBF kernels at m anchors
    sim(q, k) = (H(q).H(k) + b) / 2         how many bits agree: b minus the Hamming distance
    y_t = W_o [sum_s sim(q_t, k_s) v_s / sum_s sim(q_t, k_s)]

a linear Transformer with the feature map [H(x), sqrt(b)] / sqrt(2). The gradient of sign is that of
the identity where its argument lies in [-1, 1]. Where no bit agreed so far nothing is read: the sum
of sim is a whole number, and at least 1/2 is divided by, out of reach of rounding.

A is not trained with the rest. `fit` learns it, self-supervised, from what softmax attention finds
alike: pairs among the strongest attention scores are alike (+1), those among the weakest are not
(-1). Bit by bit it maximises y^T R y over y = 2 sigmoid(kappa a) - 1 by gradient steps, where R is
what the bits so far leave of b times that matrix; a bit that they did not improve stays as it was.
The release computes the width of kappa from each input; here `fit` does, once.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.layers.linear_attention.linear_transformer import LinearTransformer
from seqjax.nn.base import Frozen
from seqjax.nn.feature_maps import Hash, bits, half_square


def alike(x: Array, pairs: int) -> Array:
    """[N, N]: 1 for the `pairs` of x [N, K] with the largest products in each row, -1 for those
    with the smallest, 0 for the rest."""
    rank = jnp.argsort(jnp.argsort(x @ x.T, axis=1), axis=1)
    return jnp.where(rank >= len(x) - pairs, 1.0, jnp.where(rank < pairs, -1.0, 0.0))


def fit_bits(
    kernel: Array, similar: Array, A: Array, *, steps: int = 100, rate: float = 2.0
) -> Array:
    """A [b, m] improved bit by bit, for a centred kernel [N, m] and `similar` [N, N]."""
    N = len(kernel)

    def gain(a, rest, f):
        y = f(kernel @ a)
        return y @ rest @ y / (N * len(A))

    def one(rest, a):
        def climb(a, _):
            return a + rate * jax.grad(gain)(a, rest, lambda z: jnp.tanh(z / 2)), None

        climbed = lax.scan(climb, a, length=steps)[0]
        a = jnp.where(gain(climbed, rest, bits) > gain(a, rest, bits), climbed, a)
        y = bits(kernel @ a)
        return rest - y[:, None] * y[None], a

    return lax.scan(one, len(A) * similar, A)[1]


def fit(phi: Hash, x: Array, key: Array, *, pairs: int | None = None, **options) -> None:
    """Learn the hash functions of every head from its queries and keys x [N, heads, K]."""
    N, m = len(x), phi.anchors.shape[1]
    chosen = jax.random.permutation(key, N)[:m]
    phi.anchors = Frozen(jnp.swapaxes(x[chosen], 0, 1))
    apart = x[:, :, None] - phi.anchors[...][None]
    phi.width = Frozen(2 * jnp.mean(half_square(apart)[..., 0], axis=(0, 2)))
    kernel = phi.kernel(x)
    phi.mean = Frozen(jnp.mean(kernel, axis=0))
    centred = jnp.swapaxes(kernel - phi.mean[...][None], 0, 1)
    similar = jax.vmap(lambda z: alike(z, pairs or max(1, N // 4)))(jnp.swapaxes(x, 0, 1))
    phi.A = Frozen(jax.vmap(lambda k, s, A: fit_bits(k, s, A, **options))(
        centred, similar, phi.A[...]
    ))  # fmt: skip


class EcoFormer(LinearTransformer):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        count: int = 16,
        anchors: int = 25,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            heads=heads,
            feature_map=("hash", {"count": count, "anchors": anchors}),
            denominator="max",
            eps=0.5,
            bias=bias,
            rngs=rngs,
        )

    def fit(self, x: Array, key: Array, **options) -> None:
        """Learn the hashes from inputs x [N, features] of this layer: their queries and keys."""
        q, k = (W(x).reshape(len(x), self.heads, self.K) for W in (self.W_q, self.W_k))
        assert isinstance(self.phi, Hash)
        fit(self.phi, jnp.concatenate([q, k]), key, **options)
