"""Sentiment of reviews of films by their first 256 words.

command     seqjax train imdb
hardware    2 CPU cores, shared with many other processes
time        3 minutes
expected    validation accuracy 0.79 (chance: 0.5), of the subset of 5,000 + 5,000 reviews:
            4,500 to train on, 500 held out

A min GRU (arXiv:2410.01201), and the mean over the words of what it returns. More steps only bring
the loss on what is held out up again.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("imdb", batch=32),
    model=ModelConfig(
        layer=(LayerConfig("min_gru"),), features=32, depth=1, dropout=0.3, pool="mean"
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, final=0.02),
    train=TrainConfig(steps=150, evaluate_every=75, save_every=75),
)
