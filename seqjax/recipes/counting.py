"""a^n b^n, words longer than any trained on: a cell of an LSTM counts (arXiv:1805.04908).

command     seqjax train counting
hardware    2 CPU cores, shared with other work
time        1 minute
expected    0.996 of the words without a mistake for n up to 50, trained on n up to 30

The counter is a cell that goes up by as much as it goes down, which holds while it is learned; far
beyond it drifts (0.42 for n up to 100, after 1000 steps with a weight decay of 0.01).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("counting", {"letters": 2}, batch=32, length=60, evaluation_length=100),
    model=ModelConfig(layer=(LayerConfig("lstm"),), features=16, depth=1),
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=400, evaluate_every=200, save_every=200),
)  # fmt: skip
