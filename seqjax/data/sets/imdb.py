"""IMDb (Maas et al. 2011): reviews of films, 25,000 + 25,000, half of them good.

    text    bytes, with <br /> where a line ends
    label   0: bad, 1 to 4 stars; 1: good, 7 to 10

Here a subset stands beside it: 5,000 + 5,000 of them, balanced. There are at most 30 reviews of a
film, and no film is in both splits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import File, members, reading

ORIGIN = "https://ai.stanford.edu/~amaas/data/sentiment/"
SUBSET = "https://github.com/dax44/AMLM/tree/master/data"
REVIEW = re.compile(r"(?:^|/)aclImdb/(train|test)/(pos|neg)/\d+_\d+\.txt$")
LABELS = ("neg", "pos")


def reviews(paths: Paths) -> Splits:
    (path,) = paths["archive"]
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for name, text in members(path):
        if found := REVIEW.search(name):
            splits[found[1]].append({"text": text, "label": LABELS.index(found[2])})
    with reading(path, "an archive of aclImdb"):
        if not all(splits.values()):
            raise ValueError("it has no reviews as aclImdb/train/pos/0_9.txt and of the test")
    return splits


def features() -> Mapping[str, Any]:
    from seqjax.data.records import tfds

    f = tfds().features
    return {"text": f.Text(), "label": f.ClassLabel(names=LABELS)}


IMDB = Dataset(
    "imdb", "IMDb reviews", "Maas et al. 2011", "not stated", features,
    (Layout("full", {"archive": File("imdb/aclImdb_v1.tar.gz", 84125825, ORIGIN)},
            reviews),
     Layout("subset_5k_5k", {"archive": File("imdb/imdb_5k_5k.tar.xz", 3975480, SUBSET)},
            reviews)),
)  # fmt: skip
