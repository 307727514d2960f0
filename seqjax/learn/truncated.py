"""The truncation of 1997: errors go back in time along the cells' carousel, and no other way.

Hochreiter & Schmidhuber 1997, appendix A.1. An error that arrives at the net input of
a gate or of a cell (through U h_{t-1}) changes the weights there and goes no further back:

    dh_t / dh_{t-1} ~ 0        dc_t / dc_{t-1} = 1 of `lstm_1997`, the forget gate of `lstm`

So a weight of an input gate, a forget gate or a cell input moves one cell, and what it moves is one
number, carried forward; one of an output gate has no past (f_t = 1 in 1997):

    S_t(w) = f_t S_{t-1}(w) + dc_t/dw,  h_{t-1} and c_{t-1} constants      dc/dw of a cell
    dL/dw  = sum_t dl_t/dh_t (dh_t/dc_t S_t(w) + dh_t/dw)

It is `rtrl_sparse` of the cell that is cut so: online, and exact for what is left of the gradient,
whatever the windows. Left as they are: peepholes, by which c_{t-1} reaches the gates (there were
none in 1997), and the way up from one layer to the next. Where U is zero nothing is cut.

P parameters: time O(cost(step) + P), memory O(P) for one layer.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.learner import Learner, Loss
from seqjax.learn.rtrl import rtrl_sparse


def truncated_lstm_1997(
    cell: Cell, loss: Loss, params: Params, xs: Any, *, carousel: str = "c"
) -> Learner:
    """The truncated gradient of a cell whose state has a field named `carousel`.

    Raises ValueError for a state that has none.
    """

    def goes_on(path: Any) -> bool:
        return any(getattr(key, "name", None) == carousel for key in path)

    shapes = jax.tree_util.tree_flatten_with_path(jax.eval_shape(cell.start, params))[0]
    if not any(goes_on(path) for path, _ in shapes):
        raise ValueError(
            f"truncated_lstm_1997 needs a state with a field {carousel!r}, along which errors go "
            "back: that of lstm_1997, lstm and their kin"
        )

    def cut(h: State) -> State:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if goes_on(path) else lax.stop_gradient(leaf), h
        )

    def readout(params: Params, h: State, x: Any) -> Any:
        return cell.readout(params, cut(h) if cell.late else h, x)

    short = cell._replace(
        step=lambda params, h, x: cell.step(params, cut(h), x), readout=readout, parts=()
    )
    return rtrl_sparse(short, loss, params, xs)
