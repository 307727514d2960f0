"""Concentration by a recurrent policy: three pairs among six cards, in nine steps.

command     seqjax train concentration
hardware    2 CPU cores
time        2 minutes
expected    validation return 0.79

The best play with a perfect memory has an expected return of 0.867, actions at random 0.26.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "rl_memory", {"environment": "concentration", "size": 3, "limit": 9, "entropy": 0.03},
        batch=128, length=36, evaluation_batches=4,
    ),
    model=ModelConfig(layer=(LayerConfig("gru"),), features=32, depth=1),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=10, weight_decay=0.0),
    train=TrainConfig(steps=450, evaluate_every=50, save_every=450, log_every=10),
)  # fmt: skip
