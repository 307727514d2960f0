"""Training: configs, the loop, checkpoints, records, generation.

`train` and `load` of `seqjax.train.loop` are here too, imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqjax.train.loop import load as load, train as train


def __getattr__(name: str) -> Any:
    if name in ("load", "train"):
        from seqjax.train import loop

        return getattr(loop, name)
    raise AttributeError(f"module 'seqjax.train' has no attribute {name!r}")
