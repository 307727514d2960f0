"""A window of 50 steps, read out at ten delays: a Legendre memory (Voelker et al. 2019).

command     seqjax train capacity
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        2 minutes
expected    mse 0.0028 (the mean of the input: 1)

The noise has the lowest fifth of the frequencies, so that the 16 coefficients of the memory can
hold it.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("capacity", {"bandwidth": 0.2}, batch=32, length=128),
    model=ModelConfig(layer=(LayerConfig("lmu", {"theta": 50.0}),), features=32, depth=1),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=600, evaluate_every=200, save_every=300),
)
