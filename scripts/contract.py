"""The full contract of what changed: every evaluator and variant of the rows touched since BASE.

    python scripts/contract.py [BASE] [pytest options]      BASE: a commit; by default origin/main,
                                                            there the commits of its last day

A layer's file names its rows, an op's or a golden adapter's file all goldens, a file that every
layer stands on one row of each family. `make test` runs the default evaluator of everything, of
half the goldens.

After SECONDS_OF_CONTRACT (by default 900) nothing new is begun, and what was left out
counts as skipped: rows as their papers have them come first, then goldens, those that `make test`
leaves out before the others, then variants. All of it is `make test-all`.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from seqjax.layers import LAYERS

ROOT = Path(__file__).resolve().parent.parent
SHARED = re.compile(r"seqjax/(layers/[^/]+\.py|scan|monoid|primitive|newton|ops/|common)")
GOLDENS = re.compile(r"seqjax/(ops|layers|learn)/|tests/(test_goldens|golden_)")


def git(*words: str) -> str | None:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def changed(base: str | None) -> list[str]:
    """Files that differ from BASE; from the first commit if there is no such commit."""
    head, since = git("rev-parse", "HEAD"), git("merge-base", "HEAD", base or "origin/main")
    if base and since is None:
        raise SystemExit(f"contract: there is no commit {base}")
    if since is None or since == head:
        day = int(git("log", "-1", "--format=%ct") or 0) - 86_400
        since = git("rev-list", "-1", f"--before={day}", "HEAD")
        since = since or git("hash-object", "-t", "tree", "/dev/null")
    return (git("diff", "--name-only", str(since)) or "").splitlines()


def rows(files: list[str]) -> list[str]:
    """The layers that the files say, and one of each family if a file is everyone's."""
    found = []
    for name, entry in LAYERS.items():
        sources = {str(Path(inspect.getfile(c)).relative_to(ROOT))
                   for c in entry.cls.__mro__ if c.__module__.startswith("seqjax.layers.")
                   and c.__module__ != "seqjax.layers.base"}  # fmt: skip
        if sources & set(files):
            found.append(name)
    if any(SHARED.match(file) for file in files):
        families = {entry.family: name for name, entry in LAYERS.items()}
        found += [name for name in families.values() if name not in found]
    return found


def importance(test: str, usual: set[str]) -> int:
    """Rows at their own options 0, goldens 1, those that are `usual` 2, variants 3."""
    if "test_goldens" in test:
        return 2 if test in usual else 1
    return 3 if "-" in test.rpartition("[")[2] else 0


def collected(tests: list[str], **environment: str) -> list[str]:
    """The names of the tests in these files; an error where there are none."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", *tests],
                          cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | environment)  # fmt: skip
    found = [line for line in done.stdout.splitlines() if "::" in line]  # quiet: pyproject.toml
    if not found:
        raise SystemExit(f"contract: no test was collected from {tests}\n{done.stdout[-2000:]}")
    return found


def main() -> int:
    base = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    files = changed(base)
    names = rows(files)
    tests = ["tests/test_layers.py"] if names else []
    if any(GOLDENS.match(file) for file in files):
        tests.append("tests/test_goldens.py")
    if not tests:
        print("no layer, op or learner changed")
        return 0
    wanted = re.compile(rf"test_layers.py::.*\[({'|'.join(names)})(-.*)?\]$|test_goldens.py::")
    chosen = [test for test in collected(tests, SEQJAX_TEST_ALL="1") if wanted.search(test)]
    goldens = "tests/test_goldens.py"
    usual = set(collected([goldens], SEQJAX_TEST_ALL="0")) if goldens in tests else set()
    chosen.sort(key=lambda test: importance(test, usual))
    seconds = float(os.environ.get("SECONDS_OF_CONTRACT", "900"))
    os.environ |= {"SEQJAX_TEST_ALL": "1", "SEQJAX_TEST_UNTIL": str(time.time() + seconds)}
    print(f"the full contract of {', '.join(names) or 'no layer'}: {len(chosen)} tests")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(chosen))
        listed.flush()
        options = sys.argv[2:] if base else sys.argv[1:]
        command = [sys.executable, "-m", "pytest", *options, f"@{listed.name}"]
        return subprocess.call(command, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
