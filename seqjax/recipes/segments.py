"""A needle up to 32 segments back, trained with four: Infini-attention (arXiv:2404.07143).

command     seqjax train segments
hardware    2 CPU cores, shared with other work
time        2 minutes
expected    accuracy 1.00 with 32 segments (chance: 0.125), and with 1, 2, 8 and 16
            (`seqjax eval RUN --length 8`, 16, 64, 128)

A segment has 8 steps. The needle is anywhere, so that short distances, which are easy, come first:
with all needles in the first half of four segments it was not learned. The convolution before the
memory joins a mark with the token behind it. Other memories: `python -m experiments.segments`.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "induction_heads", {"vocabulary": 8}, batch=32, length=32, evaluation_length=256,
    ),
    model=ModelConfig(
        layer=(
            LayerConfig("tcn", {"channels": (32,)}),
            LayerConfig("infini_transformer", {"length": 8, "heads": 4}),
        ),
        features=32, depth=2,
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=1200, evaluate_every=300, save_every=300),
)  # fmt: skip
