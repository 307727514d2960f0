"""Associative recall at twice the trained length: the delta rule (arXiv:2406.06484).

command     seqjax train associative_recall
hardware    2 CPU cores, shared with other work
time        4 minutes
expected    accuracy 1.00 at length 127, trained at length 63 (chance: 0.1)

Sixteen letters, each of which keeps its digit; every letter that comes again is a target.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "associative_recall", {"every": True, "keys": 16}, batch=32, length=63,
        evaluation_batches=2, evaluation_length=127,
    ),
    model=ModelConfig(layer=(LayerConfig("deltanet", {"heads": 1}),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=300, evaluate_every=300, save_every=300),
)  # fmt: skip
