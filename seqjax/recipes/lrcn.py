"""LRCN: convolutions on each frame, an LSTM over frames, a class for all (arXiv:1411.4389).

command     seqjax train lrcn
hardware    2 CPU cores, shared with other work
time        3 minutes
expected    validation accuracy 1.000 of videos of digits of other writers (chance: 0.25)

The class is read from the mean over frames of what the LSTM answers; the paper takes the mean of
the probabilities of each frame.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("moving_digits", batch=32, length=8, evaluation_batches=8),
    model=ModelConfig(
        layer=(LayerConfig("lstm"),), features=64, depth=1, mlp="none", front="conv", pool="mean"
    ),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=50, weight_decay=0.1),
    train=TrainConfig(steps=800, evaluate_every=200, save_every=400),
)
