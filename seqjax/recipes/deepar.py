"""DeepAR, a probabilistic forecaster (arXiv:1704.04110): counts of items of any magnitude.

command     seqjax train deepar
hardware    2 CPU cores, shared with other work
time        6 minutes
expected    validation loss 4.08 nats, mae 44.3, rmse 106 (a constant mean: 4.39, 66.4, 160);
            `seqjax eval RUN`: of 14 days to come 51, 81 and 90 % in the intervals of 50, 80 and
            90 % of the paths drawn, crps 0.25 of the mean

LSTMs read z_{t-1} / nu, log nu and the day of the week; the answer is a negative binomial, with
mu scaled by nu and alpha by 1 / sqrt(nu).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("demand", batch=32, length=56, evaluation_batches=4),
    model=ModelConfig(layer=(LayerConfig("lstm"),), features=40, depth=2, mlp="none"),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=800, evaluate_every=200, save_every=400),
)
