"""ArrayRecord files made from raw ones by tensorflow-datasets, without TensorFlow.

    source = prepared("mnist").source("train[:-5000]")
    source[17]["image"]          # uint8 [28, 28]

They are kept where tensorflow-datasets keeps its own (TFDS_DATA_DIR, ~/tensorflow_datasets where
that is not set), in a folder whose name has a hash of the names and sizes of the raw files: other
raw files are other data. Once they are prepared the raw files are not needed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from io import StringIO
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from seqjax.core.common import unknown
from seqjax.data.dataset import Dataset, Layout, Paths
from seqjax.data.files import DataError, data_folder, digest

VERSION = "1.0.0"
KEEP = 2**28  # bytes of examples of a source that stay in memory
OVERHEAD = 500  # bytes of an example beside its arrays and texts, about


@dataclass(frozen=True, eq=False)
class Prepared:
    """A dataset whose examples are read one by one, in any order."""

    dataset: Dataset
    path: Path  # of the folder they are in

    def __repr__(self) -> str:
        sizes = ", ".join(f"{self.size(split)} {split}" for split in self.splits)
        return f"<{self.dataset.title}: {sizes}; {self.path}>"

    @cached_property
    def builder(self) -> Any:
        """Of tensorflow_datasets."""
        return tfds().builder_from_directory(self.path)

    @property
    def layout(self) -> str:
        """Which of the layouts of the dataset it was made from."""
        return self.builder.builder_config.name.rpartition("-")[0]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.builder.info.splits)

    def size(self, split: str) -> int:
        return self.builder.info.splits[split].num_examples

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the raw files, and the layout they had."""
        return self.builder.info.metadata["fingerprint"]

    def source(self, split: str) -> Sequence[Any]:
        """The examples of a split, of a slice of it or of several, as in tensorflow-datasets.

        Raises DataError for a split that there is not.
        """
        for part in split.split("+"):
            name = part.partition("[")[0]
            if name not in self.splits:
                raise DataError(unknown(f"split of {self.dataset.name}", name, self.splits))
        return Kept(self.path, split, self.builder.as_data_source(split=split))


class Kept(Sequence):
    """A source whose examples stay in memory once they are read, as many as fit in KEEP bytes.

    They are decoded again by those who unpickle it, as workers do. Their arrays are read-only.
    """

    def __init__(self, path: Path, split: str, source: Any):
        self.path, self.split, self.source = path, split, source
        self.known, self.room = {}, KEEP

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        index = range(len(self))[index]
        if index in self.known:
            return self.known[index]
        example = self.source[index]
        arrays = [value for value in example.values() if isinstance(value, np.ndarray)]
        for array in arrays:
            array.flags.writeable = False
        texts = [value for value in example.values() if isinstance(value, str | bytes)]
        self.room -= OVERHEAD + sum(one.nbytes for one in arrays) + sum(map(len, texts))
        if self.room >= 0:
            self.known[index] = example
        return example

    def __reduce__(self):
        return _again, (self.path, self.split)


def _again(path: Path, split: str) -> Kept:
    return Kept(path, split, tfds().builder_from_directory(path).as_data_source(split=split))


def tfds() -> Any:
    """The package tensorflow_datasets; one line where it is not installed."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            f"prepared data need the extra `data`: pip install 'seqjax[data]' ({error})"
        ) from error
    from absl import logging

    logging.get_absl_logger().addFilter(_no_variant)
    tensorflow_datasets.disable_progress_bar()
    return tensorflow_datasets


def _no_variant(record: Any) -> bool:
    """Not the warning that a dataset to be prepared is not prepared."""
    return "has no dataset_info.json" not in record.getMessage()


def prepared_folder() -> Path:
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def prepare(dataset: Dataset) -> Prepared:
    """The dataset, prepared if it is not yet: takes the raw files that are there.

    Raises DataError where neither raw nor prepared files are there, or raw ones are broken; then
    nothing of it is left behind.
    """
    folder = prepared_folder() / dataset.name
    try:
        layout, paths = dataset.find()
    except DataError:
        known = [layout.name for layout in dataset.layouts]
        for made in sorted(folder.glob(f"*-*/{VERSION}/dataset_info.json")):
            if made.parent.parent.name.rpartition("-")[0] in known:
                return Prepared(dataset, made.parent)
        raise
    key = f"{layout.name}-{_hash(dataset, paths)}"
    found = Prepared(dataset, folder / key / VERSION)
    made = found.path / "dataset_info.json"
    if made.exists():
        return found
    builder, began = _builder(dataset, layout, key, paths), time.monotonic()
    print(f"preparing {dataset.name} ({layout.name}) in {found.path}", file=sys.stderr)
    try:
        with redirect_stdout(StringIO()):
            builder.download_and_prepare()
    except Exception:  # of any kind: nothing may be left behind
        if not made.exists():  # of two processes that prepare the same files one is first
            _forget(folder)
            raise
    print(f"{found} in {time.monotonic() - began:.1f} s", file=sys.stderr)
    return found


def _forget(folder: Path) -> None:
    """Remove what a preparation that failed leaves: names of configs, and empty folders."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if all(path.parent.name == ".config" for path in files):
        rmtree(folder, ignore_errors=True)


def _hash(dataset: Dataset, paths: Paths) -> str:
    """Of the names and sizes of the raw files and of what an example has: eight characters."""
    folder = data_folder()
    lines = [
        f"{role} {path.relative_to(folder)} {path.stat().st_size}"
        for role, found in sorted(paths.items()) for path in found
    ]  # fmt: skip
    lines.append(str(tfds().features.FeaturesDict(dict(dataset.features()))))
    return sha256("\n".join(lines).encode()).hexdigest()[:8]


def _builder(dataset: Dataset, layout: Layout, key: str, paths: Paths) -> Any:
    """What prepares the raw files, in the folder `key`."""
    package = tfds()
    config = package.core.BuilderConfig(name=key, version=VERSION)
    files = [path for role in sorted(paths) for path in paths[role]]

    class Builder(package.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
        VERSION = package.core.Version(VERSION)
        BUILDER_CONFIGS = [config]

        def _info(self):
            return package.core.DatasetInfo(
                builder=self,
                description=dataset.title,
                features=package.features.FeaturesDict(dict(dataset.features())),
                disable_shuffling=dataset.ordered,
                metadata=package.core.MetadataDict(fingerprint=f"{layout.name}-{digest(files)}"),
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {split: enumerate(rows) for split, rows in layout.examples(paths).items()}

        def _generate_examples(self):  # required of a builder, whose splits have theirs here
            raise NotImplementedError

    Builder.name = dataset.name
    return Builder(config=config, data_dir=prepared_folder(), file_format="array_record")
