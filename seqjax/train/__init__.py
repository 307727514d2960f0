"""Training: configs, the loop, checkpoints, records, generation.

`train` of `seqjax.train.loop` and `load` of `seqjax.train.trained` are here too, imported when they
are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqjax.train.loop import train as train
    from seqjax.train.trained import load as load


def __getattr__(name: str) -> Any:
    module = {"load": "trained", "train": "loop"}.get(name)
    if module is not None:
        return getattr(import_module(f"seqjax.train.{module}"), name)
    raise AttributeError(f"module 'seqjax.train' has no attribute {name!r}")
