"""Tasks of images: what a model sees of them, and the images that one draws."""

import tarfile

import jax
import numpy as np
import pytest
from made_files import cifar10_binary

from seqjax.data import prepared
from seqjax.data.sets import cifar10
from seqjax.tasks import make
from seqjax.tasks.images.captions import END, NAMES, spelt
from seqjax.tasks.images.gen_mnist import PixelTask
from seqjax.tasks.images.lra_image import grey


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A small CIFAR-10 in the published binary format; what is prepared goes beside it."""
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    cifar10_binary(tmp_path)
    return tmp_path / "cifar10/cifar-10-binary.tar.gz"


def test_planes_of_colour_become_pixels(cifar):
    with tarfile.open(cifar) as archive:
        raw = archive.extractfile("cifar-10-batches-bin/test_batch.bin").read()
    data = prepared("cifar10")
    assert (data.size("train"), data.size("test")) == (20, 5)
    images = {bytes(e["image"]): e["label"] for e in data.source("test")}
    for n in range(5):
        row = np.frombuffer(raw, np.uint8)[n * cifar10.BYTES : (n + 1) * cifar10.BYTES]
        pixels = np.array([row[1 + c * 1024 : 1 + (c + 1) * 1024] for c in range(3)]).T
        assert images[pixels.tobytes()] == row[0]


def test_a_photograph_comes_as_tokens_greys_and_colours(cifar):
    (batch,) = make("lra_image").validation(2, 1024)
    source = prepared("cifar10").source("train[90%:]")
    for row, example in zip(batch.x, source):
        r, g, b = np.moveaxis(example["image"].astype(np.float64), -1, 0).reshape(3, -1)
        expected = np.floor(0.2989 * r + 0.587 * g + 0.114 * b)
        np.testing.assert_array_equal(row, expected)
    (shown,) = make("lra_image", form="grey").validation(2, 1024)
    np.testing.assert_allclose(
        shown.x[..., 0], (batch.x / 255 - 0.481) / 0.239, rtol=1e-4, atol=1e-5
    )
    (shown,) = make("lra_image", form="colour").validation(2, 1024)
    red = (source[0]["image"][..., 0].reshape(-1) / 255 - 0.4914) / 0.2470
    np.testing.assert_allclose(shown.x[0, :, 0], red, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise, mean, deviation", [("uniform", 0.5, 12**-0.5), ("normal", 0, 1)])
def test_noise_follows_the_rows_of_a_photograph(cifar, noise, mean, deviation):
    task = make("npcifar", noise=noise)
    assert task.decides["length"] == 1000
    (batch,), (again,) = (list(task.validation(2, 200)) for _ in range(2))
    np.testing.assert_array_equal(batch.x, again.x)
    rows = prepared("cifar10").source("train[90%:]")[1]["image"].reshape(32, 96) / 255
    if noise == "uniform":
        np.testing.assert_allclose(batch.x[1, :32], rows, rtol=1e-6)
    after = batch.x[:, 32:]
    assert not np.array_equal(after[0], after[1])
    assert abs(after.mean() - mean) < 0.01 and abs(after.std() - deviation) < 0.01
    other = next(make("npcifar", noise=noise, seed=1).validation(2, 200))
    np.testing.assert_array_equal(other.x[:, :32], batch.x[:, :32])
    assert not np.array_equal(other.x[:, 32:], after)
    with pytest.raises(ValueError, match="npcifar has at least 32 steps, got length 31"):
        task.batches(0, 2, 31)


def test_the_subset_is_what_its_note_has():
    layout, paths = cifar10.CIFAR10.find()
    if layout.name != "jpeg_subset":
        pytest.skip("all of CIFAR-10 is here, not the subset")
    rows = list(layout.examples(paths)["test"])
    assert len(rows) == 2000
    np.testing.assert_array_equal(np.bincount([row["label"] for row in rows]), 200)
    assert abs(np.mean([grey(row["image"]).mean() for row in rows]) / 255 - 0.481) < 0.01


@pytest.mark.parametrize("levels", [2, 256])
def test_every_pixel_is_a_target_and_comes_before_the_next(levels):
    task = make("gen_mnist", levels=levels)
    batch = next(task.validation(4, 64))
    images = np.stack(
        [e["image"].reshape(-1) for e in prepared("digits").source("train[-180:]")][:4]
    )
    np.testing.assert_array_equal(batch.y, images // (256 // levels))
    np.testing.assert_array_equal(batch.x[:, 1:], batch.y[:, :-1])
    assert (batch.x[:, 0] == 0).all() and batch.mask.all()
    uniform = task.score(np.zeros((4, 64, levels), np.float32), batch)
    np.testing.assert_allclose(uniform["bits"], np.log2(levels), rtol=1e-5)
    assert isinstance(task, PixelTask) and task.spec.generates
    assert task.baseline(64)["bits"] < np.log2(levels)


def test_digits_are_spelt_out():
    assert [
        spelt(make("captions").gather([{"x": np.zeros(64), "y": n}], 6).y[0]) for n in range(10)
    ] == list(NAMES)
    batch = next(make("captions").validation(8, 6))
    ends = (batch.y == END) & (batch.mask > 0)
    assert (ends.sum(1) == 1).all()  # the end counts, once, and nothing after it
    names = [len(spelt(row)) for row in batch.y]
    np.testing.assert_array_equal(batch.mask.sum(1), np.array(names) + 1)
    with pytest.raises(ValueError, match="captions have 6 steps, got length 7"):
        make("captions").sample(jax.random.key(0), 2, 7)
