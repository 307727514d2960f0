"""Majority of the bits so far, at four times the trained length: an LSTM counts (arXiv:1805.04908).

command     seqjax train majority
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        half a minute
expected    accuracy 0.9998 at length 256, trained at length 64 (the clock alone: 0.523);
            0.988 of the sequences without a mistake
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("majority", batch=32, length=64, evaluation_length=256),
    model=ModelConfig(layer=(LayerConfig("lstm"),), features=16, depth=1),
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=600, evaluate_every=200, save_every=300),
)
