"""ETTh1, four days seen and the next four to come, as what they differ by from the last hour seen.

command     seqjax train forecasting
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        2 minutes
expected    `seqjax eval RUN --held-out test`: mse 0.75, mae 0.57 (the mean 1.11 and 0.80, the last
            value 1.29 and 0.71); of the part validated on 1.005 and 0.687
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("forecasting", {"dataset": "etth1", "from_last": True}),
    model=ModelConfig(layer=(LayerConfig("lru"),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=50, weight_decay=0.1),
    train=TrainConfig(steps=300, evaluate_every=100, save_every=300),
)
