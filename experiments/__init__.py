"""Experiments: one file each, its docstring the command, hardware, time and expected number."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from seqjax.core.common import unknown


def words(
    kind: str = "", known: Iterable[str] = (), also: Callable[[str], bool] = lambda word: False
) -> list[str]:
    """The words of the command line of an experiment: names of `known`, and what `also` takes.

    Any other is one line on stderr and exit status 2, before anything runs.
    """
    given, known = sys.argv[1:], list(known)
    for word in given:
        if word not in known and not also(word):
            wrong = unknown(kind, word, known) if known else f"takes no arguments, got {word!r}"
            print(f"{Path(sys.argv[0]).name}: {wrong}", file=sys.stderr)
            sys.exit(2)
    return given
