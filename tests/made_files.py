"""Small made-up files in the published formats, by dataset and layout: what a loader reads.

Each function gets the folder of data, writes the files of a layout, and returns how many examples
of each split they hold.
"""

import gzip
import io
import tarfile
import zipfile

import numpy as np
from PIL import Image

from seqjax.data.sets import cifar10

TS_HEAD = """# a comment
@problemName {name}
@timeStamps false
@classLabel true up down
@univariate false
@data
"""
TS = {
    "TRAIN": ["1,2,?:4,5.5,6:up", "0.5,NaN,2.5,3:1,1,1,1:down", "7,8:9,1e1:up"],
    "TEST": ["3,2,1:0,0,0:down", "1:-1:up"],
}


def ts_files(name):
    """The two files of a set of three and two series of two channels."""
    return {
        f"{name}_{part}.ts": (TS_HEAD.format(name=name) + "\n".join(lines)).encode()
        for part, lines in TS.items()
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{kind}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def idx(array):
    """An array of uint8 as the IDX files of MNIST have it."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(head + array.astype(np.uint8).tobytes(), mtime=0)


def mnist_files(folder):
    """Images whose first pixel is their number, of the digit that is its last figure."""
    rng = np.random.RandomState(0)
    for name, n in (("train", 23), ("t10k", 7)):
        images = rng.randint(0, 256, (n, 28, 28)).astype(np.uint8)
        images[:, 0, 0] = np.arange(n)
        write(folder / f"mnist/{name}-images-idx3-ubyte.gz", idx(images))
        write(folder / f"mnist/{name}-labels-idx1-ubyte.gz", idx(np.arange(n) % 10))
    return {"train": 23, "test": 7}


def cifar10_binary(folder):
    rng = np.random.RandomState(0)
    files = {}
    for name, n in (("data_batch_1", 12), ("data_batch_2", 8), ("test_batch", 5)):
        rows = rng.randint(0, 256, (n, cifar10.BYTES)).astype(np.uint8)
        rows[:, 0] = np.arange(n) % 10
        files[f"cifar-10-batches-bin/{name}.bin"] = rows.tobytes()
    write(folder / cifar10.BINARY.path, tarred(files, "gz"))
    return {"train": 20, "test": 5}


def cifar10_jpeg(folder):
    rng = np.random.RandomState(0)
    files = {}
    for split, n in (("train", 2), ("test", 1)):
        for name in cifar10.CLASSES:
            for number in range(n):
                out = io.BytesIO()
                image = rng.randint(0, 256, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(image).save(out, "jpeg")
                files[f"{split}/{name}/{number:04d}.jpg"] = out.getvalue()
    write(folder / cifar10.JPEG.path, tarred(files, "xz"))
    return {"train": 20, "test": 10}


def uea_folder(folder):
    for name, content in ts_files("GunPoint").items():
        write(folder / "ucr-uea/GunPoint" / name, content)
    return {"train": 3, "test": 2}


def uea_zip(folder):
    write(folder / "ucr-uea/GunPoint.zip", zipped(ts_files("GunPoint")))
    return {"train": 3, "test": 2}


def uea_packed(folder):
    files = {f"data/{name}": content for name, content in ts_files("GunPoint").items()}
    write(folder / "ucr-uea/ucr_uea_sktime.tar.xz", tarred(files, "xz"))
    return {"train": 3, "test": 2}


MADE = {
    ("mnist", "full"): mnist_files,
    ("cifar10", "full"): cifar10_binary,
    ("cifar10", "jpeg_subset"): cifar10_jpeg,
    ("uea_gunpoint", "folder"): uea_folder,
    ("uea_gunpoint", "zip"): uea_zip,
    ("uea_gunpoint", "tar"): uea_packed,
}


def halves(content):
    """The first half of a file; of text one that ends within a line."""
    half = content[: len(content) // 2]
    return half if half[-1:] not in b"\n," else half + np.bytes_(b"1")
