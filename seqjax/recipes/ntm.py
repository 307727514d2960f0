"""A neural Turing machine copies up to 10 vectors of 8 bits, and is tested on up to 20.

command     seqjax train ntm
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        6 minutes
expected    f1 0.98 and accuracy 0.96 of the bits that are 1 (a guess: 0.5 and 0.33)

The memory has room for 64 vectors: what it learned on short sequences is a loop, which goes on. By
length, and beside an LSTM: `python -m experiments.ntm`.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("bit_copy", batch=16, length=21, evaluation_length=41),
    model=ModelConfig(
        layer=(LayerConfig("ntm", {"cells": 64, "width": 12, "hidden": 64}),),
        features=32, depth=1, mlp="none",
    ),
    optimiser=OptimiserConfig(weight_decay=0.0),
    train=TrainConfig(steps=2000, evaluate_every=500, save_every=1000, log_every=100),
)  # fmt: skip
