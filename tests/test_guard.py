"""Steps that must not count: an error, a step that is skipped, a way back; each goes on bitwise."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_train import StopAt, hash_of

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.tasks import make
from seqjax.tasks.task import Generator, Task
from seqjax.train.checkpoint import Checkpoints, fingerprint
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig
from seqjax.train.guard import STEPS, Guard, NotFinite
from seqjax.train.imported import build
from seqjax.train.loop import train
from seqjax.train.record import read_metrics
from seqjax.train.step import prepare, take_apart

CONFIG = Config(
    TaskConfig("adding", batch=4, length=6, evaluation_batches=1),
    ModelConfig(layer=(LayerConfig("elman"),), features=4, depth=1, dropout=0.1),
    OptimiserConfig(warmup=5),
    TrainConfig(steps=20, evaluate_every=10, save_every=4, log_every=3, max_to_keep=20),
)


@dataclass
class Faulty(Generator):
    """Batches some of whose targets are multiplied."""

    factors: Mapping[int, float] = field(default_factory=dict)

    def __next__(self):
        factor = self.factors.get(self.next_index, 1.0)
        batch = super().__next__()
        return batch._replace(y=batch.y * np.float32(factor))


@dataclass(frozen=True, eq=False)
class Planted(Task):
    factors: Mapping[int, float] = field(default_factory=dict, kw_only=True)

    def batches(self, seed, batch, length):
        plain = super().batches(seed, batch, length)
        return Faulty(plain.sample, plain.key, batch, length, factors=self.factors)


def planted(factors):
    task = make("adding")
    return Planted(**{f.name: getattr(task, f.name) for f in fields(task)}, factors=factors)


def settings(**changes):
    return replace(CONFIG, train=replace(CONFIG.train, **changes))


def by_hand(config, batches):
    """Parameters after these batches, None for one that only counts as a step."""
    task = make("adding")
    programs = prepare(config)
    key = jax.random.split(jax.random.key(config.train.seed))[0]
    model = build(config.model, task.spec, None, rngs=nnx.Rngs(key))
    state = programs.start(*take_apart(model)[:2])
    stream = task.batches(config.train.seed, config.task.batch, config.task.length)
    drawn = [next(stream) for _ in range(1 + max(n for n in batches if n is not None))]
    for step, n in enumerate(batches):
        share = np.float32(step / config.train.steps)
        if n is None:
            state = state._replace(step=state.step + 1)
        else:
            state = programs.update(state, drawn[n], share)[0]
    return fingerprint({name: np.asarray(p) for name, p in state.params.items()})


def parameters(run, step):
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        arrays = checkpoints.read(step)[0]
    kept = {n.removeprefix("params."): a for n, a in arrays.items() if n.startswith("params.")}
    return fingerprint(kept)


def lines(run):
    """What is recorded, but for what a clock says, as text: NaN is not NaN."""
    return [json.dumps({k: v for k, v in row.items() if "second" not in k})
            for row in read_metrics(run)]  # fmt: skip


@pytest.mark.share(1)
@pytest.mark.parametrize("factor", [np.nan, np.inf, 1e30])
def test_a_bad_step_is_skipped(factor, tmp_path):
    config, task = settings(bad_step="skip"), planted({7: factor, 12: factor})
    result = train(config, tmp_path / "whole", task=task)
    assert result.step == 20
    expected = by_hand(CONFIG, [None if n in (7, 12) else n for n in range(20)])
    assert parameters(tmp_path / "whole", 20) == expected
    rows = [row for row in read_metrics(tmp_path / "whole") if "bad_loss" in row]
    assert [(row["step"], row["skipped"]) for row in rows] == [(8, 1), (13, 2)]
    assert not any(np.isfinite([row["bad_loss"], row["bad_gradient_norm"]]).all() for row in rows)
    counts = [row["skipped"] for row in read_metrics(tmp_path / "whole") if "loss" in row]
    assert counts == [0, 0, 1, 1, 2, 2]
    assert all(np.isfinite(row["loss"]) for row in read_metrics(tmp_path / "whole")
               if "loss" in row)  # fmt: skip


def test_a_bad_step_leads_back(tmp_path):
    """To step 4, and 8, not the best at 10: the run goes on with the batch after the bad one."""
    config, task = settings(bad_step="rewind"), planted({6: np.nan, 13: np.inf})
    train(config, tmp_path / "whole", task=task)
    expected = [*range(4), *range(7, 11), *range(14, 26)]  # step 7 was bad, and 11
    assert parameters(tmp_path / "whole", 20) == by_hand(CONFIG, expected)
    rows = [row for row in read_metrics(tmp_path / "whole") if "rewind" in row]
    assert [(row["step"], row["rewind"]) for row in rows] == [(4, 7), (8, 11)]
    steps = [row["step"] for row in read_metrics(tmp_path / "whole")]
    assert steps == sorted(steps)


@pytest.mark.thorough
@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_it_goes_on_bitwise_around_bad_steps(policy, tmp_path):
    config = settings(bad_step=policy, spike=6.0, max_to_keep=1)
    task = planted({6: np.nan, 13: np.inf})
    train(config, tmp_path / "whole", task=task)
    for at in (3, 9, 15):
        stopped = train(config, tmp_path / "run", StopAt(at), task=task)
        assert stopped.reason == "SIGTERM"
    train(config, tmp_path / "run", task=task)
    assert hash_of(tmp_path / "run", 20) == hash_of(tmp_path / "whole", 20)
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


@pytest.mark.thorough
def test_a_bad_step_stops_the_run_and_is_recorded(tmp_path):
    task = planted({6: np.nan})
    for _ in range(2):  # it does so again when it goes on
        with pytest.raises(NotFinite, match=r"^step 7: loss nan, .*last good checkpoint is .*/4$"):
            train(CONFIG, tmp_path, task=task)
        rows = [row for row in read_metrics(tmp_path) if "stopped" in row]
        assert [row["step"] for row in rows] == [7]
    skipping = settings(bad_step="skip", spike=6.0)  # and is told to go on past it
    train(skipping, tmp_path, task=task)
    assert parameters(tmp_path, 20) == by_hand(CONFIG, [None if n == 6 else n for n in range(20)])


@pytest.mark.share(1)
@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_bad_steps_one_after_the_other_end_it(policy, tmp_path):
    config = settings(bad_step=policy, bad_in_a_row=3)
    task = planted({n: np.nan for n in (5, *range(9, 200))})
    with pytest.raises(NotFinite, match=r"nan, after 3 bad ones in a row; the last good") as error:
        train(config, tmp_path, task=task)
    assert "\n" not in str(error.value)
    marks = [row["step"] for row in read_metrics(tmp_path) if policy in str(row)]
    assert len(marks) >= 3


def test_going_back_needs_a_folder():
    with pytest.raises(ValueError, match="train.bad_step=rewind .*: give the run a folder"):
        train(settings(bad_step="rewind"))


@pytest.mark.thorough
def test_a_spike_is_skipped(tmp_path):
    config = settings(steps=90, bad_step="skip", spike=6.0, save_every=40, evaluate_every=90)
    task = planted({20: 30.0, 80: 30.0})  # the first one before there are enough to compare with
    result = train(config, tmp_path / "whole", task=task)
    rows = [row for row in read_metrics(tmp_path / "whole") if "bad_loss" in row]
    assert [row["step"] for row in rows] == [81] and np.isfinite(rows[0]["bad_loss"])
    assert result.step == 90
    train(config, tmp_path / "run", StopAt(75), task=task)
    train(config, tmp_path / "run", task=task)
    assert hash_of(tmp_path / "run", 90) == hash_of(tmp_path / "whole", 90)


def test_a_spike_is_so_many_deviations_above_the_mean_of_the_last_steps():
    guard, numbers = Guard(skips=True, spike=3.0), np.random.default_rng(0)
    task = make("adding")
    model = build(CONFIG.model, task.spec, None, rngs=nnx.Rngs(0))
    state = prepare(CONFIG).start(*take_apart(model)[:2])._replace(recent=guard.start())
    judged = jax.jit(lambda *step: guard(*step))
    seen, found = [], []
    for step in range(300):
        loss, norm = numbers.normal(5, 1, 2).astype(np.float32)
        loss += 4 * (step % 37 == 5) * (step > 150)
        norm += 9 * (step % 41 == 7) * (step < 150)
        loss = np.float32(np.nan) if step == 99 else loss
        after = state._replace(step=state.step + 1)
        state, metrics = judged(state, after, {"loss": loss, "gradient_norm": norm})
        last = np.array(seen[-STEPS:], np.float64).reshape(-1, 2)
        spike = len(last) >= STEPS // 2 and np.isfinite([loss, norm]).all() and (
            np.array([loss, norm]) > last.mean(0) + 3 * last.std(0)
        ).any()  # fmt: skip
        assert bool(metrics["spike"]) == spike
        found.append(spike)
        if np.isfinite([loss, norm]).all():
            seen.append((loss, norm))
    assert 4 < sum(found) < 20 and int(state.step) == 300
    recent = jnp.asarray(state.recent)
    np.testing.assert_allclose(recent, np.array(seen[-STEPS:]).T, rtol=1e-6)
