"""Arrays by their axes, in the signatures of what is public: `Float[Array, "*B T H K"]`.

    B   batch; it may be absent        H   heads: J of queries, L of keys, O of outputs, G groups
    T   time                           K   channels of a key
    D   channels                       V   channels of a value
    N   size of a state                W   window, or taps of a kernel, of which P are kept

A letter is one size in all of a call; a few that one function alone has are in its docstring.
Nothing is checked when a program runs: tests do (tests/test_types.py), and what is public raises
errors of its own.
"""

from jax import Array
from jaxtyping import Bool, Float, Inexact, Int

Flags = Bool[Array, "*B T"]

__all__ = ["Array", "Bool", "Flags", "Float", "Inexact", "Int"]
