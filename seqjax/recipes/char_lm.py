"""Characters of Penn Treebank, in streams whose state is carried along.

command     seqjax train char_lm
hardware    2 CPU cores, shared with many other processes
time        8 minutes
expected    2.36 bits per character of 65,536 held out (their frequencies: 4.3)

A small min GRU (arXiv:2410.01201) that has seen a sixth of the text once. Papers go over it many
times: an AWD-LSTM has 1.175 bits on the test text (arXiv:1803.08240).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "char_lm", {"data": "ptb", "order": "streams"},
        batch=32, length=64, evaluation_batches=32,
    ),
    model=ModelConfig(
        layer=(LayerConfig("min_gru"),), features=64, depth=2
    ),
    optimiser=OptimiserConfig(learning_rate=6e-3, warmup=100, final=0.02),
    train=TrainConfig(steps=400, evaluate_every=200, save_every=200),
)  # fmt: skip
