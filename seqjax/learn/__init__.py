"""Ways to learn: pairs of pure functions (init, grad) over cells (`seqjax list --kind learners`).

The table names each with its reference and what it costs; `seqjax.learn.learner` is the interface,
`seqjax.learn.cell` what they train. "Survey" in these files is "State-Space Modeling in Long
Sequence Processing: A Survey on Recurrence in the Transformer Era" (Tiezzi et al.), whose section 6
has most of their equations under one notation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seqjax.learn import (
    bptt,
    columnar,
    feedback,
    fptt,
    implicit,
    online_lru,
    readout,
    rtrl,
    smt,
    snap,
    uoro,
)
from seqjax.learn.cell import Cell, as_cell, stack
from seqjax.learn.learner import Learner, batched, cross_entropy, follow, squared_error


@dataclass(frozen=True)
class Entry:
    """One row: a way to learn, where it comes from, when it is exact and what a step costs.

    n units of state, P parameters, T steps of a window, c the cost of a step of the cell,
    s units kept per parameter.
    """

    make: Callable[..., Any]
    family: str
    title: str
    reference: str
    exact: str
    time: str  # per step
    memory: str  # beside the parameters and their gradient


LEARNERS: dict[str, Entry] = {
    "bptt": Entry(
        bptt.bptt, "backward", "Backpropagation through time, with rematerialisation in chunks",
        "Werbos 1990, 1604.06174", "in its window", "c", "T n; L T^(1/(L+1)) n with L levels",
    ),
    "tbptt": Entry(
        bptt.tbptt, "backward", "Truncated BPTT(k1, k2), the state carried",
        "Williams & Peng 1990", "over k2 steps", "c k2 / k1", "k2 n",
    ),
    "rtrl": Entry(
        rtrl.rtrl, "forward", "Real-time recurrent learning, dense: online, as a scan, by windows",
        "Williams & Zipser 1989", "always", "c P", "n P",
    ),
    "rtrl_sparse": Entry(
        rtrl.rtrl_sparse,
        "forward", "RTRL on what is ever not zero: blocks, columns, matrix states",
        "seqjax.learn.influence", "always", "c + P s^2", "s P",
    ),
    "rtrl_elementwise": Entry(
        rtrl.rtrl_elementwise, "forward", "RTRL of element-wise recurrences",
        "2305.19044", "always", "c + P", "P",
    ),
    "online_lru": Entry(
        online_lru.online_lru,
        "forward", "Traces within each layer, errors backpropagated in space",
        "2305.15947", "for one recurrent layer, and the topmost of several", "c + P", "P",
    ),
    "uoro": Entry(
        uoro.uoro, "forward", "Unbiased online recurrent optimisation",
        "1702.05043", "in the mean", "c", "n + P",
    ),
    "snap": Entry(
        snap.snap, "forward", "SnAp-n: what a parameter reaches within n steps",
        "2006.07232", "where nothing reaches further", "c n + P s^2", "s P",
    ),
    "eprop": Entry(
        snap.eprop, "forward", "Eligibility traces; with random feedback RFLO",
        "1901.09049", "where units do not see each other", "c n + P", "P",
    ),
    "columnar": Entry(
        columnar.columnar, "forward", "Columnar networks: RTRL of independent columns",
        "2103.05787", "always", "c + P", "P",
    ),
    "constructive": Entry(
        columnar.constructive, "forward", "Constructive networks: one column learns at a time",
        "2302.05326", "for the column that learns", "c + P / S", "P / S",
    ),
    "ccn": Entry(
        columnar.ccn, "forward", "Columnar-constructive networks: one stage of columns learns",
        "2302.05326", "for the stage that learns", "c + P / S", "P / S",
    ),
    "rbp": Entry(
        implicit.rbp, "implicit", "Recurrent backpropagation by the implicit function theorem",
        "Almeida/Pineda 1987", "at a fixed point", "c to settle, n^3", "n^2",
    ),
    "cg_rbp": Entry(
        implicit.cg_rbp, "implicit", "CG-RBP: conjugate gradient on the normal equations",
        "1803.06396", "at a fixed point", "c to settle, 2 c an iteration", "n",
    ),
    "neumann_rbp": Entry(
        implicit.neumann_rbp,
        "implicit", "Neumann-RBP: k terms of the series, as TBPTT at the fixed point",
        "1803.06396", "as k grows, where the cell contracts", "c to settle, c k", "n",
    ),
    "crbp": Entry(
        implicit.crbp, "implicit", "Contractor RBP: with the Lipschitz coefficient penalty",
        "2005.11362", "at a fixed point", "c to settle, n^3", "n^2",
    ),
    "fptt": Entry(
        fptt.fptt, "online", "Forward propagation through time, FPTT-K: a moving regulariser",
        "Kag & Saligrama 2021", "in its window", "c", "K n + 2 P",
    ),
    "scheduled_sampling": Entry(
        feedback.scheduled_sampling, "feedback", "Teacher forcing mixed with the model's own words",
        "1506.03099", "but for the choice of words", "c", "T n",
    ),
    "professor_forcing": Entry(
        feedback.professor_forcing, "feedback", "Teacher-forced and free behaviour made alike",
        "1610.09038", "in its window", "2 c and the discriminator", "2 T n",
    ),
    "ridge_readout": Entry(
        readout.ridge_readout, "readout", "Reservoir readout by ridge; rls and lms learn it online",
        "Jaeger 2001", "the minimum itself", "n^2", "n^2",
    ),
    "smt": Entry(
        smt.smt, "memory", "Supervised memory training: one-step labels from a Transformer",
        "2606.06479", "no recurrence", "the teacher on a window", "the teacher's",
    ),
    "dmt": Entry(
        smt.dmt,
        "memory", "DAgger memory training: the teacher imitated along the student's own path",
        "2606.06479", "no recurrence", "c and the teacher on every k-th window", "T n",
    ),
}  # fmt: skip

__all__ = [
    "LEARNERS",
    "Cell",
    "Entry",
    "Learner",
    "as_cell",
    "batched",
    "cross_entropy",
    "follow",
    "squared_error",
    "stack",
]
