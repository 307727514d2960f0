"""A pendulum in noisy frames at irregular times: S5 reads the time between them (arXiv:2208.04933).

command     seqjax train pendulum
hardware    2 CPU cores, shared with other work
time        2 minutes
expected    mse 0.019 (the mean of the target: 0.43)

The paper's network is larger, has convolutions in front, and reaches 0.0034.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("pendulum", batch=16, length=50, evaluation_batches=4),
    model=ModelConfig(layer=(LayerConfig("s5", {"state": 32}),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=400, evaluate_every=200, save_every=200),
)  # fmt: skip
