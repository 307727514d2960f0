"""RWKV-4 and RWKV-6 for transformers: LayerNorms, one more of them on the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from seqjax.hf.config import RUNNING, TRAINING, UNREAD, Config
from seqjax.hf.decoder import Branch, Description, Names
from seqjax.hf.tensors import Form, Rows, Rule, Shaped
from seqjax.layers.rwkv.rwkv4 import RWKV4
from seqjax.layers.rwkv.rwkv6 import RWKV6
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
    return shell(config, layer, NAMES)


def shell(config: Config, layer, names: Names) -> Description:
    """Blocks between an embedding that is normed and a head."""
    branches = tuple(Branch(layer, names, f"rwkv.blocks.{i}") for i in range(config.depth()))
    return Description(
        vocabulary=config.size("vocab_size"),
        features=config.size("hidden_size"),
        branches=branches,
        norm=partial(Norm, centre=True, bias=True, eps=1e-5),
        embed="rwkv.embeddings",
        first="rwkv.blocks.0.pre_ln",
        last="rwkv.ln_out",
        head="head",
        tied=config("tie_word_embeddings", False),
    )


@dataclass(frozen=True)
class Blocks(Form):
    """As many parts of an axis as there are in `order`: ours[i] is theirs[order[i]]."""

    order: tuple[int, ...]
    axis: int = 0

    def rules(self, model, theirs):
        def placed(array: np.ndarray, order) -> np.ndarray:
            parts = np.split(array, len(self.order), axis=self.axis)
            return np.concatenate([parts[i] for i in order], axis=self.axis)

        back = np.argsort(self.order)
        yield Rule(
            theirs,
            (self.ours,),
            lambda arrays: [placed(arrays[0], self.order)],
            lambda arrays: [placed(arrays[0], back)],
        )


ORDER = (3, 1, 2, 4, 0)  # w, k, v, r, g of theirs -> r, k, v, g, w of ours
FINCH: Names = {
    "ln1": "norms.0",
    "attention.time_maa_x": Shaped("mu_x", ROW),
    tuple(f"attention.time_maa_{j}" for j in "rkvgw"): Rows("mu", ROW),
    "attention.time_maa_w1": Blocks("A", ORDER, 1),
    "attention.time_maa_w2": Blocks("B", ORDER),
    "attention.time_decay": Shaped("w", ROW),
    "attention.time_decay_w1": "w_shift.A",
    "attention.time_decay_w2": "w_shift.B",
    "attention.time_faaaa": "u",
    **{
        f"attention.{name}": f"W_{j}"
        for j, name in zip("rkvgo", ("receptance", "key", "value", "gate", "output"))
    },
    "attention.ln_x": "norm",
    "ln2": "norms.1",
    tuple(f"feed_forward.time_maa_{j}" for j in "kr"): Rows("channel_mixing.mu", ROW),
    "feed_forward.key": "channel_mixing.W_k",
    "feed_forward.value": "channel_mixing.W_v",
    "feed_forward.receptance": "channel_mixing.W_r",
}


def finch(config: Config) -> Description:
    """The rwkv6 of RWKV/v6-Finch-*-HF; that of flash-linear-attention has the same model_type."""
    features = config.size("hidden_size")
    config.ignore(RUNNING, "rescale_every")
    config.ignore(TRAINING, "context_length")
    config.ignore(UNREAD, "intermediate_size num_attention_heads")
    config.only("layer_norm_epsilon", "the smallest deviation that a norm divides by", 1e-5)
    config.only("attention_hidden_size", "heads are as wide as the features", features)
    layer = partial(
        RWKV6,
        features,
        heads=features // config.size("head_size", 64),
        block=True,
        ranks=(64, 128) if features == 4096 else (32, 64),
        inner=int(3.5 * features) // 32 * 32,
        head_eps=1e-5 * config("head_size_divisor", 8) ** 2,
    )
    return shell(config, layer, FINCH)
