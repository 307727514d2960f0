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

from seqjax.core.common import unknown
from seqjax.data.dataset import Dataset, Layout, Paths
from seqjax.data.files import DataError, data_folder, digest

VERSION = "1.0.0"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A dataset whose examples are read one by one, in any order."""

    dataset: Dataset
    builder: Any  # of tensorflow_datasets

    def __repr__(self) -> str:
        sizes = ", ".join(f"{self.size(split)} {split}" for split in self.splits)
        return f"<{self.dataset.title}: {sizes}; {self.builder.data_path}>"

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
        """The examples of a split, or of a slice of it as in tensorflow-datasets.

        Raises DataError for a split that there is not.
        """
        name = split.partition("[")[0]
        if name not in self.splits:
            raise DataError(unknown(f"split of {self.dataset.name}", name, self.splits))
        return self.builder.as_data_source(split=split)


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
        known = {layout.name: layout for layout in dataset.layouts}
        for path in sorted(folder.glob(f"*-*/{VERSION}")):
            layout = known.get(path.parent.name.rpartition("-")[0])
            if layout is not None:
                return Prepared(dataset, _builder(dataset, layout, path.parent.name))
        raise
    key = f"{layout.name}-{_sizes(paths)}"
    builder = _builder(dataset, layout, key)
    if builder.is_prepared():
        return Prepared(dataset, builder)
    print(f"preparing {dataset.name} ({layout.name}) in {builder.data_path}", file=sys.stderr)
    began, unfinished = time.monotonic(), _builder(dataset, layout, key, paths)
    try:
        with redirect_stdout(StringIO()):
            unfinished.download_and_prepare()
    except Exception:
        # of two processes that prepare the same files one is first
        if not _builder(dataset, layout, key).is_prepared():
            _forget(folder)
            raise
    found = Prepared(dataset, _builder(dataset, layout, key))
    print(f"{found} in {time.monotonic() - began:.1f} s", file=sys.stderr)
    return found


def _forget(folder: Path) -> None:
    """Remove what a preparation that failed leaves: names of configs, and empty folders."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if all(path.parent.name == ".config" for path in files):
        rmtree(folder, ignore_errors=True)


def _sizes(paths: Paths) -> str:
    """Of the names and sizes of the raw files: eight characters."""
    folder = data_folder()
    lines = [
        f"{role} {path.relative_to(folder)} {path.stat().st_size}"
        for role, found in sorted(paths.items()) for path in found
    ]  # fmt: skip
    return sha256("\n".join(lines).encode()).hexdigest()[:8]


def _builder(dataset: Dataset, layout: Layout, key: str, paths: Paths | None = None) -> Any:
    """The builder in the folder `key`; paths: of the raw files, to prepare it from."""
    package = tfds()
    config = package.core.BuilderConfig(name=key, version=VERSION)
    files = [path for role in sorted(paths or ()) for path in (paths or {})[role]]

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
            return {split: enumerate(rows) for split, rows in layout.examples(paths or {}).items()}

        def _generate_examples(self):
            raise NotImplementedError

    Builder.name = dataset.name
    return Builder(config=config, data_dir=prepared_folder(), file_format="array_record")
