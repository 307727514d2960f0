"""Small ListOps, expressions of 5 to 18 tokens: two layers of a GRU.

command     seqjax train listops
hardware    2 CPU cores, shared with other work
time        2 minutes
expected    accuracy 0.59 (the likeliest value: 0.11)

The published expressions are the defaults of the task, with T = 1999.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "listops", {"shortest": 5, "depth": 3, "arguments": 4}, batch=32, length=18,
    ),
    model=ModelConfig(layer=(LayerConfig("gru"),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=1200, evaluate_every=400, save_every=400),
)  # fmt: skip
