"""Multi-query associative recall (arXiv:2312.04927): a memory that is written by key.

command     seqjax train mqar
hardware    2 CPU cores
time        1 minute
expected    validation accuracy 0.99 (chance among the values seen: 0.25)

Four pairs of 64 tokens, each queried once. The delta rule writes a value where its key points and
corrects what was there (arXiv:2102.11174). A gated network of the same width only narrows it down
to the values seen in as many steps:

    seqjax train mqar --model.layer gru                           accuracy 0.28
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("mqar", {"pairs": 4, "vocabulary": 64}, batch=64, length=32),
    model=ModelConfig(layer=(LayerConfig("gated_deltanet", {"heads": 2}),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50),
    train=TrainConfig(steps=500, evaluate_every=100, save_every=250),
)
