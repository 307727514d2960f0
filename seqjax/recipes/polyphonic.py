"""JSB chorales: the keys of the next quarter note, by those before it.

command     seqjax train polyphonic
hardware    2 CPU cores
time        3 minutes
expected    frame NLL 8.4 nats, of the test chorales too (`seqjax eval RUN --held-out test`; of the
            frequencies of the keys 11.1)
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("polyphonic", {"dataset": "jsb"}, batch=16),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=96, depth=2),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50, weight_decay=0.1),
    train=TrainConfig(steps=300, evaluate_every=50, save_every=300),
)
