"""Goldens of the fast-weight family: delta rules, learners inside the layer.

An adapter puts the reference's weights and inputs under our names; the numbers come from the layer,
or from the function that the layer calls.
"""

from functools import partial

from seqjax.layers.fast_weights.comba import closed_loop_delta_rule
from seqjax.layers.fast_weights.gdn2 import decoupled_delta_rule
from seqjax.ops import OPS


def by_evaluator(adapter, *evaluators):
    return {name: partial(adapter, evaluator=name) for name in evaluators}


def op_scale(x, meta):
    return meta.get("scale", x["k"].shape[-1] ** -0.5)


def comba(x, meta, *, evaluator):
    o, S = closed_loop_delta_rule(
        *(x[name] for name in ("q", "k", "v", "p", "beta", "g")),
        x.get("S0"),
        scale=op_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


def gdn2(x, meta, *, evaluator):
    o, S = decoupled_delta_rule(
        *(x[name] for name in ("q", "k", "v", "b", "w", "g")),
        x.get("S0"),
        scale=op_scale(x, meta),
        evaluator=evaluator,
    )
    return {"o": o, "S": S}


ADAPTERS = {
    "comba": by_evaluator(comba, *OPS["dplr"].evaluators),
    "gdn2": by_evaluator(gdn2, *OPS["dplr"].evaluators),
}
