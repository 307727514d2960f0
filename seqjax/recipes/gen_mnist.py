"""Digits that a model draws, pixel by pixel.

command     seqjax train gen_mnist
hardware    2 CPU cores
time        2 minutes
expected    1.87 bits per pixel of 16 values (their frequencies: 2.99)

The digits are those of scikit-learn. `python -m experiments.drawings RUN` draws others.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("gen_mnist", {"levels": 16}, batch=64, evaluation_batches=None),
    model=ModelConfig(layer=(LayerConfig("gated_deltanet", {"heads": 4}),), features=96, depth=2),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50, weight_decay=0.1),
    train=TrainConfig(steps=1000, evaluate_every=100, save_every=500),
)
