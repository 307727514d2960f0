"""The first symbol after 100 steps of others: an LSTM that begins by keeping (arXiv:1804.11188).

command     seqjax train lstm_2b
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        half a minute
expected    accuracy 1.00 (chance: 0.5)

The chrono initialisation draws the time that a cell keeps from those up to `longest`. From the
usual one it is not found in as many steps:

    seqjax train lstm_2b --model.layer lstm                       accuracy 0.50
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("lstm_2b", batch=32, length=100),
    model=ModelConfig(
        layer=(LayerConfig("chrono_lstm", {"longest": 100.0}),), features=32, depth=1
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=600, evaluate_every=200, save_every=300),
)
