"""Whether a layer keeps its promises: the laws every row of this library is held to, for your own.

    check_layer(layer)                               all laws, in float64, at a small size
    check_monoid(monoid, elements, state)            the laws of an algebra
    check_jacobian(step, state, x, "diagonal")       a declared structure of dh_t/dh_{t-1}
    check_shapes(layer)                              shapes and dtypes, traced and not run
    distance(a, b)                                   how far two trees of arrays are apart

A law that does not hold raises `LawBroken`, which names the law, the first step it breaks at, and
by how much. Declarations are verified here and nowhere else: a layer with a false `jacobian` has
wrong gradients under "newton" and "parallel_backward", and one with a false `combine` is right on
CPU, where its loop runs, and wrong on accelerators.
"""

from seqjax.testing.check import check_layer
from seqjax.testing.laws import LAWS
from seqjax.testing.promises import (
    LawBroken,
    check_jacobian,
    check_monoid,
    check_shapes,
    distance,
)

__all__ = [
    "LAWS",
    "LawBroken",
    "check_jacobian",
    "check_layer",
    "check_monoid",
    "check_shapes",
    "distance",
]
