"""Goldens of the diagonal linear scan, answered by every evaluator."""

from seqjax.ops.linear_scan import LINEAR_SCAN, linear_scan


def adapter(evaluator):
    def answer(inputs, meta):
        h, last = linear_scan(
            inputs["a"], inputs["b"], inputs.get("h0"), reverse=meta["reverse"], evaluator=evaluator
        )
        return {"h": h, "h_last": last}

    return answer


EVALUATORS = {name: adapter(name) for name in LINEAR_SCAN.evaluators if name != "sequential"}
ADAPTERS = {"diag_scan_real": EVALUATORS, "diag_scan_complex": EVALUATORS}
