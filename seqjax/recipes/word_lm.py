"""Words of Penn Treebank, in streams whose state is carried along.

command     seqjax train word_lm
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        4 minutes
expected    perplexity 250 of the 73,760 words held out; `seqjax eval RUN --held-out test`: 240
            (their frequencies: 640)

A small min GRU (arXiv:2410.01201) that has seen half of the text once. Papers go over it many
times: a small LSTM has 114.5 on the test words (arXiv:1409.2329), an AWD-LSTM 57.3 (1708.02182).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("word_lm", batch=32, length=35, evaluation_batches=None),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=96, depth=2, dropout=0.1),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=50, final=0.02),
    train=TrainConfig(steps=400, evaluate_every=200, save_every=200),
)
