"""Bouncing digits, frame by frame: a GRU on the pixels.

command     seqjax train bouncing_mnist
hardware    2 CPU cores, shared with other work
time        2 minutes
expected    52.7 nats a frame (the mean of each pixel: 94.0)

Two digits of scikit-learn, which every machine has; --task.options data=mnist has the published
frames. Validation is on digits of other writers.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("bouncing_mnist", batch=16, length=19, evaluation_batches=4),
    model=ModelConfig(layer=(LayerConfig("gru"),), features=128, depth=1),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=400, evaluate_every=200, save_every=200),
)
