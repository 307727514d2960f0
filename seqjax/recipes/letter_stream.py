"""Elman's letters by his network (Elman 1990): vowels are known, consonants are not.

command     seqjax train letter_stream
hardware    2 CPU cores, shared with other work
time        half a minute
expected    loss of the vowels a, i and u below 0.001 each, of the consonants about log 3 = 1.10

In all 0.36 nats a letter and accuracy 0.78; what can be known at best is log 3 / 3 = 0.366 nats in
the mean, as a third of the letters are consonants, and 7/9.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("letter_stream", batch=16, length=40),
    model=ModelConfig(layer=(LayerConfig("elman"),), features=20, depth=1),
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=400, evaluate_every=200, save_every=200),
)  # fmt: skip
