"""Connectionist temporal classification (Graves et al., ICML 2006): a line of digits is read.

command     seqjax train ctc
hardware    2 CPU cores, shared with much other work
time        10 minutes
expected    validation label_error_rate 0.065, of digits of other writers (no digit at all: 1)
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("digit_lines", batch=32, length=64, evaluation_batches=8),
    model=ModelConfig(
        layer=(LayerConfig("bidirectional", {"layer": "lstm"}),), features=64, depth=2, mlp="none"
    ),
    optimiser=OptimiserConfig(learning_rate=6e-3, warmup=50, weight_decay=0.1),
    train=TrainConfig(steps=1200, evaluate_every=200, save_every=400),
)
