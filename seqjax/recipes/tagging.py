"""Chunks of CoNLL-2000: a network that reads a sentence in both directions (arXiv:1508.01991).

command     seqjax train tagging
hardware    2 CPU cores, shared with many other processes
time        6 minutes
expected    validation F1 of whole chunks 0.895 (by the part of speech alone: 0.77)

By the words alone: those that are there once are one token, and so are digits in a row.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("tagging", batch=32),
    model=ModelConfig(
        layer=(LayerConfig("bidirectional", {"layer": "min_gru"}),),
        features=64, depth=2, dropout=0.3,
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, final=0.02),
    train=TrainConfig(steps=750, evaluate_every=250, save_every=250),
)  # fmt: skip
