"""Execute every notebook, and keep the pairs (.py, .ipynb) in step.

python scripts/run_notebooks.py             execute all at smoke size; exit 1 if one fails or
                                            is out of step with its pair
python scripts/run_notebooks.py --full      the same at full size
python scripts/run_notebooks.py --sync      write the .ipynb files from the .py files
python scripts/run_notebooks.py --save DIR  also save the executed notebooks there
"""

import argparse
import os
import sys
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from seqjax.core.files import write_atomically

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


def paired(source: Path) -> str:
    """The stripped .ipynb that belongs to a .py, with cell ids that do not change."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return jupytext.writes(notebook, fmt="ipynb") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sync", action="store_true", help="write the .ipynb files and stop")
    parser.add_argument("--full", action="store_true", help="full size, not smoke size")
    parser.add_argument("--save", type=Path, help="folder for the executed notebooks")
    args = parser.parse_args()
    os.environ["SEQJAX_SMOKE"] = "0" if args.full else "1"
    failed = []
    for source in sorted(FOLDER.glob("*.py")):
        pair = source.with_suffix(".ipynb")
        if args.sync:
            write_atomically(pair, paired(source))
            continue
        if not pair.exists() or pair.read_text() != paired(source):
            failed.append(f"{pair.name} is out of step: python scripts/run_notebooks.py --sync")
        notebook, start = jupytext.read(source), time.perf_counter()
        try:
            NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
        except CellExecutionError as error:
            failed.append(f"{source.name}: {error}")
        print(f"{source.name}: {time.perf_counter() - start:.0f} s", flush=True)
        if args.save:
            args.save.mkdir(parents=True, exist_ok=True)
            jupytext.write(notebook, args.save / pair.name)
    print("\n".join(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
