"""Operations over time: arrays and a state in, outputs and a state out.

    outputs, final_state = op(..., initial_state, resets=, mask=, evaluator=)

Arrays are [B, T, D] or [B, T, H, D]; the batch axis may be absent. Each op has a naive loop that
says what it means and evaluators that compute it; `OPS` is the table of them. Resets and masks of
packed sequences are made from cu_seqlens or segment ids by `seqjax.flags`.
"""

from seqjax.ops.convolution import CONVOLUTION, fft_convolution, short_convolution
from seqjax.ops.delta_rule import DELTA_RULE, delta_rule, gated_delta_product, gated_delta_rule
from seqjax.ops.diagonal_ssm import diagonal_ssm
from seqjax.ops.dplr import DPLR, dplr
from seqjax.ops.linear_attention import LINEAR_ATTENTION, linear_attention
from seqjax.ops.linear_scan import LINEAR_SCAN, linear_scan
from seqjax.ops.op import Choice, Evaluator, Op, Spec
from seqjax.ops.ssd import SELECTIVE_SCAN, selective_scan, ssd
from seqjax.ops.stabilised_attention import STABILISED_ATTENTION, stabilised_attention

OPS: dict[str, Op] = {
    "linear_scan": LINEAR_SCAN,
    "linear_attention": LINEAR_ATTENTION,
    "gated_delta_rule": DELTA_RULE,
    "dplr": DPLR,
    "stabilised_attention": STABILISED_ATTENTION,
    "selective_scan": SELECTIVE_SCAN,
    "short_convolution": CONVOLUTION,
}

__all__ = [
    "OPS",
    "Choice",
    "Evaluator",
    "Op",
    "Spec",
    "delta_rule",
    "diagonal_ssm",
    "dplr",
    "fft_convolution",
    "gated_delta_product",
    "gated_delta_rule",
    "linear_attention",
    "linear_scan",
    "selective_scan",
    "short_convolution",
    "ssd",
    "stabilised_attention",
]
