"""Operations over time: arrays and a state in, outputs and a state out.

    outputs, final_state = op(..., state, resets=, mask=, evaluator=)

Arrays are [B, T, D] or [B, T, H, D]; the batch axis may be absent. Each op has a naive loop that
defines it and evaluators that compute it; `OPS` is the table of them, and the functions are also
those of `seqjax`. Inside `jax.shard_map`, `axis=` names the mesh axis that time is split over, for
ops with a `span` (`seqjax.core.axis`). Resets and masks of packed sequences are made from
cu_seqlens or segment ids by `seqjax.core.flags`.
"""

from seqjax.ops import (
    bounded_delta_rule,
    convolution,
    delta_rule,
    diagonal_ssm,
    dplr,
    inner_learning,
    linear_attention,
    linear_scan,
    log_linear_attention,
    mesa,
    slot_attention,
    softmax_attention,
    ssd,
    stabilised_attention,
)
from seqjax.ops.op import Choice, Evaluator, Op, Spec

OPS: dict[str, Op] = {
    "linear_scan": linear_scan.LINEAR_SCAN,
    "linear_attention": linear_attention.LINEAR_ATTENTION,
    "gated_delta_rule": delta_rule.DELTA_RULE,
    "dplr": dplr.DPLR,
    "stabilised_attention": stabilised_attention.STABILISED_ATTENTION,
    "log_linear_attention": log_linear_attention.LOG_LINEAR_ATTENTION,
    "bounded_delta_rule": bounded_delta_rule.BOUNDED_DELTA_RULE,
    "mesa": mesa.MESA,
    "inner_learning": inner_learning.INNER_LEARNING,
    "slot_attention": slot_attention.SLOT_ATTENTION,
    "softmax_attention": softmax_attention.SOFTMAX_ATTENTION,
    "diagonal_ssm": diagonal_ssm.DIAGONAL_SSM,
    "selective_scan": ssd.SELECTIVE_SCAN,
    "short_convolution": convolution.CONVOLUTION,
}

__all__ = ["OPS", "Choice", "Evaluator", "Op", "Spec"]
