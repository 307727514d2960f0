"""A needle sixteen times further back than trained: a minimal GRU (arXiv:2410.01201) holds it.

command     seqjax train needle
hardware    2 CPU cores, shared with other work
time        3 minutes
expected    accuracy 1.00 at length 1024, trained at length 64 (chance: 0.125)

One target in a sequence is enough here: a gate that depends on the input alone finds what to keep.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("needle", {"elements": 8}, batch=32, length=64, evaluation_length=1024),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=1000, evaluate_every=500, save_every=500),
)  # fmt: skip
