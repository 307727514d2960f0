"""ReBased (Aksenov et al. 2024, arXiv:2402.10644): linear attention, a learned square.

    S_t = S_{t-1} + phi(k_t) v_t^T,  z_t = z_{t-1} + phi(k_t)      S [heads, K (K + 1) / 2, value]
    y_t = W_o [phi(q_t)^T S_t / (phi(q_t).z_t + eps)]                                per head
    phi(q) = vec(q' q'^T) K^-1/2,  q' = gamma_Q * norm(q) + beta_Q,  and for k gamma_K, beta_K

norm is LayerNorm over the channels of a head. Based's 1 + z + z^2/2 is never below 1/2, so that no
step can be ignored; of (q'.k')^2 / K the least value is 0, and where it lies is learned. Useful
where many steps are to be recalled exactly, with small keys.

The products of a pair of channels are counted once, times sqrt(2). `shared`: one gamma and beta for
q and k, as the releases have them; as there, gamma, beta and the norm (`normalise`) may be left
out. Its num_key_value_heads (as many as heads in it) is not here.
"""

from flax import nnx

from seqjax.layers.linear_attention.linear_transformer import LinearTransformer


class ReBased(LinearTransformer):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int = 16,
        value_size: int | None = None,
        shared: bool = False,
        gamma: bool = True,
        beta: bool = True,
        normalise: bool = True,
        eps: float = 1e-5,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        phi = dict(shared=shared, gamma=gamma, beta=beta, normalise=normalise)
        super().__init__(
            features,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            feature_map=("rebased", phi),
            eps=eps,
            bias=False,
            causal=causal,
            rngs=rngs,
        )
