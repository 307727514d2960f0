"""The table of errors: what it passes and what it fails."""

import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

import seqjax
from seqjax import ops
from seqjax.core import monoid
from seqjax.tools import selfcheck
from seqjax.tools.cli import main

scanning = sys.modules["seqjax.core.scan"]  # as an attribute of seqjax it is the function


def test_every_algebra_is_checked():
    algebras = [v for v in vars(monoid).values() if isinstance(v, monoid.Monoid)]
    checked = {algebra.structure for algebra, *_ in selfcheck.ALGEBRAS.values()}
    assert {a.structure for a in algebras} | {"shift"} == checked
    whats = {problem.what for problem in selfcheck.problems()}
    assert whats == {"scan", *ops.OPS}


def test_the_error_table_passes_and_fails():
    (problem,) = (
        p for p in selfcheck.scan_problems(False) if p.case == "diagonal" and p.steps < 64
    )
    problem = replace(problem, evaluators=("sequential", "primitive"), dtypes=("float32",))
    right = list(selfcheck.solve(problem))
    assert [line.evaluator for line in right] == ["sequential", "primitive"]
    assert all(line.passed and line.form == "XLA" for line in right)
    assert 0 < max(line.value for line in right) and 0 < max(line.gradient for line in right)

    def value_wrong(inputs, evaluator):
        states, last = problem.run(inputs, "sequential")
        return states, last + jnp.where(evaluator == problem.oracle, 0, 1e-4).astype(last.dtype)

    def gradient_wrong(inputs, evaluator):
        states, last = problem.run(inputs, "sequential")
        return states, last if evaluator == problem.oracle else jax.lax.stop_gradient(last)

    def not_a_number(inputs, evaluator):
        states, last = problem.run(inputs, "sequential")
        return states, last if evaluator == problem.oracle else last * jnp.nan

    for run, wrong in (
        (value_wrong, ("value",)),
        (gradient_wrong, ("gradient",)),
        (not_a_number, ("value", "gradient")),
    ):
        (line,) = selfcheck.solve(replace(problem, run=run, evaluators=("wrong",)))
        assert not line.passed
        for name in ("value", "gradient"):
            assert (getattr(line, name) <= line.tolerance) == (name not in wrong)


@pytest.mark.parametrize("platform, mark", [("tpu", "tpu_custom_call"), ("cuda", "mosaic_gpu")])
def test_kernels_are_recognised(platform, mark):
    """The form named in the table is read from the program: a kernel must be seen in it."""
    x = jax.ShapeDtypeStruct((2, 256, 128), jnp.float32)
    program = jax.jit(lambda a, b: seqjax.linear_scan(a, b, evaluator="primitive")[0])
    text = jax.export.export(program, platforms=[platform])(x, x).mlir_module()
    assert [m for m in selfcheck.KERNELS if m in text] == [mark]


def test_selfcheck_answers_with_its_exit_code(monkeypatch, capsys):
    line = selfcheck.Check("scan", "dense", 4, "chunked", "float32", "XLA", 0.0, 1e-8, 1e-6)
    monkeypatch.setattr(selfcheck, "check", lambda names, full: [line])
    assert main(["selfcheck"]) == 0
    assert "PASS" in capsys.readouterr().out
    monkeypatch.setattr(selfcheck, "check", lambda names, full: [line, replace(line, value=1.0)])
    assert main(["selfcheck", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_tolerance_follows_dtype_and_length():
    assert selfcheck.tolerance(100, "float64") < 1e-10 < selfcheck.tolerance(100, "float32")
    assert selfcheck.tolerance(100, "float32") < 1e-3 < selfcheck.tolerance(100, "bfloat16")
    assert selfcheck.tolerance(400, "float32") == pytest.approx(
        2 * selfcheck.tolerance(100, "float32"), rel=0.01
    )
