"""Endless batches of examples that are read in any order: grain pipelines whose position is saved.

    rows       an example is a row of the batch; each epoch has each once, shuffled anew
    gathered   the same of what lies in memory, a batch at a time by its places
    repeated   whole batches, in the same order in every epoch
    packed     documents one after the other, cut into rows that are all full
    in_order   each once and in order, for validation: batches of places

All but the last go on over the end of an epoch. `get_state` and `set_state` of the iterators are
exact, with worker processes too (`workers`, which read ahead), and these leave the order as it is.
"""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np


def rows(
    source: Sequence[Any],
    encode: Callable[[Any], Any],
    collate: Callable[[list[Any]], Any],
    *,
    seed: int,
    batch: int,
    part: range | None = None,
    workers: int = 0,
) -> Any:
    """Batches collate([encode(example), ..]) of `batch` examples each.

    part: of each batch these rows alone are read; None: all.
    """
    examples: Any = _examples(source, seed)
    if part is not None and len(part) < batch:
        import grain

        drawn, batch, whole = examples, len(part), batch
        examples = grain.MapDataset.range(sys.maxsize // whole * batch).map(
            lambda n: drawn[n // batch * whole + part.start + n % batch]
        )
    examples = examples.map(encode)
    # of batches of one, `repeat` without end has more than an index can count
    one_by_one = examples.map(lambda example: collate([example]))
    batches = one_by_one if batch == 1 else examples.batch(batch, batch_fn=collate)
    return _iterator(batches.to_iter_dataset(_read_options()), workers)


def gathered(count: int, gather: Callable[[np.ndarray], Any], *, seed: int, batch: int) -> Any:
    """Batches gather(places), int [batch], of the places 0 .. count - 1."""
    import grain

    places = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    # of batches of one, `repeat` without end has more than an index can count
    batches = places.batch(batch) if batch > 1 else places.map(np.atleast_1d)
    return _iterator(batches.map(gather).to_iter_dataset(_read_options()))


def repeated(count: int, make: Callable[[int], Any]) -> Any:
    """make(0) .. make(count - 1), in this order and again."""
    import grain

    return _iterator(
        grain.MapDataset.range(count).repeat().map(make).to_iter_dataset(_read_options())
    )


def in_order(count: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of places, int [batch], and whether they only fill up the last one, bool [batch]."""
    for start in range(0, count, batch):
        places = np.arange(start, start + batch)
        yield np.minimum(places, count - 1), places >= count


def packed(
    source: Sequence[Any],
    encode: Callable[[Any], np.ndarray],
    collate: Callable[[dict[str, np.ndarray]], Any],
    *,
    seed: int,
    batch: int,
    length: int,
    workers: int = 0,
) -> Any:
    """Batches of documents encode(example), int [N], N > 1, that lie one after the other.

    `collate` gets x and y [batch, length], a token and the one after it, each token of a document
    but its last being x once; and begins, bool [batch, length], set at the first token of each
    document, and of what goes on from the row before.
    """
    import grain

    def pair(example: Any) -> dict[str, np.ndarray]:
        document = encode(example)
        return {"x": document[:-1], "y": document[1:]}

    documents = _examples(source, seed).map(pair).to_iter_dataset(_read_options())
    full = grain.experimental.ConcatThenSplitIterDataset(
        documents, length_struct={"x": length, "y": length}
    )

    def begun(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"x": row["x"], "y": row["y"], "begins": row["x_positions"] == 0}

    return _iterator(full.map(begun).batch(batch).map(collate), workers)


def _examples(source: Sequence[Any], seed: int) -> Any:
    import grain  # takes a second to import

    return grain.MapDataset.source(source).seed(seed).shuffle().repeat()


def _read_options() -> Any:
    import grain

    # An example is read in some microseconds: threads that read ahead would only cost.
    return grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)


def _iterator(dataset: Any, workers: int = 0) -> Any:
    if workers:
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain hands them to its workers
            flags.FLAGS(["seqjax"], known_only=True)
        options = grain.multiprocessing.MultiprocessingOptions(num_workers=workers)
        # out of the memory they share, which the workers take with them
        dataset = dataset.mp_prefetch(options).map(partial(jax.tree.map, np.array))
    iterator = iter(dataset)
    if workers:
        atexit.register(_close, weakref.ref(iterator))
    return iterator


def _close(reference: weakref.ref) -> None:
    """End the workers before the interpreter ends what they need."""
    iterator = reference()
    if iterator is not None:
        iterator.close()
