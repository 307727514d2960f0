"""Pathfinder in small: are two dots on one path, in pictures of 16 x 16 that are looked at twice?

command     seqjax train pathfinder
hardware    2 CPU cores, shared with much other work
time        12 minutes
expected    accuracy 0.88 of new pictures (chance: 0.5)

Two GRUs see the whole picture at both of two steps, of 320,000 drawn anew. Paths are of two
strokes, and this leaves out what makes the task hard: a path so short has a length of its own, and
how far apart the dots are is by itself right in 0.88 of the pictures (in 0.78 of those with
contour=3, in 0.64 with 4). That this one follows a path is not shown. Read row by row, by
bidirectional GRUs or LSTMs in two dimensions, or by a ConvLSTM, pictures as small gave nothing in
the minutes that these networks had for it.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("pathfinder", {"still": 16, "contour": 2}, batch=128, length=2),
    model=ModelConfig(layer=(LayerConfig("gru"),), features=192, depth=2),
    optimiser=OptimiserConfig(learning_rate=1.5e-3, warmup=50, weight_decay=0.01),
    train=TrainConfig(steps=2500, evaluate_every=500, save_every=500, log_every=100),
)
