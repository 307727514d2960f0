"""Small made-up files in the published formats, by dataset and layout: what a loader reads.

Each function gets the folder of data, writes the files of a layout, and returns how many examples
of each split they hold.
"""

import io
import tarfile
import zipfile

import numpy as np

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
    ("uea_gunpoint", "folder"): uea_folder,
    ("uea_gunpoint", "zip"): uea_zip,
    ("uea_gunpoint", "packed"): uea_packed,
}


def halves(content):
    """The first half of a file; of text one that ends within a line."""
    half = content[: len(content) // 2]
    return half if half[-1:] not in b"\n," else half + np.bytes_(b"1")
