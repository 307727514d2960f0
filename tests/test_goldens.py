"""Official numbers: outputs, states and gradients of the reference implementations.

Every case found in ../shared/goldens and ../shared/goldens-options, or in the folders that
SEQJAX_GOLDENS names instead (separated as in PATH), is a test; a case whose system has not landed
is skipped with that reason. Adapters translate a case's weights and names; they never compute. A
setting or an input of a case that its adapter does not look at fails the test: an answer that
cannot depend on an option is no answer to it. Complex losses follow the references:
loss = sum Re(conj(cot) out), gradient = dL/dRe + i dL/dIm, the conjugate of `jax.grad`'s.
"""

import importlib
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL, spread
from golden_tools import Settings

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
NAMED = [Path(name) for name in os.environ.get("SEQJAX_GOLDENS", "").split(os.pathsep) if name]
FOLDERS = NAMED or [SHARED / "goldens", SHARED / "goldens-options"]


def adapters():
    """golden -> evaluator -> adapter, of every golden_*.py in goldens/."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("goldens/golden_*.py")):
        own = getattr(importlib.import_module(path.stem), "ADAPTERS", {})
        twice = set(own) & set(found)
        assert not twice, f"{path.name} answers {sorted(twice)} a second time"
        found |= own
    return found


ADAPTERS = adapters()
# `make test` runs a sixth of each op's cases, MOST of them in all, and all cases of folders that
# are named, by the first evaluator, the loop, to which the laws of `test_layers` hold the one a
# user gets; `make test-all` (SEQJAX_TEST_ALL=1) runs everything.
# Absolute and relative to the largest entry. A case that is ill-conditioned in the reference
# itself (a denominator near zero) says so in its meta, by its own float32 error.
TOLERANCE = 1e-8
MOST = 64
# What a case notes about itself, and is no setting.
NOTES = frozenset(
    "op case set source licence equation conventions dtype verification".split()
    + ["differentiable_inputs"]
)


def paths(golden="*"):
    """The files of a golden's cases, by folder and name."""
    return [path for folder in FOLDERS for path in sorted(folder.glob(f"{golden}/*.npz"))]


def chosen(by_golden):
    """golden -> those of its cases that run."""
    if FULL or NAMED:
        return by_golden
    few = [path for found in by_golden.values() for path in spread(found, -(-len(found) // 6))]
    kept = set(spread(few, MOST)) if few else set()
    return {golden: [p for p in found if p in kept] for golden, found in by_golden.items()}


def cases():
    rows, by_golden = [], {}
    for folder in FOLDERS:
        if not any(folder.glob("*/*.npz")):
            if NAMED:
                raise FileNotFoundError(f"SEQJAX_GOLDENS: no case */*.npz in {folder}")
            reason = f"no goldens: {folder} is missing or empty (set SEQJAX_GOLDENS)"
            mark = pytest.mark.skip(reason=reason)
            rows.append(pytest.param(None, None, id=f"none in {folder.name}", marks=mark))
    for path in paths():
        by_golden.setdefault(path.parent.name, []).append(path)
    for golden, found in sorted(chosen(by_golden).items()):
        evaluators = ADAPTERS.get(golden)
        for path in found:
            case = f"{golden}/{path.stem}"
            if evaluators is None:
                mark = pytest.mark.skip(reason=f"{golden}: no landed system answers it yet")
                rows.append(pytest.param(path, None, id=case, marks=mark))
            labels = list(evaluators or ())
            for label in labels if FULL else labels[:1]:
                rows.append(pytest.param(path, label, id=f"{case}[{label}]"))
    return rows


def read(path):
    stored = dict(np.load(path, allow_pickle=False))
    meta = json.loads(str(stored.pop("meta")))

    def pick(prefix):
        return {k[len(prefix) :]: v for k, v in stored.items() if k.startswith(prefix)}

    return Settings(meta), *(pick(prefix) for prefix in ("in_", "out_", "cot_", "grad_"))


def close(name, got, expected, tolerance=TOLERANCE):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, reference {expected.shape}"
    if expected.dtype.kind in "fc" and (nothing := np.isnan(expected)).any():  # padding
        assert np.array_equal(np.isnan(got), nothing), f"{name}: NaN elsewhere than the reference"
        got, expected = got[~nothing], expected[~nothing]
    size = max(1.0, float(np.max(np.abs(expected), initial=0)))
    error = float(np.max(np.abs(got - expected), initial=0)) / size
    assert error <= tolerance, f"{name}: differs from the reference by {error:.2e} (relative)"


@pytest.mark.parametrize("path, evaluator", cases())
def test_golden(path, evaluator):
    meta, inputs, outputs, cotangents, gradients = read(path)
    adapter = ADAPTERS[path.parent.name][evaluator]
    inexact = {k: jnp.asarray(v) for k, v in inputs.items() if k in gradients}
    others = {k: v if v.dtype.kind == "U" else jnp.asarray(v)
              for k, v in inputs.items() if k not in gradients}  # fmt: skip

    # numbers that are limits, by name: words are for adapters
    limits = meta.settings.get("tolerance")
    allowed = dict(meta["tolerance"]) if isinstance(limits, Settings) else {}
    unread = []

    def loss(inexact):
        given = Settings({**others, **inexact})
        answers = adapter(given, meta)
        unread[:] = meta.unread(NOTES) + given.unread()
        missing = set(cotangents) - set(answers)
        assert not missing, f"the adapter does not answer {sorted(missing)}"
        if gradients and not cotangents:  # an op with a loss of its own
            told = {k: v for k, v in answers.items() if k != "loss" or k in outputs}
            return answers["loss"], told
        terms = [jnp.sum((jnp.conj(c) * answers[k]).real) for k, c in cotangents.items()]
        return sum(terms, jnp.zeros(())), answers

    (_, answers), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(inexact)
    assert not unread, f"the adapter does not look at {', '.join(unread)} of the case"
    unknown = set(answers) - set(outputs)
    assert not unknown, f"the reference has no output {sorted(unknown)}"
    assert answers, "the adapter answers nothing"
    for name, answer in answers.items():
        tolerance = allowed.get(name, max(allowed.values(), default=TOLERANCE))
        close(f"out_{name}", answer, outputs[name], tolerance)
    for name, expected in gradients.items():
        close(f"grad_{name}", np.conj(found[name]), expected)


def test_a_wrong_number_is_caught():
    with pytest.raises(AssertionError, match="differs from the reference by 1.0"):
        close("out_y", np.ones(3) + 1e-7 * np.array([0, 0, 1.0]), np.ones(3))
    with pytest.raises(AssertionError, match="shape"):
        close("out_y", np.ones((3, 1)), np.ones(3))


def test_an_option_that_nobody_reads_is_named():
    case = Settings({"scale": 1.0, "op": "x", "options": {"window": 3, "gqa": 2}, "rest": {"b": 1}})
    assert case["options"].get("window") == 3 and "softcap" not in case["options"]
    assert case.unread(NOTES) == ["scale", "options.gqa", "rest"]
    case.ignore("scale")
    with pytest.raises(AssertionError, match="gqa is 2 in the case, 1 here"):
        case["options"].expect(gqa=1)
    assert dict(**case["rest"]) == {"b": 1} and case.unread(NOTES) == []


def test_a_share_is_spread():
    shares = [spread(list(range(n)), kept) for n, kept in ((1, 1), (2, 1), (3, 2), (7, 4), (2, 9))]
    assert shares == [[0], [0], [0, 2], [0, 2, 4, 6], [0, 1]]
