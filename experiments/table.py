"""The table of experiments that `seqjax train` runs by name."""

from experiments import copy, demo, mqar, parity
from seqjax.config import Config

EXPERIMENTS: dict[str, Config] = {
    "parity": parity.CONFIG,
    "mqar": mqar.CONFIG,
    "copy": copy.CONFIG,
    "demo": demo.CONFIG,
}
