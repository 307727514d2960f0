"""Small trained models that come with the package: `seqjax generate python`, `seqjax eval mqar`.

Each is a folder as `seqjax.train.weights` stores them, with a CARD.md of what it was trained on and
what it scores. `scripts/pretrain.py` makes all of it.
"""

from pathlib import Path

from seqjax.core.common import unknown

FOLDER = Path(__file__).resolve().parent
MODELS = {
    "python": "Writes Python, byte by byte",
    "permutations": "Multiplies permutations, far beyond the lengths it was trained on",
    "mqar": "Recalls values by their keys",
}


def find(run: str | Path) -> Path:
    """The folder of a run, or of the model of that name where there is no such folder."""
    run = Path(run)
    if run.exists() or len(run.parts) != 1:
        return run
    if run.name not in MODELS:
        raise ValueError(f"{run} is not the folder of a run: {unknown('model', run, MODELS)}")
    return FOLDER / run
