"""`seqjax explain`: rows declare the ops that they run, and verdicts are what happens."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seqjax.nn.base import evaluators_of
from seqjax.ops.op import Op
from seqjax.tools import explain
from seqjax.tools.cli import main
from seqjax.zoo import LAYERS, make

scanning = sys.modules["seqjax.core.scan"]  # as an attribute of seqjax it is the function


def printed(capsys, *argv):
    assert main(list(argv)) == 0
    return json.loads(capsys.readouterr().out)


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

    def noted_choice(structure, platform):
        chosen.append(structure)
        return choose(structure, platform)

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
            nnx.eval_shape(lambda options=options: make(name, explain.FEATURES, **options)),
        )


@pytest.mark.share(5)
@pytest.mark.parametrize("name", LAYERS)
def test_every_row_declares_the_ops_that_it_runs(name):
    """All that it meets by itself and by the evaluators of an op; its own, such as Newton's method
    or a Fourier transform, are another way to compute."""
    for options, layer in shapes_of_rows(name):
        declared = {part for part in explain.parts_of(layer) if "nonlinear" not in part}
        found = met(layer, None)[0]
        known = {one for part in declared for one in evaluators_of(part)}
        for evaluator in filter(known.__contains__, layer.evaluators):
            if found != declared:
                found |= met(layer, evaluator)[0]
        assert found == declared, f"{name} {options}"


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", LAYERS)
def test_explain_names_the_parts_that_take_an_evaluator_and_every_one_is_taken(name):
    """By an op or a monoid that the layer declares, or else it is a program of the layer's own."""
    for options, layer in shapes_of_rows(name):
        if options.get("placement") == "context":
            continue  # Titans in context runs "naive" for "sequential", and chooses for "chunked"
        parts = [p for p in explain.each_part(layer, {}) if p.takes and "nonlinear" not in p.name]
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
