"""Every task trains: two steps of a small model, whose loss then is finite on held-out batches."""

import math
from dataclasses import replace

import pytest

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tasks import TASKS, make
from seqjax.train import train
from seqjax.train.config import Config, TaskConfig, TrainConfig

MODEL = ModelConfig(layer=(LayerConfig("min_gru"),), features=8, depth=1)
TIMED = replace(MODEL, layer=(LayerConfig("s5", {"state": 4}),))


@pytest.mark.share(1)
@pytest.mark.parametrize("name", TASKS)
def test_two_steps(name, tmp_path):
    entry = TASKS[name]
    options = dict(batch=2, evaluation_batches=1)
    if entry.length is not None:  # else the data decide
        options["length"] = entry.length
    config = Config(
        task=TaskConfig(name, dict(entry.smoke), **options),
        model=TIMED if make(name, **entry.smoke).spec.timed else MODEL,
        train=TrainConfig(steps=2, evaluate_every=2, save_every=2),
    )
    found = train(config, tmp_path / "run")
    assert math.isfinite(found.metrics["loss"])
