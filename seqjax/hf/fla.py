"""Models of flash-linear-attention (Yang and Zhang 2024, github.com/fla-org): one shell.

    x <- x + mixer(RMSNorm(x)),   x <- x + W_3 (SiLU(W_1 RMSNorm(x)) * W_2 RMSNorm(x))      a block

around a mixer of the zoo, or softmax attention in the blocks that `attn` lists. Here is the shell,
and the mixers that are delta rules; those of the other families are in `seqjax.hf.fla_gated`,
`seqjax.hf.fla_linear` and `seqjax.hf.fla_rwkv`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from seqjax.hf.config import RUNNING, START, TRAINING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.mamba import FIRST, MAMBA, rank
from seqjax.hf.parts import ATTENTION, FEED, Part, block, describe
from seqjax.hf.tensors import Joined
from seqjax.layers.attention.attention import Attention
from seqjax.layers.fast_weights.comba import Comba
from seqjax.layers.fast_weights.deltanet import DeltaNet
from seqjax.layers.fast_weights.deltaproduct import DeltaProduct
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet
from seqjax.layers.fast_weights.kda import KDA
from seqjax.layers.linear_attention.fox import FoX
from seqjax.layers.ssm.mamba import Mamba
from seqjax.nn.linear import GLU

CONVOLVED = ("q_proj", "k_proj", "v_proj"), ("q_conv1d", "k_conv1d", "v_conv1d")


def inner_size(config: Config, default: float = 4) -> int:
    """The width of the feed-forward part: two thirds of hidden_ratio, rounded up to 256."""
    given = config.size("intermediate_size", None)
    if given is not None:
        config.ignore("intermediate_size is read", "hidden_ratio")
        return given
    return rounded(config.size("hidden_size") * config("hidden_ratio", default))


def rounded(size: float) -> int:
    return -(-int(size * 2 / 3) // 256) * 256


def attended(config: Config, depth: int, at: str) -> dict[int, Part]:
    """The blocks that have softmax attention, as the objects in `attn` list them."""
    given = config("attn", None)
    found: dict[int, Part] = {}
    for n, spec in enumerate([given] if isinstance(given, dict) else given or []):
        if not isinstance(spec, dict):
            raise config.wrong("attn", "it has to be an object, or a list of objects")
        inner = config.inside(f"attn[{n}]" if given is not spec else "attn", spec)
        heads = inner.size("num_heads")
        layer = partial(
            Attention,
            config.size("hidden_size"),
            heads=heads,
            kv_heads=inner.size("num_kv_heads", heads),
            window=inner.size("window_size", config.context),
            base=inner("rope_theta", 10_000.0),
            bias=inner("qkv_bias", False),
            out_bias=False,
        )
        for place in inner("layers"):
            if not isinstance(place, int) or not 0 <= place < depth or place in found:
                raise config.wrong("attn", f"its layers are different ones of 0 to {depth - 1}")
            found[place] = (layer, ATTENTION, at)
    return found


def shell(
    config: Config,
    mixer: Part | Callable[[int], Part],
    *,
    ratio: float = 4,
    using: int | None = None,
    at: str = "attn",
    root: str = "model",
    inner: int | None = None,
    **fields: Any,
) -> Description:
    """Blocks of a mixer, or of one for each place, with the fields that all these configs have.

    using: which of the shared modules the mixers are called with. at: what the mixers are called.
    root: what is before the names of all tensors but the head's.
    inner: width of the feed-forward part.
    """
    config.ignore(RUNNING, "attn_mode fuse_norm fuse_swiglu fuse_cross_entropy")
    config.ignore(RUNNING, "fuse_linear_cross_entropy")
    config.ignore(TRAINING, "use_l2warp")
    config.only("hidden_act", "the activation of the feed-forward part", "swish")
    config.only("attnres_block_size", "blocks attend over residuals", None)
    depth, eps = config.depth(), config("norm_eps", 1e-6)
    attention = attended(config, depth, at)
    inner = inner or inner_size(config, ratio)
    mlp: Part = partial(GLU, config.size("hidden_size"), inner), FEED, "mlp"
    branches: list[Branch] = []
    for i in range(depth):
        here, norm = f"{root}.layers.{i}", [f"{at}_norm"]
        if i in attention:
            branches += block(here, norm, attention[i])
        else:
            own = mixer(i) if callable(mixer) else mixer
            branches += block(here, norm, own, shared=using)
        branches += block(here, ["mlp_norm"], mlp)
    fields.setdefault("context", config.context if attention else None)
    return describe(config, branches, eps=eps, embed=f"{root}.embeddings", **fields)


def whole(config: Config, name: str, size: float) -> int:
    """A size that is a product with the field `name`, if it is a whole number."""
    if abs(size - round(size)) > 1e-5 or size < 1:
        raise config.wrong(name, f"it makes {size:g} channels, which have to be a whole number")
    return round(size)


def convolution(config: Config, *, default: bool = True) -> int:
    """The taps of the short convolutions; 0: there are none."""
    if config("use_short_conv", default):
        return config.size("conv_size", 4)
    config.ignore("there are no short convolutions", "conv_size")
    return 0


def transformer(config: Config) -> Description:
    """The Transformer that flash-linear-attention compares with: fla-hub/transformer-1.3B-100B.

        x <- x + attention(RMSNorm(x)),   x <- x + W_3 (SiLU(W_1 RMSNorm(x)) * W_2 RMSNorm(x))

    Grouped-query attention with rotary positions (arXiv:2104.09864), over a window if there is one.
    """
    heads, window = config.size("num_heads", 32), config.size("window_size", None)
    config.ignore(UNREAD, "elementwise_affine")
    layer = partial(
        Attention,
        config.size("hidden_size"),
        heads=heads,
        kv_heads=config.size("num_kv_heads", heads),
        window=window or config.context,
        base=config("rope_theta", 10_000.0),
        bias=config("qkv_bias", False),
        out_bias=False,
        qk_norm="head" if config("qk_norm", False) else "none",
        norm_eps=1e-5,
    )
    return shell(config, (layer, ATTENTION, "attn"), context=None if window else config.context)


def forgetting_transformer(config: Config) -> Description:
    """The Forgetting Transformer of flash-linear-attention: attention that forgets.

        o_i = softmax_j(K^-1/2 q_i . k_j + D_ij) v_j,   D_ij = sum_{l = j+1 .. i} log f_l
        f_t = sigmoid(w_f x_t + b_f),   y_t = W_o o_t, or W_o (sigmoid(W_g x_t) * o_t)

    arXiv:2503.02130. There are no positions.
    """
    heads = config.size("num_heads", 32)
    config.ignore(UNREAD, "elementwise_affine")
    config.only("qkv_bias", "biases of queries, keys and values", False)
    config.only("window_size", "whole sequences are seen whole, streams are not", None)
    parts = ("qk_norm", config("qk_norm", False)), ("output_gate", config("use_output_gate", False))
    layer = partial(
        FoX,
        config.size("hidden_size"),
        heads=heads,
        kv_heads=config.size("num_kv_heads", heads),
        window=config.context,
        pro=tuple(name for name, there in parts if there),
        norm_eps=1e-5,
    )
    names: Names = {
        **{f"{j}_proj": f"W_{j}" for j in "qkvo"},
        "f_proj": "w_f",
        "f_proj.bias": "b_f",
        "g_proj": "pro.W_g",
        "q_norm": "pro.q_norm",
        "k_norm": "pro.k_norm",
    }
    return shell(config, (layer, names, "attn"), context=config.context)


def samba(config: Config) -> Description:
    """Samba of flash-linear-attention: Mamba, and attention over a window, in turn.

        x <- x + mixer(RMSNorm(x)),   x <- x + W_3 (SiLU(W_1 RMSNorm(x)) * W_2 RMSNorm(x))

    arXiv:2406.07522. `attn` lists the blocks that have attention, by default every second one.
    """
    features = config.size("hidden_size")
    config.ignore(START, f"{FIRST} time_step_floor")
    config.ignore(RUNNING, "residual_in_fp32")
    config.ignore(UNREAD, "use_conv_bias")
    config.ignore("intermediate_size is read", "expand")
    if config.fields.get("attn") is None:
        raise ValueError("samba: config.json has to list the blocks with attention, as attn")
    layer = partial(
        Mamba,
        features,
        state=config.size("state_size", 16),
        conv=config.size("conv_kernel", 4),
        inner=config.size("intermediate_size", None) or int(config("expand", 2) * features),
        dt_rank=rank(config, "time_step_rank"),
        bias=config("use_bias", False),
    )
    inner = rounded(features * config("hidden_ratio", 4))
    part = layer, MAMBA, "mixer"
    return shell(config, part, at="mixer", root="backbone", last="backbone.norm_f", inner=inner)


def delta_names(keys: int, values: int, n: int = 1) -> Names:
    """Names of a `DeltaLayer`: `keys` and `values` channels, n of them per step."""
    sizes, (linear, conv) = (keys, n * keys, n * values), CONVOLVED
    return {
        linear: Joined("W_qkv", sizes),
        conv: Joined("conv", sizes),
        "b_proj": "W_beta",
        "g_proj": "W_g",
        "o_norm": "norm",
        "o_proj": "W_o",
    }


def delta_net(config: Config) -> Description:
    """DeltaNet of flash-linear-attention: fla-hub/delta_net-1.3B-100B, delta_net-2.7B-100B.

        S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T,   o_t = K^-1/2 S_t^T q_t
        y_t = W_o RMSNorm(o_t), or W_o (RMSNorm(o_t) * SiLU(W_g x_t)) with use_gate

    arXiv:2406.06484. q and k of length one, or with sum one (qk_norm), mapped by qk_activation.
    """
    features, heads = config.size("hidden_size"), config.size("num_heads", 16)
    config.ignore("the output has a norm in any case", "use_output_norm")
    keys = whole(config, "expand_k", config("expand_k", 1.0) * features / heads)
    values = whole(config, "expand_v", config("expand_v", 1.0) * features / heads)
    layer = partial(
        DeltaNet,
        features,
        heads=heads,
        key_size=keys,
        value_size=values,
        output_gate=config("use_gate", False),
        beta=config("use_beta", True),
        qk_map=config.choice("qk_activation", "silu", QK_MAPS),
        qk_norm=config.choice("qk_norm", "l2", {"l2": "length", "sum": "sum"}),
        conv=convolution(config),
        eigenvalues=eigenvalues(config),
        norm_eps=config("norm_eps", 1e-6),
    )
    return shell(config, (layer, delta_names(heads * keys, heads * values), "attn"))


QK_MAPS = {"silu": "silu", "relu": "relu", "elu": "elu+1", "identity": "identity"}


def eigenvalues(config: Config) -> str:
    return "[-1,1]" if config("allow_neg_eigval", False) else "[0,1]"


def by_head(
    config: Config, head_dim: int, expand: float, heads: int
) -> tuple[dict[str, Any], int, int]:
    """Options of a `DeltaLayer` whose heads have head_dim keys, and its channels of k and v."""
    key_heads = config.size("num_heads", heads)
    heads, keys = config.size("num_v_heads", key_heads), config.size("head_dim", head_dim)
    values = whole(config, "expand_v", keys * config("expand_v", expand))
    options = dict(
        heads=heads,
        key_heads=key_heads,
        key_size=keys,
        value_size=values,
        conv=convolution(config),
        norm_eps=config("norm_eps", 1e-6),
    )
    return options, key_heads * keys, heads * values


DECAY: Names = {"a_proj": "W_alpha", "A_log": "A_log", "dt_bias": "dt_bias"}


def gated_deltanet(config: Config) -> Description:
    """Gated DeltaNet of flash-linear-attention.

        S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,   o_t = K^-1/2 S_t^T q_t
        y_t = W_o (RMSNorm(o_t) * SiLU(W_g x_t))
        log alpha_t = -exp(A_log) softplus(W_alpha x_t + dt_bias)

    arXiv:2412.06464.
    """
    options, keys, values = by_head(config, 256, 2.0, 6)
    gates = {"swish": "silu", "silu": "silu", "sigmoid": "sigmoid"}
    layer = partial(
        GatedDeltaNet,
        config.size("hidden_size"),
        output_gate=config("use_gate", True),
        gate_map=config.choice("output_gate_activation", "swish", gates),
        eigenvalues=eigenvalues(config),
        **options,
    )
    return shell(config, (layer, {**delta_names(keys, values), **DECAY}, "attn"))


def gated_deltaproduct(config: Config) -> Description:
    """Gated DeltaProduct of flash-linear-attention.

        S_t = alpha_t prod_j (I - beta_tj k_tj k_tj^T) S_{t-1} + the writes, j to num_householder
        o_t = K^-1/2 S_t^T q_t,   y_t = W_o (RMSNorm(o_t) * SiLU(W_g x_t))

    arXiv:2502.10297. alpha_t is 1 without use_forget_gate.
    """
    options, keys, values = by_head(config, 256, 2.0, 6)
    gated, n = config("use_forget_gate", False), config.size("num_householder", 1, most=1000)
    layer = partial(
        DeltaProduct,
        config.size("hidden_size"),
        n_h=n,
        gated=gated,
        output_gate=config("use_output_gate", True),
        eigenvalues=eigenvalues(config),
        **options,
    )
    names = {**delta_names(keys, values, n), **(DECAY if gated else {})}
    return shell(config, (layer, names, "attn"))


def comba(config: Config) -> Description:
    """Comba of flash-linear-attention.

        S_t = alpha_t S_{t-1} + beta_t k_t (v_t - S_{t-1}^T p_t)^T,   p_t = unit(sigmoid(b) k_t)
        o_t = K^-1/2 S_t^T unit(q_t - d sigmoid(b) k_t)
        y_t = W_o (RMSNorm(o_t) * sigmoid(W_g x_t))

    arXiv:2506.02475. q_t and k_t as the convolution gives them; k_t of length one is what is
    written.
    """
    options, keys, values = by_head(config, 256, 2.0, 6)
    config.ignore(UNREAD, "use_inner_decay use_output_correction")
    config.ignore(START, "correction_factor")
    layer = partial(
        Comba,
        config.size("hidden_size"),
        released=True,
        output_gate=config("use_output_gate", True),
        **options,
    )
    names = {**delta_names(keys, values), "decay": "w_b", "D": "d", **DECAY}
    return shell(config, (layer, names, "attn"))


def kda(config: Config) -> Description:
    """Kimi Delta Attention of flash-linear-attention, in every block.

        S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T
        o_t = K^-1/2 S_t^T q_t,   y_t = W_o (RMSNorm(o_t) * sigmoid(W_g2 W_g1 x_t + b_g))

    arXiv:2510.26692. The model that Moonshot released is `kimi_linear`.
    """
    options, keys, values = by_head(config, 128, 1.0, 16)
    bound = config("lower_bound", None)
    config.ignore(RUNNING, "safe_gate")
    layer = partial(
        KDA,
        config.size("hidden_size"),
        eigenvalues=eigenvalues(config),
        lower_bound=bound,
        **options,
    )
    names = {
        **delta_names(keys, values),
        "f_proj.0": "W_a.W_1",
        "f_proj.1": "W_a.W_2",
        "A_log": "A_log",
        "dt_bias": "dt_bias",
        "g_proj.0": "W_g.W_1",
        "g_proj.1": "W_g.W_2",
    }
    del names["g_proj"]
    return shell(config, (layer, names, "attn"))
