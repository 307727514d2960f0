"""What a dataset is: its raw files in the layouts they come in, and examples by split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqjax.data.files import File, data_folder, missing

Example = dict[str, Any]  # arrays, numbers, bytes and strings by name
Splits = Mapping[str, Iterable[Example]]
Paths = Mapping[str, list[Path]]


@dataclass(frozen=True)
class Layout:
    """One way in which a dataset comes.

    name: in the path of what is prepared, as "full" or "jpeg_subset".
    files: by their role; none where the data come with a package.
    examples: from the paths of each role to the examples of each split.
    """

    name: str
    files: Mapping[str, File]
    examples: Callable[[Paths], Splits]

    def find(self) -> dict[str, list[Path]] | None:
        """The paths of all roles, or None where one of them has no file."""
        found = {role: file.find(data_folder()) for role, file in self.files.items()}
        return found if all(found.values()) else None


@dataclass(frozen=True)
class Dataset:
    """A dataset: what an example has, and where the raw files come from.

    features: the features of tensorflow-datasets, by name; called when it is prepared.
    layouts: the first one whose files are all there is taken.
    ordered: examples keep their order (documents of a text); else they are shuffled, the same way
        on every machine.
    """

    name: str
    title: str
    reference: str
    licence: str
    features: Callable[[], Mapping[str, Any]]
    layouts: tuple[Layout, ...]
    ordered: bool = False

    def find(self) -> tuple[Layout, dict[str, list[Path]]]:
        """The layout that is there, and its paths. Raises DataError, of one line."""
        for layout in self.layouts:
            paths = layout.find()
            if paths is not None:
                return layout, paths
        raise missing(self.name, [list(layout.files.values()) for layout in self.layouts])
