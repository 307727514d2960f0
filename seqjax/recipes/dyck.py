"""Brackets of two kinds, five times as long as those trained on: an LSTM keeps the stack.

command     seqjax train dyck
hardware    2 CPU cores, shared with other work
time        1 minute
expected    accuracy 0.999 at length 200, trained at length 40 (the present symbol alone: 0.755);
            0.91 of the sequences without a mistake

Four brackets may be open at once, so the stack has two bits for each kind that it holds, which the
gates of a single layer learn (arXiv:2010.07515 has the construction).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "dyck", {"kinds": 2, "depth": 4}, batch=32, length=40, evaluation_length=200,
    ),
    model=ModelConfig(layer=(LayerConfig("lstm"),), features=48, depth=1),
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup=20, weight_decay=0.01),
    train=TrainConfig(steps=1500, evaluate_every=500, save_every=500),
)  # fmt: skip
