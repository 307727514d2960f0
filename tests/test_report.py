"""The tables, explanations, the error table and the timer: that they say what is so."""

import functools
import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import seqjax
from seqjax import ops
from seqjax.core import monoid
from seqjax.core.scan import EVALUATORS
from seqjax.nn.base import evaluators_of
from seqjax.ops.op import Op
from seqjax.tasks import TASKS
from seqjax.tools import bench, report, selfcheck
from seqjax.tools.cli import main
from seqjax.zoo import LAYERS, make

scanning = sys.modules["seqjax.core.scan"]  # as an attribute of seqjax it is the function
README = Path(__file__).resolve().parent.parent / "README.md"


def printed(capsys, *argv):
    assert main(list(argv)) == 0
    return json.loads(capsys.readouterr().out)


def test_readme_and_list_have_every_row(capsys, monkeypatch):
    """In one test: to look at what every layer runs takes a quarter of a minute."""
    monkeypatch.setattr(report, "sorted_rows", functools.cache(report.sorted_rows))
    tables = printed(capsys, "list", "--json")
    names = {kind: [row["name"] for row in rows] for kind, rows in tables.items()}
    assert sorted(names["layers"]) == sorted(LAYERS)
    assert names["ops"] == list(ops.OPS) and names["tasks"] == list(TASKS)
    assert set(names["evaluators"]) == {*EVALUATORS, "newton", "parallel_backward"}
    for kind in ("layers", "ops", "evaluators", "learners", "tasks"):
        assert all(row["title"] and row["reference"] for row in tables[kind])
    assert all(row.get("transition") for row in tables["layers"])

    text = README.read_text()
    readme = runpy.run_path(str(README.parent / "scripts" / "readme.py"))
    assert readme["renewed"](text) == text, "run: python scripts/readme.py"
    assert readme["year"]("2102.11174, 2406.06484") == "2021"
    assert readme["year"]("Gers et al. 2000") == "2000" and readme["year"]("this page") == ""


def met(layer, evaluator):
    """The ops and monoids that a layer runs itself (those within others are theirs), and which of
    them were given an evaluator."""
    found, given, depth, chosen = set(), set(), [], []
    call, check, choose = Op.__call__, scanning.check_element, scanning.choose

    def noted(op, *arguments, **options):
        if not depth:
            found.add(op.name)
            given.update([op.name] if options["evaluator"] else [])
        depth.append(op)
        try:
            return call(op, *arguments, **options)
        finally:
            depth.pop()

    def noted_choice(structure):
        chosen.append(structure)
        return choose(structure)

    def noted_monoid(where, algebra, elements, state):
        if not depth and where == "elements":
            found.add(algebra.structure)
            given.update([] if chosen else [algebra.structure])
        chosen.clear()
        return check(where, algebra, elements, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Op, "__call__", noted)
        patch.setattr(scanning, "choose", noted_choice)
        patch.setattr(scanning, "check_element", noted_monoid)
        traced(layer, evaluator)
    return found, given


def traced(layer, evaluator):
    """The program of a call, without the addresses of its functions."""
    graph, parameters = nnx.split(layer)
    x = jax.ShapeDtypeStruct((1, 16, layer.features), jnp.float32)
    program = jax.make_jaxpr(lambda p, x: nnx.merge(graph, p)(x, evaluator=evaluator))
    return re.sub(r"0x[0-9a-f]+", "", str(program(parameters, x)))


def shapes_of_rows(name):
    for options in (LAYERS[name].smoke, *LAYERS[name].variants.values()):
        yield (
            options,
            nnx.eval_shape(lambda options=options: make(name, report.FEATURES, **options)),
        )


@pytest.mark.share(30)
@pytest.mark.parametrize("name", LAYERS)
def test_every_row_declares_the_ops_that_it_runs(name):
    """All that it meets by itself and by the evaluators of an op; its own, such as Newton's method
    or a Fourier transform, are another way to compute."""
    for options, layer in shapes_of_rows(name):
        declared = {part for part in report._parts_of(layer, 16) if "nonlinear" not in part}
        found = met(layer, None)[0]
        known = {one for part in declared for one in evaluators_of(part)}
        for evaluator in filter(known.__contains__, layer.evaluators):
            if found != declared:
                found |= met(layer, evaluator)[0]
        assert found == declared, f"{name} {options}"


@pytest.mark.share(6)
@pytest.mark.parametrize("name", LAYERS)
def test_explain_names_the_parts_that_take_an_evaluator_and_every_one_is_taken(name):
    """By an op or a monoid that the layer declares, or else it is a program of the layer's own."""
    for options, layer in shapes_of_rows(name):
        if options.get("placement") == "context":
            continue  # Titans in context runs "naive" for "sequential", and chooses for "chunked"
        parts = [p for p in report._each_part(layer, 16) if p.takes and "nonlinear" not in p.name]
        names = {part.name for part in parts}
        own = {traced(layer, None): "None"} if met(layer, None)[0] & names else {}
        for evaluator in layer.evaluators:
            taken = met(layer, evaluator)[1] & names
            if taken:
                assert taken == {n for n in names if evaluator in evaluators_of(n)}, evaluator
            else:
                same = own.setdefault(traced(layer, evaluator), evaluator)
                assert same == evaluator, f"{name} {options}: {evaluator} runs what {same} runs"


def test_explain_reports_which_parts_take_the_evaluator_and_what_the_others_run(capsys):
    told = printed(capsys, "explain", "griffin", "--evaluator", "blocks", "--json")["parts"]
    assert told["softmax_attention of LocalAttention"] == {"blocks": "taken: requested by name"}
    diagonal = told["diagonal of RGLRU"]
    assert diagonal["primitive"].startswith("chosen")
    assert diagonal["blocks"].startswith("not taken: it has sequential, associative")
    assert told["short_convolution of ShortConv"]["blocks"] == "not taken: it chooses for itself"
    assert main(["explain", "griffin", "--evaluator", "fft"]) == 2
    assert "unknown evaluator of griffin" in capsys.readouterr().err


def test_plain_list_looks_at_no_layer(capsys, monkeypatch):
    monkeypatch.setattr(report, "make", None)
    assert main(["list", "--kind", "layers"]) == 0
    assert "gated_deltanet" in capsys.readouterr().out


def test_plain_tables_are_aligned(capsys):
    report.show("t", ("name", "none", "ms"), [("a", "", "1.5"), ("long", "", "20")])
    assert capsys.readouterr().out == "t\nname   ms\na     1.5\nlong   20\n\n"


@pytest.mark.parametrize(
    "name, part, chosen",
    [
        ("lru", "diagonal", "primitive"),
        ("gru", "nonlinear with dense Jacobian", "sequential"),
        ("gated_deltanet", "gated_delta_rule", "chunked"),
        ("gated_delta_rule", "gated_delta_rule", "chunked"),
        ("maxplus", "maxplus", "associative"),
    ],
)
def test_explain_says_what_runs(capsys, name, part, chosen):
    told = printed(capsys, "explain", name, "--platform", "gpu", "--T", "32", "--json")["parts"]
    verdicts = told[part]
    assert [e for e, why in verdicts.items() if why.startswith("chosen")] == [chosen]
    assert len(verdicts) > 1 and all(verdicts.values())


def test_explain_follows_the_length(capsys):
    told = printed(capsys, "explain", "gla", "--T", "4", "--json")["parts"]
    assert told["linear_attention"]["sequential"].startswith("chosen")


def test_explain_names_the_form_for_values_and_the_one_for_derivatives(capsys):
    told = printed(capsys, "explain", "gla", "--platform", "cpu", "--json")["parts"]
    verdicts = told["linear_attention"]
    assert verdicts["sequential"].startswith("chosen: no derivative")
    assert verdicts["chunked"].startswith("chosen for derivatives")


@pytest.mark.parametrize("command", ["explain", "bench", "selfcheck"])
def test_a_typo_is_answered(capsys, command):
    assert main([command, "linear_scam"]) == 2
    assert "did you mean 'linear_scan'" in capsys.readouterr().err


# ---- selfcheck ------------------------------------------------------------------------------


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


# ---- bench ----------------------------------------------------------------------------------


@pytest.mark.share(3)
@pytest.mark.parametrize("name", bench.PEERS)
def test_peers_compute_the_same(name):
    """A peer that computes something else would be no measure."""
    op = ops.OPS[name]
    for spec in op.specs:
        if spec.sizes["T"] >= bench.LONG:
            sizes = {letter: min(size, 5) for letter, size in spec.sizes.items()}
            arrays, options = selfcheck.example(op, replace(spec, sizes=sizes))
            arrays = jax.tree.map(jnp.asarray, arrays)
            expected, _ = getattr(seqjax, name)(**arrays, **options, evaluator="naive")
            found = bench.PEERS[name][1](**arrays, **options)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.share(2)
@pytest.mark.parametrize("name", ops.OPS)
def test_every_op_can_be_timed(name):
    for case in bench.op_cases(name, True):
        for program in case.programs[2:]:
            timed = bench.with_gradients(program)
            jax.eval_shape(timed.function, *timed.inputs)


def test_the_timer():
    x = jnp.ones((64, 64), jnp.float32)
    peer = bench.Program("sum of squares", "peer", lambda x: jnp.sin(x) @ x, (x,))
    ours = replace(peer, name="same", role="ours")
    results = bench.run(bench.Case("tiny", (*bench.floors(x), peer, ours)), repeats=2)
    assert [r.role for r in results] == ["floor", "floor", "peer", "ours"]
    assert all(r.forward.run_ms > 0 and r.forward.compile_s > 0 for r in results)
    assert [r.both is None for r in results] == [True, True, False, False]
    title, columns, rows = bench.table(results)
    assert title == "tiny" and all(len(row) == len(columns) for row in rows)
    faster = results[2].forward.run_ms / results[3].forward.run_ms
    assert float(rows[3][columns.index("fwd faster")].removesuffix(" x")) == pytest.approx(
        faster, rel=0.1
    )


def test_gradients_are_timed_for_all_inputs():
    program = bench.Program(
        "f", "ours", lambda a, b: (a * b["x"], a), (jnp.ones(3), {"x": jnp.ones(3)})
    )
    both = bench.with_gradients(program)
    value, (grad_a, grad_b) = both.function(*both.inputs)
    product, plain = both.inputs[1]
    np.testing.assert_allclose(value, np.sum(product + plain))
    np.testing.assert_allclose(grad_a, product + plain)
    np.testing.assert_allclose(grad_b["x"], product)
