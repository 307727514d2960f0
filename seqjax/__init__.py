"""seqjax: recurrences as associative scans. See README.md, or `seqjax list`.

    layer = seqjax.make("gla", 16, rngs=nnx.Rngs(0))    a layer by name
    seqjax.check(layer)                                 hold it to every law
    seqjax.linear_scan(a, b)                            an op
    seqjax.train.train(config, "runs/mine")             a run

A name is imported when it is first used: the command line answers `--help` without jax. Packages
are names, too; so that none is hidden, no function has the name of a package.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqjax import layers as layers, ops as ops, tasks as tasks, train as train
    from seqjax.answers.ctc import (
        ctc_beam_search as ctc_beam_search,
        ctc_best_path as ctc_best_path,
        ctc_loss as ctc_loss,
    )
    from seqjax.core.axis import combine as combine, replay as replay, summarise as summarise
    from seqjax.core.monoid import (
        Monoid as Monoid,
        masked as masked,
        product as product,
        resettable as resettable,
    )
    from seqjax.core.newton import newton as newton, parallel_backward as parallel_backward
    from seqjax.core.pieces import boundaries as boundaries, packed as packed
    from seqjax.core.scan import explain as explain, scan as scan
    from seqjax.ops.bounded_delta_rule import bounded_delta_rule as bounded_delta_rule
    from seqjax.ops.convolution import (
        fft_convolution as fft_convolution,
        short_convolution as short_convolution,
    )
    from seqjax.ops.delta_rule import (
        delta_rule as delta_rule,
        gated_delta_product as gated_delta_product,
        gated_delta_rule as gated_delta_rule,
    )
    from seqjax.ops.diagonal_ssm import diagonal_ssm as diagonal_ssm
    from seqjax.ops.dplr import dplr as dplr
    from seqjax.ops.inner_learning import inner_learning as inner_learning
    from seqjax.ops.linear_attention import linear_attention as linear_attention
    from seqjax.ops.linear_scan import linear_scan as linear_scan
    from seqjax.ops.log_linear_attention import log_linear_attention as log_linear_attention
    from seqjax.ops.mesa import mesa as mesa
    from seqjax.ops.slot_attention import slot_attention as slot_attention
    from seqjax.ops.softmax_attention import softmax_attention as softmax_attention
    from seqjax.ops.ssd import selective_scan as selective_scan, ssd as ssd
    from seqjax.ops.stabilised_attention import stabilised_attention as stabilised_attention
    from seqjax.testing.check import check_layer as check  # noqa: F401
    from seqjax.zoo import make as make

__version__ = "0.1.0"

HOMES = {  # the same as above, for those who run it: name -> its module, and its name there
    "Monoid": "core.monoid",
    "boundaries": "core.pieces",
    "bounded_delta_rule": "ops.bounded_delta_rule",
    "check": "testing.check:check_layer",
    "combine": "core.axis",
    "ctc_beam_search": "answers.ctc",
    "ctc_best_path": "answers.ctc",
    "ctc_loss": "answers.ctc",
    "delta_rule": "ops.delta_rule",
    "diagonal_ssm": "ops.diagonal_ssm",
    "dplr": "ops.dplr",
    "explain": "core.scan",
    "fft_convolution": "ops.convolution",
    "gated_delta_product": "ops.delta_rule",
    "gated_delta_rule": "ops.delta_rule",
    "inner_learning": "ops.inner_learning",
    "linear_attention": "ops.linear_attention",
    "linear_scan": "ops.linear_scan",
    "log_linear_attention": "ops.log_linear_attention",
    "make": "zoo",
    "masked": "core.monoid",
    "mesa": "ops.mesa",
    "newton": "core.newton",
    "packed": "core.pieces",
    "parallel_backward": "core.newton",
    "product": "core.monoid",
    "replay": "core.axis",
    "resettable": "core.monoid",
    "scan": "core.scan",
    "selective_scan": "ops.ssd",
    "short_convolution": "ops.convolution",
    "slot_attention": "ops.slot_attention",
    "softmax_attention": "ops.softmax_attention",
    "ssd": "ops.ssd",
    "stabilised_attention": "ops.stabilised_attention",
    "summarise": "core.axis",
}
__all__ = [*HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in HOMES:
        module, _, there = HOMES[name].partition(":")
        value = getattr(import_module(f"seqjax.{module}"), there or name)
    elif not name.startswith("_") and find_spec(f"seqjax.{name}"):
        value = import_module(f"seqjax.{name}")
    else:
        raise AttributeError(f"module 'seqjax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES, "layers", "ops", "tasks", "train"})
