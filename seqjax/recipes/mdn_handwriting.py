"""Numbers written by hand, of their digits: a mixture density network with a window (1308.0850).

command     seqjax train mdn_handwriting
hardware    2 CPU cores, shared with much other work; jax 0.10.2, 2026-11-30
time        8 minutes
expected    validation loss -2.29 nats per step (one Gaussian: 2.78)

The handwriting is made up, one to three numerals by a hand of another size and slant each time. The
window goes on from digit to digit as they are written, and stands at the end, token 10, when all
are: what is drawn after that is to be cut off. By then most numerals can be read, and some are
another one.

    from seqjax.tasks.signals.handwriting import digits, lines
    strokes = generate(model, [digits(b"407")], 100, key=jax.random.key(0), temperature=0.3)

(`seqjax.train.generate`); lines(strokes[0]) are points to draw, and `seqjax.stacks.alignments` has
where the window stood.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

HAND = LayerConfig("mdn_handwriting", {"hidden": 96, "depth": 2, "components": 4, "pace": 0.08})
CONFIG = Config(
    task=TaskConfig(
        "handwriting", {"dataset": "numbers", "conditioned": True, "components": 8}, batch=32
    ),
    model=ModelConfig(
        layer=(HAND,), features=48, depth=1, mlp="none",
        encoder=(LayerConfig("min_gru"),), encoder_depth=1,
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=500, evaluate_every=250, save_every=500),
)  # fmt: skip
