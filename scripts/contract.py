"""The full contract of what changed: all that `make test` leaves out of it.

    python scripts/contract.py [BASE] [pytest options]      BASE: a commit; by default origin/main,
                                                            there the commits of its last day

A layer's file names its rows, an op's or a golden adapter's file all goldens, a file that every
layer stands on one row of each family, any module the tests that import it. `make test` runs a
share of each (the marks `share` and `thorough`), however many rows there are.

After SECONDS_OF_CONTRACT (by default 900) nothing new is begun, and what was left out
counts as skipped: rows as their papers have them come first, then goldens, those that `make test`
leaves out before the others, then variants, then other tests. All of it is `make test-all`.
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

import pytest

from seqjax.zoo import LAYERS, family

ROOT = Path(__file__).resolve().parent.parent
SHARED = re.compile(r"seqjax/(core|ops|nn)/")
LAYERS_TEST, GOLDENS_TEST = "tests/test_layers.py", "tests/test_goldens.py"
GOLDENS = re.compile(r"seqjax/(core|ops|nn|layers|learn)/|tests/(test_goldens|goldens/)")


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
        own = (c for c in entry.make.__mro__ if c.__module__.startswith("seqjax.layers."))
        sources = {str(Path(inspect.getfile(c)).relative_to(ROOT)) for c in own}
        if sources & set(files):
            found.append(name)
    if any(SHARED.match(file) for file in files):
        families = {family(name): name for name in LAYERS}
        found += [name for name in families.values() if name not in found]
    return found


def importers(files: list[str]) -> list[str]:
    """The test files that changed, or import a module of seqjax that did."""
    modules = [file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
               for file in files if file.startswith("seqjax/")]  # fmt: skip
    found = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        imported = re.findall(
            r"^(?:from|import) (seqjax\S*)(?: import \(?(.*))?", path.read_text(), re.M
        )
        names = {module for module, _ in imported}
        names |= {f"{m}.{name}" for m, listed in imported for name in re.findall(r"\w+", listed)}
        if names & set(modules) or f"tests/{path.name}" in files:
            found.append(f"tests/{path.name}")
    return [file for file in found if file not in (LAYERS_TEST, GOLDENS_TEST)]


def importance(test: str, usual: set[str]) -> int:
    """Rows at their own options 0, goldens 1, those that are `usual` 2, variants 3, the rest 4."""
    if test.startswith(GOLDENS_TEST):
        return 2 if test in usual else 1
    if not test.startswith(LAYERS_TEST):
        return 4
    return 3 if "-" in test.rpartition("[")[2] else 0


def collected(tests: list[str], **environment: str) -> list[str]:
    """The names of the tests in these files, of which there may be none."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", *tests],
                          cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | environment)  # fmt: skip
    if done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"contract: {tests} cannot be collected\n{done.stdout[-2000:]}")
    return [line for line in done.stdout.splitlines() if "::" in line]  # quiet: pyproject.toml


def main() -> int:
    base = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    files = changed(base)
    names = rows(files)
    tests = [LAYERS_TEST] if names else []
    if any(GOLDENS.match(file) for file in files):
        tests.append(GOLDENS_TEST)
    others = importers(files)
    if not tests + others:
        print("nothing that is tested changed")
        return 0
    usual = set(collected(tests + others, SEQJAX_TEST_ALL="0"))
    wanted = re.compile(rf"{LAYERS_TEST}::.*\[({'|'.join(names)})(-.*)?\]$|{GOLDENS_TEST}::")
    chosen = [
        test
        for test in collected(tests + others, SEQJAX_TEST_ALL="1")
        if wanted.search(test) or (test not in usual and not test.startswith(tuple(tests)))
    ]
    if not chosen:
        print("`make test` leaves out nothing of what changed")
        return 0
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
