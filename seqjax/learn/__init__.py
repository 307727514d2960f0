"""Ways to learn: pairs of pure functions (init, grad) over cells (`seqjax list --kind learners`).

The table names each with its reference and what it costs; `seqjax.learn.learner` is the interface,
`seqjax.learn.cell` what they train. "Survey" in these files is "State-Space Modeling in Long
Sequence Processing: A Survey on Recurrence in the Transformer Era" (Tiezzi et al.), whose section 6
has most of their equations under one notation.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqjax.core import table
from seqjax.learn import (
    bptt,
    columnar,
    feedback,
    fptt,
    gtf,
    implicit,
    lifted,
    online_lru,
    predictive,
    readout,
    rtrl,
    smt,
    snap,
    truncated,
    uoro,
)
from seqjax.learn.cell import Cell, as_cell, stack
from seqjax.learn.learner import Learner, batched, cross_entropy, follow, squared_error


@dataclass(frozen=True)
class Entry(table.Entry):
    """One row: a way to learn, where it comes from, when it is exact and what a step costs.

    make: called make(cell, loss, params, xs, **options), with the parameters of the cell, of which
        only the shapes count, and inputs like those to come; of a row `apart` as it is declared.
    apart: why `seqjax train --learner` does not take it; "" where it does.

    n units of state, P parameters, T steps of a window, c the cost of a step of the cell,
    s units kept per parameter.
    """

    family: str
    exact: str
    time: str  # per step
    memory: str  # beside the parameters and their gradient
    apart: str = ""


STAGES = "it grows a network of columns (seqjax.learn.columnar)"
SETTLES = "it learns a cell that settles on one input, no stream (seqjax.learn.implicit)"
FEEDS = "it needs to know how outputs are fed back to the cell (seqjax.learn.feedback)"
FORCES = "it draws states to the data, and needs the first of them (seqjax.learn.gtf)"
TEACHES = "it trains a memory on what a teacher makes of windows (seqjax.learn.smt)"
SOLVES = "it solves for a readout of given states (seqjax.learn.readout)"


LEARNERS: dict[str, Entry] = {
    "bptt": Entry(
        bptt.bptt, "Backpropagation through time, with rematerialisation in chunks",
        "Werbos 1990, 1604.06174", "backward", "in its window", "c",
        "T n; L T^(1/(L+1)) n with L levels",
    ),
    "tbptt": Entry(
        bptt.tbptt, "Truncated BPTT(k1, k2), the state carried",
        "Williams & Peng 1990", "backward", "over k2 steps", "c k2 / k1", "k2 n",
    ),
    "rtrl": Entry(
        rtrl.rtrl, "Real-time recurrent learning, dense: online, as a scan, by windows",
        "Williams & Zipser 1989", "forward", "always", "c P", "n P",
    ),
    "rtrl_sparse": Entry(
        rtrl.rtrl_sparse, "RTRL on what is ever not zero: blocks, columns, matrix states",
        "seqjax.learn.influence", "forward", "always", "c + P s^2", "s P",
    ),
    "rtrl_elementwise": Entry(
        rtrl.rtrl_elementwise, "RTRL of element-wise recurrences",
        "2305.19044", "forward", "always", "c + P", "P",
    ),
    "online_lru": Entry(
        online_lru.online_lru, "Traces within each layer, errors backpropagated in space",
        "2305.15947", "forward", "for one recurrent layer, and the topmost of several", "c + P",
        "P",
    ),
    "uoro": Entry(
        uoro.uoro, "Unbiased online recurrent optimisation",
        "1702.05043", "forward", "in the mean", "c", "n + P",
    ),
    "snap": Entry(
        snap.snap, "SnAp-n: what a parameter reaches within n steps",
        "2006.07232", "forward", "where nothing reaches further", "c n + P s^2", "s P",
    ),
    "eprop": Entry(
        snap.eprop, "Eligibility traces; with random feedback RFLO",
        "1901.09049", "forward", "where units do not see each other", "c n + P", "P",
    ),
    "truncated_lstm_1997": Entry(
        truncated.truncated_lstm_1997, "The truncation of 1997: back in time along the cell alone",
        "Hochreiter & Schmidhuber 1997", "forward", "where gates do not see the last output",
        "c + P", "P",
    ),
    "columnar": Entry(
        columnar.columnar, "Columnar networks: RTRL of independent columns",
        "2103.05787", "forward", "always", "c + P", "P",
    ),
    "constructive": Entry(
        columnar.constructive, "Constructive networks: one column learns at a time",
        "2302.05326", "forward", "for the column that learns", "c + P / S", "P / S", STAGES,
    ),
    "ccn": Entry(
        columnar.ccn, "Columnar-constructive networks: one stage of columns learns",
        "2302.05326", "forward", "for the stage that learns", "c + P / S", "P / S", STAGES,
    ),
    "rbp": Entry(
        implicit.rbp, "Recurrent backpropagation by the implicit function theorem",
        "Almeida/Pineda 1987", "implicit", "at a fixed point", "c to settle, n^3", "n^2", SETTLES,
    ),
    "cg_rbp": Entry(
        implicit.cg_rbp, "CG-RBP: conjugate gradient on the normal equations",
        "1803.06396", "implicit", "at a fixed point", "c to settle, 2 c an iteration", "n", SETTLES,
    ),
    "neumann_rbp": Entry(
        implicit.neumann_rbp, "Neumann-RBP: k terms of the series, as TBPTT at the fixed point",
        "1803.06396", "implicit", "as k grows, where the cell contracts", "c to settle, c k", "n",
        SETTLES,
    ),
    "crbp": Entry(
        implicit.crbp, "Contractor RBP: with the Lipschitz coefficient penalty",
        "2005.11362", "implicit", "at a fixed point", "c to settle, n^3", "n^2", SETTLES,
    ),
    "fptt": Entry(
        fptt.fptt, "Forward propagation through time, FPTT-K: a moving regulariser",
        "Kag & Saligrama 2021", "online", "in its window", "c", "K n + 2 P",
    ),
    "predictive_coding": Entry(
        predictive.predictive_coding, "Predictive coding: errors settle by local rules",
        "2006.04182", "local", "in its window, with fixed predictions", "c T", "T n",
    ),
    "lifted_penalty": Entry(
        lifted.lifted_penalty, "States as variables, a quadratic penalty (auxiliary coordinates)",
        "1212.5921", "lifted", "as the penalty grows", "c an iteration", "T n",
    ),
    "lifted_admm": Entry(
        lifted.lifted_admm, "States as variables, with multipliers, by alternating directions",
        "1605.02026", "lifted", "where states meet the constraint", "c an iteration", "T n",
    ),
    "lifted_bcd": Entry(
        lifted.lifted_bcd, "States as variables, one step after the other minimised",
        "1805.01532", "lifted", "as the penalty grows", "c n + n^3 a sweep", "T n",
    ),
    "local_propagation": Entry(
        lifted.local_propagation, "Local propagation: a saddle point of states and multipliers",
        "Marra et al. 2020", "lifted", "at the saddle point", "c an iteration", "T n",
    ),
    "scheduled_sampling": Entry(
        feedback.scheduled_sampling, "Teacher forcing mixed with the model's own words",
        "1506.03099", "feedback", "but for the choice of words", "c", "T n", FEEDS,
    ),
    "professor_forcing": Entry(
        feedback.professor_forcing, "Teacher-forced and free behaviour made alike",
        "1610.09038", "feedback", "in its window", "2 c and the discriminator", "2 T n", FEEDS,
    ),
    "gtf": Entry(
        gtf.gtf, "Generalised teacher forcing: the state drawn to the data, annealed by Jacobians",
        "2306.04406", "feedback", "in its window, of the forced states", "c", "T n", FORCES,
    ),
    "ridge_readout": Entry(
        readout.ridge_readout, "Reservoir readout by ridge; rls and lms learn it online",
        "Jaeger 2001", "readout", "the minimum itself", "n^2", "n^2", SOLVES,
    ),
    "smt": Entry(
        smt.smt, "Supervised memory training: one-step labels from a Transformer",
        "2606.06479", "memory", "no recurrence", "the teacher on a window", "the teacher's",
        TEACHES,
    ),
    "dmt": Entry(
        smt.dmt, "DAgger memory training: the teacher imitated along the student's own path",
        "2606.06479", "memory", "no recurrence", "c and the teacher on every k-th window", "T n",
        TEACHES,
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
