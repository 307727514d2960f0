"""ETTh1, four days seen and the next four to come, as what they differ by from the last hour seen.

command     seqjax train forecasting
hardware    2 CPU cores
time        4 minutes
expected    test mse 0.75, mae 0.57 (the mean 1.11 and 0.80, the last value 1.29 and 0.71)
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("forecasting", {"dataset": "etth1", "from_last": True, "held_out": "test"}),
    model=ModelConfig(layer=(LayerConfig("lru"),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=50, weight_decay=0.1),
    train=TrainConfig(steps=300, evaluate_every=100, save_every=300),
)
