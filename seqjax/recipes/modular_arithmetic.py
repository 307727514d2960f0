"""Expressions with brackets, modulo 3: an LSTM reduces them, from one answer at the end of each.

command     seqjax train modular_arithmetic
hardware    2 CPU cores, shared with other work
time        2 minutes
expected    accuracy 1.00 at nine symbols, two brackets deep (the likeliest value: 0.41)
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("modular_arithmetic", {"modulus": 3}, batch=64, length=9),
    model=ModelConfig(layer=(LayerConfig("lstm"),), features=64, depth=1),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=1500, evaluate_every=500, save_every=500),
)
