"""Questions of theory, asked of any layer of the tables: numbers, bounds and curves.

    from seqjax.theory import gradient_flow
    gradient_flow.measure(layer, x).log_norm         # log |d h_T / d h_t|, differentiable

Each module has its theorem or paper, functions of layers and arrays that are differentiable where
that has a meaning, and the question of its name, whose options `seqjax theory NAME` has.
"""

from seqjax.core.table import Entry
from seqjax.theory import (
    associativity,
    curse_of_memory,
    expressivity,
    gradient_flow,
    identities,
    landscapes,
    memory_capacity,
    resnet_rnn_equivalence,
    scaling,
    scyfi,
    signatures,
    universal_approximation,
)
from seqjax.theory.finding import Finding, draw

THEORY: dict[str, Entry] = {
    "associativity": Entry(
        associativity.associativity,
        "Steps that compose and steps that do not: counterexamples, and numbers of a composition",
        "Blelloch 1990, 2410.01201",
    ),
    "curse_of_memory": Entry(
        curse_of_memory.curse_of_memory,
        "How far a parameter moves a state that remembers long, in powers of 1 - |lambda|",
        "2405.21064",
    ),
    "expressivity": Entry(
        expressivity.expressivity,
        "Parity, sums and words of groups: by weights that are given, and learned",
        "2411.12537, 2404.08819, 1805.04908",
    ),
    "gradient_flow": Entry(
        gradient_flow.gradient_flow,
        "Jacobian products along time, vanishing and exploding, and bounds without products",
        "Bengio et al. 1994, 1607.03474",
    ),
    "identities": Entry(
        identities.identities,
        "Recurrences of different names that are one and the same, each computed on both sides",
        "2405.13956, 2407.04620",
    ),
    "landscapes": Entry(
        landscapes.landscapes,
        "Hessian spectra, gradients through a training run, tangent kernels",
        "1901.10159, 1712.09913, 1502.03492, 1806.07572",
    ),
    "memory_capacity": Entry(
        memory_capacity.memory_capacity,
        "Linear and nonlinear capacity of a state, and its largest Lyapunov exponent",
        "Jaeger 2002, Dambre et al. 2012, 2307.14823",
    ),
    "resnet_rnn_equivalence": Entry(
        resnet_rnn_equivalence.resnet_rnn_equivalence,
        "Networks of layers that share weights are recurrences, in value and in gradient",
        "1604.03640",
    ),
    "scaling": Entry(
        scaling.scaling,
        "Loss by parameters, tokens, work and its depth: a law with bands",
        "2203.15556, 2606.06479",
    ),
    "scyfi": Entry(
        scyfi.scyfi,
        "Fixed points and cycles of piecewise-linear recurrences, and where they come and go",
        "2310.17561",
    ),
    "signatures": Entry(
        signatures.signatures,
        "States of selective recurrences as linear functions of iterated integrals of their inputs",
        "2402.19047",
    ),
    "universal_approximation": Entry(
        universal_approximation.universal_approximation,
        "How many inputs are read back from a state, and condition by the phases of eigenvalues",
        "2307.11888",
    ),
}

__all__ = [
    "THEORY",
    "Finding",
    "associativity",
    "curse_of_memory",
    "draw",
    "expressivity",
    "gradient_flow",
    "identities",
    "landscapes",
    "memory_capacity",
    "resnet_rnn_equivalence",
    "scaling",
    "scyfi",
    "signatures",
    "universal_approximation",
]
