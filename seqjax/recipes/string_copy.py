"""Copying strings twice as long as those trained on: attention by hard ALiBi (arXiv:2402.01032).

command     seqjax train string_copy
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        6 minutes
expected    accuracy 0.992 on up to 40 letters, trained on up to 20 (with no memory: 0.083); 0.859
            of the strings without a mistake

Half of the heads see the last one, two, three and four tokens and find the n-gram again, at any
distance.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("string_copy", batch=32, length=42, evaluation_length=82),
    model=ModelConfig(
        layer=(LayerConfig("attention", {"heads": 8, "window": 82, "positions": "hard_alibi"}),),
        features=64, depth=2,
    ),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50, weight_decay=0.01),
    train=TrainConfig(steps=1000, evaluate_every=250, save_every=500),
)  # fmt: skip
