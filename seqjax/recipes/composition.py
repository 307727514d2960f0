"""One function after another, both given by their pairs: two layers of an LSTM.

command     seqjax train composition
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        5 minutes
expected    accuracy 0.926 (chance: 0.333)

Two functions on three values, 729 pairs of them; no step before the last shows which value is
asked of. A single layer of a Transformer cannot do it for functions of many values, as the paper
proves (arXiv:2402.08164).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("composition", {"size": 3}, batch=64, length=15),
    model=ModelConfig(layer=(LayerConfig("lstm"),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=2000, evaluate_every=250, save_every=500),
)
