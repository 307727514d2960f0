"""One to many: a picture of a digit in, its name spelt out.

command     seqjax train captions
hardware    2 CPU cores
time        1 minute
expected    validation accuracy 0.999 of letters, 0.994 of names: all but one of 180 images

The picture is there at the first step only, and no letter is shown to the model: the state carries
the name and the place in it.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("captions", batch=50, evaluation_batches=None),
    model=ModelConfig(layer=(LayerConfig("gru", {}),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50),
    train=TrainConfig(steps=500, evaluate_every=100, save_every=250),
)
