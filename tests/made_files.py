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


PENN = {
    "train": " the cat <unk> N \n a dog 's day \n the day \n",
    "valid": " the dog \n a cat \n",
    "test": " a day \n the bird \n a a \n",
}
ONE_OF_EACH = {"train": 1, "validation": 1, "test": 1}
WIKI = " \n = {} = \n \n Some words . \n \n = = Part = = \n \n More words . \n"


def penn_files(form):
    return {form.format(part): text.encode() for part, text in PENN.items()}


def ptb_zip(folder):
    files = {"__MACOSX/._ptb.train.txt": b"junk", **penn_files("ptb.{}.txt")}
    write(folder / "ptb/ptb.zip", zipped(files))
    return ONE_OF_EACH


def ptb_tgz(folder):
    files = penn_files("./simple-examples/data/ptb.{}.txt")
    files["./simple-examples/data/ptb.char.train.txt"] = b"t h e _ c a t"
    write(folder / "ptb/simple-examples.tgz", tarred(files, "gz"))
    return ONE_OF_EACH


def ptb_plain(folder):
    for name, content in penn_files("ptb/ptb.{}.txt").items():
        write(folder / name, content)
    return ONE_OF_EACH


def wiki_files(form):
    titles = {"train": "AB", "valid": "C", "test": "D"}
    return {
        form.format(part): "".join(WIKI.format(title) for title in found).encode()
        for part, found in titles.items()
    }


def wikitext_zip(folder):
    files = wiki_files("wikitext-103/wiki.{}.tokens")
    write(folder / "wikitext-103/wikitext-103-v1.zip", zipped(files))
    return {"train": 2, "validation": 1, "test": 1}


def wikitext_plain(folder):
    for name, content in wiki_files("wikitext-2/wiki.{}.tokens").items():
        write(folder / name, content)
    return {"train": 2, "validation": 1, "test": 1}


def wikitext_parts(folder):
    files = wiki_files("wikitext2/{}.txt")
    write(folder / "wikitext-2/test.txt.gz", gzip.compress(files.pop("wikitext2/test.txt")))
    write(folder / "wikitext-2/wikitext2.zip", zipped(files))
    return {"train": 2, "validation": 1, "test": 1}


def shakespeare(folder):
    write(
        folder / "tinyshakespeare/input.txt", b"".join(b"LINE %d:\nSpeak.\n" % n for n in range(40))
    )
    return ONE_OF_EACH


STORY = b"Once there was a story.\nIt ended.\n<|endoftext|>\n"


def tinystories(folder):
    write(folder / "tinystories/TinyStories-train.txt", STORY * 3)
    write(folder / "tinystories/TinyStories-valid.txt", STORY * 2)
    return {"train": 3, "validation": 2}


def tinystories_sample(folder):
    write(folder / "tinystories-sample/tinystories_sample.txt", STORY * 12 + b"Once ther")
    return {"train": 11, "validation": 1}


def pg19(folder):
    for n, part in enumerate(("train", "validation", "test")):
        for book in range(n + 1):
            write(folder / f"pg19/{part}/{book}.txt", b"A book. " * (book + 3))
    return {"train": 1, "validation": 2, "test": 3}


def ecoli(folder):
    lines = b">ecoli K-12\n" + b"ACGTTGCAAC\n" * 20
    write(folder / "genome/ecoli.fa.gz", gzip.compress(lines))
    return ONE_OF_EACH


HUMAN = {"chr1": "ACGTnacg\nTACGTRNN", "chr7": "GATT\nACA", "chr8": "CC", "chrUn_1": "AAAA"}


def human():
    return "".join(f">{name}\n{letters}\n" for name, letters in HUMAN.items()).encode()


def hg38_chromosomes(folder):
    write(folder / "genome/hg38.fa.gz", gzip.compress(human()))
    return ONE_OF_EACH


def hg38_intervals(folder):
    write(folder / "genome/hg38.ml.fa.gz", gzip.compress(human()))
    rows = ["chr1 0 8 train", "chr1 8 16 train", "chr8 0 2 valid", "chr7 0 7 test"]
    write(folder / "genome/human-sequences.bed", "\n".join(rows).replace(" ", "\t").encode())
    return {"train": 2, "validation": 1, "test": 1}


REVIEWS = {
    "train/pos/0_9.txt": b"A good film.<br /><br />Good!",
    "train/neg/0_1.txt": b"Bad.",
    "train/pos/1_7.txt": b"It's good",
    "train/unsup/0_0.txt": b"No one knows.",
    "test/neg/10_3.txt": b"Bad, b\xc3\xa4d film",
    "test/pos/11_10.txt": b"Good",
    "train/urls_pos.txt": b"http://",
}


def reviews(folder, name, kind, root):
    files = {f"{root}aclImdb/{path}": content for path, content in REVIEWS.items()}
    write(folder / "imdb" / name, tarred(files, kind))
    return {"train": 3, "test": 2}


def imdb_full(folder):
    return reviews(folder, "aclImdb_v1.tar.gz", "gz", "")


def imdb_subset(folder):
    return reviews(folder, "imdb_5k_5k.tar.xz", "xz", "data/")


def aan(folder):
    lines = ['1.0\tP00-1\tP00-2\tA "paper on trees.\tOn trees again', "0.0\ta\tb\tSo\tNot so"]
    for n, part in enumerate(("train", "eval", "test"), 1):
        text = "".join(f"{line}\n" for line in lines * n)
        write(folder / f"lra_release/tsv_data/new_aan_pairs.{part}.tsv", text.encode())
    return {"train": 2, "validation": 4, "test": 6}


SENTENCE = b"The DT B-NP\n2,000 CD I-NP\ncats NNS I-NP\nsleep VBP B-VP\n. . O\n\n"


def conll2000(folder):
    write(folder / "conll2000/train.txt.gz", gzip.compress(SENTENCE * 3))
    write(folder / "conll2000/test.txt.gz", gzip.compress(SENTENCE * 2))
    return {"train": 3, "test": 2}


MADE = {
    ("imdb", "full"): imdb_full,
    ("imdb", "subset_5k_5k"): imdb_subset,
    ("aan", "full"): aan,
    ("conll2000", "full"): conll2000,
    ("mnist", "full"): mnist_files,
    ("cifar10", "full"): cifar10_binary,
    ("cifar10", "jpeg_subset"): cifar10_jpeg,
    ("ptb", "zip"): ptb_zip,
    ("ptb", "tgz"): ptb_tgz,
    ("ptb", "plain"): ptb_plain,
    ("wikitext2", "plain"): wikitext_plain,
    ("wikitext2", "parts"): wikitext_parts,
    ("wikitext103", "zip"): wikitext_zip,
    ("shakespeare", "full"): shakespeare,
    ("tinystories", "full"): tinystories,
    ("tinystories", "sample"): tinystories_sample,
    ("pg19", "full"): pg19,
    ("ecoli", "full"): ecoli,
    ("hg38", "chromosomes"): hg38_chromosomes,
    ("hg38", "intervals"): hg38_intervals,
    ("uea_gunpoint", "folder"): uea_folder,
    ("uea_gunpoint", "zip"): uea_zip,
    ("uea_gunpoint", "tar"): uea_packed,
}

# A text without an end of its own: the half of one is a text.
ENDLESS = {("shakespeare", "full"), ("tinystories", "sample"), ("pg19", "full")}


def halves(content):
    """The first half of a file; of text one that ends within a line."""
    half = content[: len(content) // 2]
    return half if half[-1:] not in b"\n," else half + np.bytes_(b"1")
