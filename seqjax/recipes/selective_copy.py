"""Selective copying: eight tokens among noise, in order, by a minimal GRU (arXiv:2410.01201).

command     seqjax train selective_copy
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        6 minutes
expected    accuracy 1.00 (chance: 0.071), every sequence without a mistake

A gate reads the input of its layer alone: only those above the first know what came before.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("selective_copy", {"memorised": 8}, batch=32, length=40),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=64, depth=3),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=1500, evaluate_every=200, save_every=400),
)
