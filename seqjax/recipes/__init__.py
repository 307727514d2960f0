"""The recipes that `seqjax train` runs by name: a config, with what it needs and what it gives."""

from seqjax.recipes import (
    captions,
    copy_memory,
    demo,
    gen_mnist,
    mqar,
    parity,
    smnist,
    uea,
)
from seqjax.train.config import Config

RECIPES: dict[str, Config] = {
    "parity": parity.CONFIG,
    "mqar": mqar.CONFIG,
    "copy": copy_memory.CONFIG,
    "uea": uea.CONFIG,
    "demo": demo.CONFIG,
    "captions": captions.CONFIG,
    "smnist": smnist.CONFIG,
    "gen_mnist": gen_mnist.CONFIG,
}
