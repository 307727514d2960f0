"""Raw files, what is prepared from them, and the pipelines that read it."""

import gzip
import io
import sys
import tarfile
import zipfile

import cloudpickle
import jax
import numpy as np
import pytest
from made_files import idx, mnist_files

from seqjax.answers import Classes, Values
from seqjax.data import DATASETS, DataError, data_path, prepared
from seqjax.data.files import File, members, read
from seqjax.data.pipeline import packed, rows
from seqjax.data.sets.mnist import read_idx
from seqjax.tasks import make
from seqjax.tasks.images.smnist import SIZES
from seqjax.tasks.records import padded
from seqjax.tasks.task import Features, Spec


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A small MNIST in the published format; what is prepared goes beside it."""
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    mnist_files(tmp_path)
    return tmp_path / "mnist"


def test_examples_are_those_of_the_files_and_outlive_them(mnist, capsys):
    data = prepared("mnist")
    assert "preparing mnist (full)" in capsys.readouterr().err
    assert (data.size("train"), data.size("test"), data.splits) == (23, 7, ("train", "test"))
    images = read_idx(mnist / "train-images-idx3-ubyte.gz")
    seen = set()
    for example in data.source("train"):
        n = int(example["image"][0, 0])
        np.testing.assert_array_equal(example["image"], images[n])
        assert example["label"] == n % 10
        seen.add(n)
    assert seen == set(range(23))
    assert [len(data.source(part)) for part in ("train[:-5]", "train[-5:]")] == [18, 5]
    with pytest.raises(DataError, match="unknown split of mnist 'trian'; did you mean 'train'"):
        data.source("trian[:3]")
    for path in mnist.iterdir():
        path.unlink()
    again = prepared("mnist")
    assert capsys.readouterr().err == "" and again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(again.source("test")[3]["image"], data.source("test")[3]["image"])


def test_examples_are_decoded_once_while_there_is_room(mnist, monkeypatch):
    source = prepared("mnist").source("train")
    assert source[3] is source[3] and source[-1] is source[22] and len(source) == 23
    with pytest.raises(ValueError, match="read-only"):
        source[3]["image"][0, 0] = 1
    other = cloudpickle.loads(cloudpickle.dumps(source))  # as workers do
    np.testing.assert_array_equal(other[3]["image"], source[3]["image"])
    with pytest.raises(IndexError):
        source[23]
    monkeypatch.setattr("seqjax.data.records.KEEP", 2 * (784 + 500))
    source = prepared("mnist").source("train")
    assert [source[i] is source[i] for i in range(4)] == [True, True, False, False]


def test_other_files_are_other_data(mnist):
    first = prepared("mnist")
    (mnist / "t10k-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((4, 28, 28))))
    (mnist / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(4)))
    second = prepared("mnist")
    assert second.size("test") == 4 and first.fingerprint != second.fingerprint


WHOLE = idx(np.zeros((7, 28, 28)))


@pytest.mark.parametrize(
    "content, message",
    [
        (WHOLE[:40], "is truncated, a .gz file"),
        (b"", "is empty, a .gz file"),
        (b"<html>not found</html>", "is not what it should be, a .gz file"),
        (WHOLE[:-9] + b"\0" + WHOLE[-8:], "is .*, a .gz file"),
        (gzip.compress(b"no idx at all"), "is not what it should be, an IDX file of uint8"),
        (gzip.compress(gzip.decompress(WHOLE)[:-5]), "is truncated, an IDX file of uint8: it has"),
        (idx(np.zeros((7, 32, 32))), r"has \[7, 32, 32\] and .*labels.* \[7\]"),
        (idx(np.zeros((6, 28, 28))), r"has \[6, 28, 28\] and .*labels.* \[7\]"),
    ],
    ids=["cut", "empty", "html", "corrupt", "foreign", "short", "large", "unequal"],
)
def test_broken_files_are_named_and_leave_nothing_behind(mnist, content, message):
    (mnist / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte.gz {message}") as caught:
        prepared("mnist")
    assert len(str(caught.value).splitlines()) == 1
    assert not (mnist.parent / "prepared" / "mnist").exists()


def test_absent_files_are_named_with_sizes_and_where_they_come_from(mnist):
    (mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        prepared("mnist")
    text = str(caught.value)
    for part in (str(mnist.parent), "t10k-labels-idx1-ubyte.gz (4.54 kB)", "https://",
                 "SEQJAX_DATA"):  # fmt: skip
        assert part in text
    assert "train-labels-idx1-ubyte.gz" not in text and len(text.splitlines()) == 1
    with pytest.raises(DataError, match="unknown dataset 'mnits'; did you mean 'mnist'"):
        prepared("mnits")
    with pytest.raises(ValueError, match="no data 'ptbx'.*set SEQJAX_DATA"):
        data_path("ptbx")
    assert data_path("mnist") == mnist


def test_without_the_extra_one_line_names_it(mnist, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"pip install 'seqjax\[data\]'"):
        prepared("mnist")


def test_archives_are_read_without_what_macos_adds(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/one.txt", "__MACOSX/a/._one.txt", "a/.DS_Store"):
            archive.writestr(name, name)
    assert list(members(tmp_path / "a.zip")) == [("a/one.txt", b"a/one.txt")]
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as archive:
        info = tarfile.TarInfo("one")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(np.random.RandomState(0).bytes(info.size)))
    assert [name for name, _ in members(tmp_path / "a.tar.xz")] == ["one"]
    for name in ("a.zip", "a.tar.xz"):
        whole = (tmp_path / name).read_bytes()
        for content in (b"", whole[: len(whole) // 2], b"<html></html>"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match=f"{name} is .*an archive"):
                list(members(tmp_path / name))
    with pytest.raises(DataError, match="gone.gz is empty"):
        read(tmp_path / "gone.gz")


def test_a_folder_of_files_is_one_role(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).touch()
    file = File("*.txt", None, "somewhere")
    assert [path.name for path in file.find(tmp_path)] == ["a.txt", "b.txt"]


# -- pipelines --


def numbers(seed=0, batch=4, **options):
    return rows(range(10), lambda i: i, np.array, seed=seed, batch=batch, **options)


@pytest.mark.parametrize("batch", [1, 4])
def test_each_epoch_has_each_example_once_and_stops_nowhere(batch):
    iterator, count = numbers(batch=batch), 60 // batch
    drawn = np.concatenate([next(iterator) for _ in range(count)])
    epochs = drawn[: len(drawn) // 10 * 10].reshape(-1, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(next(numbers(1, 10)), next(numbers(2, 10)))


def test_a_position_is_saved_and_processes_share_out_a_batch():
    iterator = numbers()
    for _ in range(3):
        next(iterator)
    state, after = iterator.get_state(), [next(iterator) for _ in range(3)]
    other = numbers()
    other.set_state(state)
    np.testing.assert_array_equal(after, [next(other) for _ in range(3)])
    for batch, parts in ((4, (range(2), range(2, 4))), (3, (range(1), range(1, 3)))):
        alone = numbers(batch=batch)
        shared = [numbers(batch=batch, part=part, workers=workers)
                  for part, workers in zip(parts, (0, 1), strict=True)]  # fmt: skip
        for _ in range(7):  # over the end of an epoch
            drawn = [next(one) for one in shared]
            np.testing.assert_array_equal(np.concatenate(drawn), next(alone))
        shared[0].set_state(alone.get_state())  # a position is that of any number of processes
        np.testing.assert_array_equal(next(shared[0]), next(alone)[: len(parts[0])])


def test_workers_read_ahead_in_the_same_order():
    alone, iterator = numbers(), numbers(workers=2)
    for _ in range(4):
        np.testing.assert_array_equal(next(alone), next(iterator))
    state, after = iterator.get_state(), next(iterator)
    iterator.set_state(state)
    np.testing.assert_array_equal(next(iterator), after)
    iterator.close()


def test_documents_are_packed_one_after_the_other():
    sizes = [3, 7, 2, 12, 5]
    documents = [100 * i + np.arange(n) for i, n in enumerate(sizes)]
    pairs = sum(n - 1 for n in sizes)

    def stream():
        return packed(documents, lambda d: d, lambda b: b, seed=0, batch=2, length=6)

    iterator = stream()
    found = [next(iterator) for _ in range(pairs // 12 * 3)]
    x, y, begins = (
        np.concatenate([one[k].reshape(-1) for one in found]) for k in ("x", "y", "begins")
    )
    np.testing.assert_array_equal(y, x + 1)  # no target is of another document
    first = sorted(x[:pairs])
    assert first == sorted(np.concatenate([d[:-1] for d in documents]))
    after = np.flatnonzero(np.diff(x) != 1) + 1  # a document begins there
    assert begins[after].all() and begins[::6].all()
    assert begins.sum() == len(set(after) | set(range(0, len(x), 6)))
    for _ in range(2):
        next(iterator)
    state, later = iterator.get_state(), next(iterator)
    other = stream()
    other.set_state(state)
    np.testing.assert_array_equal(next(other)["x"], later["x"])


# -- tasks --


def test_examples_are_filled_up_to_the_length():
    spec = Spec(Features(2), Values(1, per_step=True), timed=True)
    encoded = [dict(x=np.full((n, 2), n), y=np.full((n, 1), n), dt=np.ones(n)) for n in (2, 4)]
    batch = padded(encoded, 5, spec, ragged=True)
    np.testing.assert_array_equal(batch.present, [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    np.testing.assert_array_equal(batch.mask, batch.present)
    np.testing.assert_array_equal(batch.x[..., 1], [[2, 2, 0, 0, 0], [4, 4, 4, 4, 0]])
    np.testing.assert_array_equal(batch.dt, batch.present)
    assert batch.x.dtype == batch.y.dtype == np.float32
    whole = padded([encoded[1]], 4, spec, ragged=False)
    assert whole.present is None and whole.mask.all()
    for length, ragged in ((3, True), (5, False)):
        with pytest.raises(ValueError, match=f"an example has 4 steps, got length {length}"):
            padded([encoded[1]], length, spec, ragged)
    once = Spec(Features(2), Classes(3, per_step=False))
    one = padded(
        [dict(x=np.ones((2, 2)), y=2), dict(x=np.ones((1, 2)), y=0, mask=0)], 2, once, True
    )
    np.testing.assert_array_equal(one.mask, [1, 0])
    np.testing.assert_array_equal(one.y, [2, 0])


@pytest.mark.parametrize("order", ["pixels", "permuted", "rows"])
def test_digits_come_pixel_by_pixel(order):
    task = make("smnist", order=order)
    source, size = prepared("digits").source("train[-180:]"), SIZES["digits"]
    (first, *_) = held_out = list(task.validation(64, task.steps))
    assert sum(batch.mask.sum() for batch in held_out) == 180 and len(held_out) == 3
    image = source[5]["image"] / np.float32(255)
    shown = first.x[5].reshape(-1)
    if order == "permuted":
        assert not np.array_equal(shown, image.reshape(-1))
        shown = shown[np.argsort(np.random.RandomState(0).permutation(size * size))]
    np.testing.assert_array_equal(shown, image.reshape(-1))
    assert first.y[5] == source[5]["label"] and first.x.shape[1] == task.decides["length"]
    batch = next(task.batches(0, 4, task.steps))
    assert batch.x.dtype == np.float32 and 0 <= batch.x.min() and batch.x.max() <= 1
    with pytest.raises(ValueError, match=f"an example has {task.steps} steps, got length 3"):
        task.sample(jax.random.key(0), 2, 3)


def test_a_constant_and_a_perfect_answer_score_what_they_must():
    task = make("smnist", order="rows")
    held_out = list(task.validation(180, 8))
    (batch,) = held_out
    right = 60 * np.eye(10, dtype=np.float32)[batch.y]
    assert task.score(right, batch)["accuracy"] == 1
    counts = np.zeros(10)
    for example in prepared("digits").source("train[:-180]"):
        counts[example["label"]] += 1
    p = (counts + 1) / (counts + 1).sum()
    constant = np.broadcast_to(np.log(p), (180, 10)).astype(np.float32)
    metrics, expected = task.score(constant, batch), task.baseline(8)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)


def test_all_of_mnist_is_what_the_papers_have():
    paths = DATASETS["mnist"].find()[1]
    images, labels = (read_idx(paths[f"train_{role}"][0]) for role in ("images", "labels"))
    assert images.shape == (60000, 28, 28) and len(read_idx(paths["test_labels"][0])) == 10000
    np.testing.assert_array_equal(np.bincount(labels)[:2], [5923, 6742])
    assert abs(images.mean() / 255 - 0.1307) < 1e-4 and abs(images.std() / 255 - 0.3081) < 1e-4
