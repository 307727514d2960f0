"""The T-maze (Bakker 2001) by a recurrent policy: a sign at the start, a choice 20 steps later.

command     seqjax train tmaze
hardware    2 CPU cores
time        1 minute
expected    validation return 4.00, the optimum, success 1.00

Without a memory the best is a return of 1.95, half of the turns. A window of one step is none:

    seqjax train tmaze --model.layer local_attention window=1     return 1.91, success 0.49
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "rl_memory", {"environment": "tmaze", "size": 20, "limit": 80},
        batch=64, length=160, evaluation_batches=4,
    ),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=32, depth=1),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=10, weight_decay=0.0),
    train=TrainConfig(steps=150, evaluate_every=50, save_every=150, log_every=10),
)  # fmt: skip
