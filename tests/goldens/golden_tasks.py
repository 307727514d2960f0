"""Adapters of the generators of tasks."""

import jax.numpy as jnp
import numpy as np
from oracle_tasks import solve_list

from seqjax.tasks.synthetic import listops


def words_of(inputs):
    """The binary tree as it is written, without its parentheses."""
    return [str(one).replace("(", " ").replace(")", " ").split() for one in inputs["source"]]


def answered(words, values):
    return dict(value=jnp.asarray(values), length=jnp.array([len(one) for one in words]))


def by_tokens(inputs, meta):
    words = words_of(inputs)
    symbols = [*map(str, range(10)), *listops.OPERATORS, "]"]
    x = np.full((len(words), max(map(len, words))), listops.NOTHING, np.int32)
    for row, one in zip(x, words):
        row[: len(one)] = [symbols.index(word) for word in one]
    return answered(words, listops.value(jnp.asarray(x), 30))


def by_recursion(inputs, meta):
    words = words_of(inputs)
    return answered(words, [solve_list(iter(one)) for one in words])


ADAPTERS = {"listops_values": {"tokens": by_tokens, "oracle": by_recursion}}
