"""Series that forecasters are compared on: transformers' oil (ETT, arXiv:2012.07436), exchange
rates, electricity and traffic (LSTNet, arXiv:1703.07015), weather, influenza-like illness
(Autoformer, arXiv:2106.13008). One example, of one split, has all of a series:

    values    float32 [N D], row by row
    channels  D
    minutes   int64 [N], since 1970 by the clock of the place; [0] where no dates are given

They come as .csv with a date in front of each row, and a head of names, the last of which is the
target of papers that forecast one number ("OT"); or as bare rows of numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqjax.data.dataset import Dataset, Layout, Paths, Splits
from seqjax.data.files import File, read_text, reading

ETT = "https://github.com/zhouhaoyi/ETDataset"
LSTNET = "https://github.com/laiguokun/multivariate-time-series-data"
AUTOFORMER = "https://github.com/thuml/Autoformer, all_six_datasets"


def read_rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """minutes int64 [N] or [0], and values float32 [N, D]. Raises DataError."""
    text = read_text(path)
    with reading(path, "rows of a date and numbers, or of numbers"):
        rows = [line.split(",") for line in text.splitlines() if line.strip()]
        dated = rows[0][0].strip('"').lower() == "date"
        head, rows = (rows[0], rows[1:]) if dated else (None, rows)
        width = len(rows[0] if head is None else head)
        odd = next((i for i, row in enumerate(rows) if len(row) != width), None)
        if odd is not None or len(rows) < 2:
            number = len(rows) if odd is None else odd + 1
            raise EOFError(f"it ends, or is of another width than {width}, at row {number}")
        values = np.array([row[dated:] for row in rows], np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"row {np.argwhere(~np.isfinite(values))[0, 0] + 1} is not finite")
        minutes = np.zeros(0, np.int64)
        if dated:
            minutes = np.array([row[0] for row in rows], "datetime64[m]").astype(np.int64)
            if (np.diff(minutes) <= 0).any():
                raise ValueError("its dates do not rise")
        return minutes, values.astype(np.float32)


def series_examples(paths: Paths) -> Splits:
    ((path,),) = paths.values()
    minutes, values = read_rows(path)
    return {"series": [{"values": values.reshape(-1), "channels": values.shape[1],
                     "minutes": minutes}]}  # fmt: skip


def _features():
    from seqjax.data.records import tfds

    f = tfds().features
    return {
        "values": f.Tensor(shape=(None,), dtype=np.float32), "channels": np.int64,
        "minutes": f.Tensor(shape=(None,), dtype=np.int64),
    }  # fmt: skip


def _series(name: str, title: str, licence: str, *files: File) -> Dataset:
    layouts = (
        Layout(file.path.partition(".")[2].replace(".", "_"), {"series": file}, series_examples)
        for file in files
    )
    references = {ETT: "2012.07436", LSTNET: "1703.07015"}
    reference = references.get(files[0].origin, "2106.13008")
    return Dataset(name, title, reference, licence, _features, tuple(layouts))


def _file(name: str, size: int | None, origin: str) -> File:
    return File(f"forecasting/{name}", size, origin)


def _transformer(name: str, size: int | None) -> Dataset:
    files = (_file(f"{name}.csv.gz", size, ETT), _file(f"{name}.csv", None, ETT))
    return _series(name.lower(), f"Electricity transformer {name}", "CC BY-ND 4.0", *files)


def _table(name: str, title: str, file: str, size: int | None = None) -> Dataset:
    """Of LSTNet, without dates, or of Autoformer, with them."""
    files = (_file(f"{file}.txt.gz", size, LSTNET), _file(f"{file}.csv", None, AUTOFORMER))
    return _series(name, title, "not stated", *files)


SERIES = (
    _transformer("ETTh1", 405540), _transformer("ETTh2", 428740),
    _transformer("ETTm1", 1567418), _transformer("ETTm2", None),
    _table("exchange", "Exchange rates of eight countries", "exchange_rate", 177142),
    _table("electricity", "Electricity of 321 clients (ECL)", "electricity"),
    _table("traffic", "Occupancy of 862 roads", "traffic"),
    _series("weather", "Weather of Jena, 2020", "not stated",
            _file("weather.csv", None, AUTOFORMER)),
    _series("illness", "Influenza-like illness in the United States", "public domain",
            _file("national_illness.csv", 66653, AUTOFORMER)),
)  # fmt: skip
