"""Mackey-Glass 15 steps ahead, in pieces of 128: Legendre memories (Voelker et al. 2019).

command     seqjax train mackey_glass
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        3 minutes
expected    mse 0.0104 of the scaled series, whose variance is 1: an NRMSE of 0.10
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("mackey_glass", {"horizon": 15}, batch=32, length=128),
    model=ModelConfig(layer=(LayerConfig("lmu"),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=600, evaluate_every=200, save_every=300),
)
