"""Real data: raw files, made ArrayRecord files that are read in any order, made batches.

    from seqjax.data import DATASETS, prepared

    prepared("mnist").source("train")[0]["image"]        # uint8 [28, 28]

`seqjax data` lists the datasets, what of each is on this machine, and where the rest comes from.
"""

from seqjax.core.common import unknown
from seqjax.data.dataset import Dataset, Layout
from seqjax.data.files import DataError, File, data_folder, data_path
from seqjax.data.records import Prepared, prepare, prepared_folder
from seqjax.data.sets import (
    aan,
    babi,
    cifar10,
    conll2000,
    forecasting,
    genome,
    har,
    imdb,
    mnist,
    physionet,
    polymusic,
    speech,
    strokes,
    texts,
    translation,
    uea,
)

__all__ = [
    "DATASETS", "DataError", "Dataset", "File", "Layout", "Prepared", "data_folder", "data_path",
    "prepare", "prepared", "prepared_folder",
]  # fmt: skip

DATASETS: dict[str, Dataset] = {
    one.name: one
    for one in (
        mnist.DIGITS,
        mnist.MNIST,
        cifar10.CIFAR10,
        *uea.SETS,
        *texts.TEXTS,
        imdb.IMDB,
        aan.AAN,
        conll2000.CONLL2000,
        *babi.BABI,
        *translation.TRANSLATIONS,
        *genome.GENOMES,
        *forecasting.SERIES,
        *polymusic.MUSIC,
        *strokes.STROKES,
        physionet.SEPSIS,
        har.HAR,
        *speech.SPEECH,
    )
}  # fmt: skip


def prepared(name: str) -> Prepared:
    """The dataset `name`, prepared if it is not yet. Raises DataError, of one line."""
    if name not in DATASETS:
        raise DataError(unknown("dataset", name, DATASETS))
    return prepare(DATASETS[name])
