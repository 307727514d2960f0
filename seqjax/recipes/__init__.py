"""The recipes that `seqjax train` runs by name: a config, with what it needs and what it gives."""

from seqjax.recipes import (
    captions,
    copy_memory,
    demo,
    forecasting,
    gen_mnist,
    handwriting,
    lra_image,
    mqar,
    parity,
    polyphonic,
    smnist,
    uea,
)
from seqjax.train.config import Config

RECIPES: dict[str, Config] = {
    "parity": parity.CONFIG,
    "mqar": mqar.CONFIG,
    "copy": copy_memory.CONFIG,
    "uea": uea.CONFIG,
    "forecasting": forecasting.CONFIG,
    "polyphonic": polyphonic.CONFIG,
    "handwriting": handwriting.CONFIG,
    "demo": demo.CONFIG,
    "captions": captions.CONFIG,
    "smnist": smnist.CONFIG,
    "gen_mnist": gen_mnist.CONFIG,
    "lra_image": lra_image.CONFIG,
}
