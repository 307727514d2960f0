"""Official numbers: outputs, states and gradients of the reference implementations.

Every case found in the folder that SEQJAX_GOLDENS names (default ../shared/goldens) is a test; a
case whose system has not landed is skipped with that reason. Adapters translate a case's weights
and names; they never compute. Complex losses follow the references: loss = sum Re(conj(cot) out),
gradient = dL/dRe + i dL/dIm, the conjugate of `jax.grad`'s.
"""

import importlib
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("SEQJAX_GOLDENS", ROOT.parent / "shared" / "goldens"))


def adapters():
    """golden -> evaluator -> adapter, of every golden_*.py beside this file."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("golden_*.py")):
        own = getattr(importlib.import_module(path.stem), "ADAPTERS", {})
        twice = set(own) & set(found)
        assert not twice, f"{path.name} answers {sorted(twice)} a second time"
        found |= own
    return found


ADAPTERS = adapters()
# `make test` asks the first evaluator of each, the loop, to which the laws of `test_layers` hold
# the one a user gets; `make test-all` (SEQJAX_TEST_ALL=1) asks all.
FULL = os.environ.get("SEQJAX_TEST_ALL") == "1"
# Absolute and relative to the largest entry. A case that is ill-conditioned in the reference
# itself (a denominator near zero) says so in its meta, by its own float32 error.
TOLERANCE = 1e-8


def cases():
    found = sorted(FOLDER.glob("*/*.npz")) if FOLDER.is_dir() else []
    if not found:
        reason = f"no goldens: {FOLDER} is missing or empty (set SEQJAX_GOLDENS)"
        return [pytest.param(None, None, id="none", marks=pytest.mark.skip(reason=reason))]
    rows = []
    for path in found:
        evaluators = ADAPTERS.get(path.parent.name)
        case = f"{path.parent.name}/{path.stem}"
        if evaluators is None:
            mark = pytest.mark.skip(reason=f"{path.parent.name}: no landed system answers it yet")
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

    return meta, *(pick(prefix) for prefix in ("in_", "out_", "cot_", "grad_"))


def close(name, got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, reference {expected.shape}"
    size = max(1.0, float(np.max(np.abs(expected), initial=0)))
    error = float(np.max(np.abs(got - expected), initial=0)) / size
    assert error <= TOLERANCE, f"{name}: differs from the reference by {error:.2e} (relative)"


@pytest.mark.parametrize("path, evaluator", cases())
def test_golden(path, evaluator):
    meta, inputs, outputs, cotangents, gradients = read(path)
    adapter = ADAPTERS[path.parent.name][evaluator]
    inexact = {k: jnp.asarray(v) for k, v in inputs.items() if k in gradients}
    others = {k: jnp.asarray(v) for k, v in inputs.items() if k not in gradients}

    def loss(inexact):
        answers = adapter({**others, **inexact}, meta)
        missing = set(cotangents) - set(answers)
        assert not missing, f"the adapter does not answer {sorted(missing)}"
        if gradients and not cotangents:  # an op with a loss of its own
            told = {k: v for k, v in answers.items() if k != "loss" or k in outputs}
            return answers["loss"], told
        terms = [jnp.sum((jnp.conj(c) * answers[k]).real) for k, c in cotangents.items()]
        return sum(terms, jnp.zeros(())), answers

    (_, answers), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(inexact)
    unknown = set(answers) - set(outputs)
    assert not unknown, f"the reference has no output {sorted(unknown)}"
    assert answers, "the adapter answers nothing"
    for name, answer in answers.items():
        close(f"out_{name}", answer, outputs[name])
    for name, expected in gradients.items():
        close(f"grad_{name}", np.conj(found[name]), expected)


def test_a_wrong_number_is_caught():
    with pytest.raises(AssertionError, match="differs from the reference by 1.0"):
        close("out_y", np.ones(3) + 1e-7 * np.array([0, 0, 1.0]), np.ones(3))
    with pytest.raises(AssertionError, match="shape"):
        close("out_y", np.ones((3, 1)), np.ones(3))
