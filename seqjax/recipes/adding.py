"""The adding task over 100 steps: two marked numbers and their sum, by a minimal GRU.

command     seqjax train adding
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        1 minute
expected    mse 0.00016 (always 1: 0.167)

A gate of the input alone (arXiv:2410.01201) is enough: it opens where a step is marked.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("adding", batch=32, length=100),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=600, evaluate_every=200, save_every=300),
)
