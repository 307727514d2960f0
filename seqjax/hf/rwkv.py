"""RWKV-4: time mixing and channel mixing, LayerNorms, one more of them on the embedding."""

from __future__ import annotations

from functools import partial

from seqjax.hf.config import RUNNING, TRAINING, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.tensors import Rows
from seqjax.layers.rwkv.rwkv4 import RWKV4
from seqjax.nn.norms import Norm

ROW = (1, 1, -1)
NAMES: Names = {
    "ln1": "norms.0",
    "attention.time_decay": "w",
    "attention.time_first": "u",
    tuple(f"attention.time_mix_{j}" for j in ("key", "value", "receptance")): Rows("mu", ROW),
    "attention.key": "W_k",
    "attention.value": "W_v",
    "attention.receptance": "W_r",
    "attention.output": "W_o",
    "ln2": "norms.1",
    tuple(f"feed_forward.time_mix_{j}" for j in ("key", "receptance")): Rows(
        "channel_mixing.mu", ROW
    ),
    "feed_forward.key": "channel_mixing.W_k",
    "feed_forward.value": "channel_mixing.W_v",
    "feed_forward.receptance": "channel_mixing.W_r",
}


def rwkv(config: Config) -> Description:
    """RWKV-4 (RWKV/rwkv-4-169m-pile to -14b-pile, -raven, -world), arXiv:2305.13048.

        x <- x + time_mix(ln(x)), x <- x + channel_mix(ln(x))   in every block; x is ln(embed) first

    rescale_every halves activations against overflow in 16 bits and changes nothing here.
    """
    features = config.size("hidden_size")
    config.ignore(RUNNING, "rescale_every")  # how often activations are halved: the norms undo it
    config.ignore(TRAINING, "context_length")
    config.only("layer_norm_epsilon", "the smallest deviation that a norm divides by", 1e-5)
    layer = partial(
        RWKV4,
        features,
        hidden=config.size("attention_hidden_size", features),
        block=True,
        inner=config.size("intermediate_size", 4 * features),
    )
    depth = config.depth()
    return Description(
        vocabulary=config.size("vocab_size"),
        features=features,
        branches=tuple(Branch(layer, NAMES, f"rwkv.blocks.{i}") for i in range(depth)),
        norm=partial(Norm, centre=True, bias=True, eps=1e-5),
        embed="rwkv.embeddings",
        first="rwkv.blocks.0.pre_ln",
        last="rwkv.ln_out",
        head="head",
        tied=config("tie_word_embeddings", False),
    )
