"""Words of Penn Treebank by an AWD-LSTM (arXiv:1708.02182), its states kept small and slow.

command     seqjax train awd_lstm
hardware    2 CPU cores, shared with many other processes; jax 0.10.2, 2026-11-30
time        9 minutes
expected    perplexity 239 of the 73,760 words held out, and without AR and TAR (--model.ar 0
            --model.tar 0) 250; a neural cache on it, `seqjax eval RUN --cache 500`: 198
            (their frequencies: 685)

One run each, over half of the text once; the paper goes over it 750 times, with three layers of
1150 units, and has 57.3 on the test words, 52.8 with a cache.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("word_lm", batch=32, length=35, evaluation_batches=None),
    model=ModelConfig(
        layer=(LayerConfig("awd_lstm", {"weight_drop": 0.2}),), features=96, depth=2, mlp="none",
        dropout=0.1, variational=True, ar=2.0, tar=1.0,
    ),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=50, final=0.02),
    train=TrainConfig(steps=400, evaluate_every=200, save_every=200),
)  # fmt: skip
