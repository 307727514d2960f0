"""Solvers of the tasks: from x alone, what the published definition asks for."""

import re
from functools import partial
from itertools import permutations

import numpy as np

from seqjax.tasks import TASKS


def solve_adding(x):
    return np.array([[sum(u for u, marked in row if marked)] for row in x], np.float32)


def solve_copy(x):
    blank, delimiter = x.max() - 1, x.max()
    answer = np.full_like(x, blank)
    for row, out in zip(x, answer, strict=True):
        after = len(row) - 1 - list(row).index(delimiter)
        out[-after:] = row[:after]
    return answer


def solve_selective_copy(x):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        data = [token for token in row if 0 < token < x.max()]
        out[row == x.max()] = data
    return answer


def solve_induction_heads(x):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        out[-1] = row[list(row).index(row[-1]) + 1]
    return answer


def solve_needle(x):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        out[-1] = row[list(row).index(0) + 1] - 1
    return answer


def solve_associative_recall(x, keys):
    pairs = [dict(zip(row[:-3:2], row[1:-3:2], strict=True)) for row in x]
    return np.array([known[row[-1]] - keys for known, row in zip(pairs, x, strict=True)])


def solve_recalled(x, keys):
    """Every letter that was there before is answered with its digit; nothing else counts."""
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        known = {}
        for t in range(0, len(row), 2):
            out[t] = known.get(row[t], 0)
            if t + 1 < len(row):
                assert known.setdefault(row[t], row[t + 1] - keys) == row[t + 1] - keys
    return answer


def solve_induction(x):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        first, *others = np.flatnonzero(row == x.max())
        out[others] = row[first + 1]
    return answer


def solve_mqar(x, pairs):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        known = dict(zip(row[: 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        for t in range(2 * pairs, len(row), 2):  # a filling may look like a query: not asked
            out[t] = known.get(row[t], 0)
    return answer


def solve_residues(x, modulus):
    return np.cumsum(x, axis=1) % modulus


def solve_permutations(x, n, even):
    """Move n objects about by hand, with no composition table."""
    elements = [p for p in permutations(range(n)) if not even or round(det(p)) == 1]
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        state = tuple(range(n))
        for t, token in enumerate(row):
            state = tuple(elements[token][place] for place in state)
            out[t] = elements.index(state)
    return answer


def det(p):
    return np.linalg.det(np.eye(len(p))[list(p)])


def permuted(n, even=False):
    return partial(solve_permutations, n=n, even=even)


def solve_lstm_2b(x):
    return (x[:, 0, 0] > 0).astype(np.int32)


def solve_phonebook(x, digits):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        asked = row[list(row).index(10) + 1]
        place = list(row).index(asked)
        out[-digits:] = row[place + 1 : place + 1 + digits]
    return answer


def solve_string_copy(x):
    answer = np.zeros_like(x)
    mark = x.max() - 2
    for row, out in zip(x, answer, strict=True):
        n = list(row).index(mark) - 1
        out[n + 1 : 2 * n + 2] = [*row[1 : n + 1], mark]
    return answer


def solve_reverse(x, vocabulary):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        n = list(row).index(vocabulary)
        out[n : 2 * n] = row[:n][::-1]
    return answer


def solve_composition(x, size):
    answer = []
    for row in x:
        value = row[-1]
        for start in range(0, len(row) - 1, 2 * size + 1):
            listed = row[start + 1 : start + 1 + 2 * size]
            value = dict(zip(listed[::2], listed[1::2], strict=True))[value]
        answer.append(value)
    return np.array(answer)


def solve_majority(x):
    return np.array([[2 * sum(row[: t + 1]) > t + 1 for t in range(len(row))] for row in x], int)


TOMITA = {
    1: lambda s: re.fullmatch("1*", s),
    2: lambda s: re.fullmatch("(10)*", s),
    3: lambda s: not re.search("(?<!1)1(11)*0(00)*(?!0)", s),
    4: lambda s: "000" not in s,
    5: lambda s: s.count("0") % 2 == s.count("1") % 2 == 0,
    6: lambda s: (s.count("0") - s.count("1")) % 3 == 0,
    7: lambda s: re.fullmatch("0*1*0*1*", s),
}


def solve_tomita(x, n):
    strings = ["".join(map(str, row)) for row in x]
    return np.array(
        [[bool(TOMITA[n](s[: t + 1])) for t in range(len(s))] for s in strings], np.int32
    )


def solve_navigation(x, places):
    return np.cumsum(np.array([0, 1, -1])[x], axis=1) % places


def solve_partial_arithmetic(x, modulus):
    """Of what stands since the innermost bracket that is open, where that is an expression."""
    symbols, answer = [*map(str, range(modulus)), *"+-*()"], np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        words, since = [symbols[token] for token in row], [0]
        for t, word in enumerate(words):
            since += [t + 1] if word == "(" else []
            since = since[:-1] if word == ")" else since
            if word not in "+-*(":
                out[t] = eval(" ".join(words[since[-1] : t + 1])) % modulus
    return answer


def solve_dyck(x, kinds):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        opened = []
        for t, token in enumerate(row):
            if token < kinds:
                opened.append(token)
            else:
                assert opened.pop() == token - kinds
            out[t] = opened[-1] + 1 if opened else 0
    return answer


def solve_counting(x, letters):
    """By looking at all words that go on from a prefix."""
    names, steps = "abcdefgh"[:letters], x.shape[1]
    words = ["".join(c * n for c in names) + "." for n in range(1, steps + 1)]
    following = {}  # prefix -> what may come next
    for word in words:
        for t in range(1, len(word)):
            following.setdefault(word[:t], set()).add(word[t])
    classes = [{"a", "b"}, *({c} for c in names[1:]), {"."}]
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        n = next((t for t in range(1, steps) if row[t]), steps // letters)  # the first b
        for t in range(letters * n):
            out[t] = classes.index(following["".join(names[i] for i in row[: t + 1])])
    return answer


def solve_arithmetic(x, modulus):
    """The interpreter's own rules."""
    symbols = [*map(str, range(modulus)), *"+-*()"]
    expressions = (" ".join(symbols[token] for token in row) for row in x)
    return np.array([eval(expression) % modulus for expression in expressions])


def solve_list(words):
    """The value of [MIN 1 [MAX 2 3 ] ], by recursion over an iterator of its words."""
    word = next(words)
    if not word.startswith("["):
        return word if word == "]" else int(word)
    found = list(iter(partial(solve_list, words), "]"))
    middle = int(np.median(found))
    return {"[MIN": min(found), "[MAX": max(found), "[MED": middle, "[SM": sum(found) % 10}[word]


def solve_listops(x):
    symbols = [*map(str, range(10)), "[MIN", "[MAX", "[MED", "[SM", "]"]
    return np.array([solve_list(iter([symbols[token] for token in row])) for row in x])


CASES = {  # id: task, length, options, solver; the published forms
    "adding": ("adding", 50, {}, solve_adding),
    "copy": ("copy", 30, {}, solve_copy),
    "selective_copy": ("selective_copy", 56, {}, solve_selective_copy),
    "induction_heads": ("induction_heads", 16, {}, solve_induction_heads),
    "associative_recall": (
        "associative_recall",
        23,
        {},
        partial(solve_associative_recall, keys=26),
    ),
    "induction_heads-every": (
        *("induction_heads", 40, dict(vocabulary=6, every=True)),
        solve_induction,
    ),
    "associative_recall-every": (
        *("associative_recall", 31, dict(keys=6, every=True)),
        partial(solve_recalled, keys=6),
    ),
    "needle": ("needle", 20, {}, solve_needle),
    "needle-far": ("needle", 20, dict(distance=18), solve_needle),
    "mqar": ("mqar", 48, dict(pairs=4, vocabulary=64), partial(solve_mqar, pairs=4)),
    "mqar-uniform": (
        *("mqar", 12, dict(pairs=3, vocabulary=9, power=1.0, random_filling=False)),
        partial(solve_mqar, pairs=3),
    ),
    "parity": ("state_tracking", 40, dict(group="parity"), partial(solve_residues, modulus=2)),
    "modular_addition": (
        *("state_tracking", 40, dict(group="modular_addition", modulus=7)),
        partial(solve_residues, modulus=7),
    ),
    "A5": ("state_tracking", 12, dict(group="A5"), permuted(5, even=True)),
    "S5": ("state_tracking", 12, dict(group="S5"), permuted(5)),
    **{
        f"tomita{n}": ("state_tracking", 13, dict(group=f"tomita{n}"), partial(solve_tomita, n=n))
        for n in TOMITA
    },
    "cycle_navigation": (
        *("state_tracking", 20, dict(group="cycle_navigation", modulus=6)),
        partial(solve_navigation, places=6),
    ),
    "dyck": ("dyck", 24, dict(kinds=3, depth=4), partial(solve_dyck, kinds=3)),
    "dyck-1": ("dyck", 24, dict(kinds=1, depth=24), partial(solve_dyck, kinds=1)),
    "counting": ("counting", 17, {}, partial(solve_counting, letters=2)),
    "counting-3": ("counting", 17, dict(letters=3), partial(solve_counting, letters=3)),
    "brackets": ("modular_arithmetic", 24, {}, partial(solve_arithmetic, modulus=5)),
    "brackets-every": (
        *("modular_arithmetic", 24, dict(every=True)),
        partial(solve_partial_arithmetic, modulus=5),
    ),
    "no_brackets": (
        *("modular_arithmetic", 15, dict(brackets=False, modulus=3)),
        partial(solve_arithmetic, modulus=3),
    ),
    "listops": ("listops", 30, dict(shortest=6, depth=4, arguments=5), solve_listops),
    "lstm_2b": ("lstm_2b", 20, {}, solve_lstm_2b),
    "phonebook": ("phonebook", 32, dict(names=9), partial(solve_phonebook, digits=7)),
    "string_copy": ("string_copy", 15, {}, solve_string_copy),
    "reverse": (
        *("reverse", 13, dict(vocabulary=9, paired=False)),
        partial(solve_reverse, vocabulary=9),
    ),
    "composition": ("composition", 19, dict(size=4), partial(solve_composition, size=4)),
    "majority": ("majority", 17, {}, solve_majority),
}
SHORT = {
    "adding": solve_adding,
    "copy": solve_copy,
    "selective_copy": solve_selective_copy,
    "induction_heads": solve_induction_heads,
    "associative_recall": partial(solve_associative_recall, keys=5),
    "mqar": partial(solve_mqar, pairs=2),
    "state_tracking": permuted(3),
}
CASES |= {f"{n}-short": (n, TASKS[n].length, TASKS[n].smoke, SHORT[n]) for n in SHORT}
