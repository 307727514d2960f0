"""seqjax: recurrences as associative scans. See README.md, or `seqjax list`."""

from seqjax.core.monoid import Monoid, masked, product, resettable
from seqjax.core.newton import newton, parallel_backward
from seqjax.core.pieces import boundaries, packed
from seqjax.core.scan import explain, scan
from seqjax.ops.bounded_delta_rule import bounded_delta_rule
from seqjax.ops.convolution import fft_convolution, short_convolution
from seqjax.ops.delta_rule import delta_rule, gated_delta_product, gated_delta_rule
from seqjax.ops.diagonal_ssm import diagonal_ssm
from seqjax.ops.dplr import dplr
from seqjax.ops.inner_learning import inner_learning
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.linear_scan import linear_scan
from seqjax.ops.log_linear_attention import log_linear_attention
from seqjax.ops.mesa import mesa
from seqjax.ops.slot_attention import slot_attention
from seqjax.ops.softmax_attention import softmax_attention
from seqjax.ops.ssd import selective_scan, ssd
from seqjax.ops.stabilised_attention import stabilised_attention

__version__ = "0.1.0"

__all__ = [
    "Monoid",
    "boundaries",
    "bounded_delta_rule",
    "delta_rule",
    "diagonal_ssm",
    "dplr",
    "explain",
    "fft_convolution",
    "gated_delta_product",
    "gated_delta_rule",
    "inner_learning",
    "linear_attention",
    "linear_scan",
    "log_linear_attention",
    "masked",
    "mesa",
    "newton",
    "packed",
    "parallel_backward",
    "product",
    "resettable",
    "scan",
    "selective_scan",
    "short_convolution",
    "slot_attention",
    "softmax_attention",
    "ssd",
    "stabilised_attention",
]
