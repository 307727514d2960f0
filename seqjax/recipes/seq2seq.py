"""Sequence to sequence through one state: LSTMs that read, and LSTMs that write (arXiv:1409.3215).

command     seqjax train seq2seq
hardware    2 CPU cores, shared with much other work; jax 0.10.2, 2026-11-30
time        7 minutes
expected    accuracy 0.998 of tokens (chance: 0.125), 0.980 of the sequences, of 5 to 10 tokens,
            without a mistake

What is read last is written first: the order in which the paper reads its sources, backwards. With
`--task.options vocabulary=8 reversed_source=true` the first to be written is read first. Sequences
without a mistake after 250, 500, 750 and 1000 steps:

    read backwards           0.535    0.863    0.969    0.980
    in the order of writing  0.504    0.793    0.949    0.980

`translation` has the option, too.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("reverse", {"vocabulary": 8}, batch=32, length=10),
    model=ModelConfig(
        layer=(LayerConfig("lstm"),), features=96, depth=2, mlp="none", bridge="state"
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=1000, evaluate_every=250, save_every=1000),
)
