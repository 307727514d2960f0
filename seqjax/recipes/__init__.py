"""The recipes that `seqjax train` runs by name: a config, with what it needs and what it gives."""

from seqjax.recipes import (
    associative_recall,
    copy_memory,
    counting,
    demo,
    forecasting,
    gen_mnist,
    handwriting,
    lra_image,
    dyck,
    induction_heads,
    letter_stream,
    listops,
    mqar,
    needle,
    parity,
    pendulum,
)
from seqjax.train.config import Config

RECIPES: dict[str, Config] = {
    "parity": parity.CONFIG,
    "dyck": dyck.CONFIG,
    "counting": counting.CONFIG,
    "mqar": mqar.CONFIG,
    "associative_recall": associative_recall.CONFIG,
    "induction_heads": induction_heads.CONFIG,
    "needle": needle.CONFIG,
    "copy": copy_memory.CONFIG,
    "letter_stream": letter_stream.CONFIG,
    "listops": listops.CONFIG,
    "pendulum": pendulum.CONFIG,
    "demo": demo.CONFIG,
    "captions": captions.CONFIG,
    "smnist": smnist.CONFIG,
    "gen_mnist": gen_mnist.CONFIG,
    "lra_image": lra_image.CONFIG,
}
