"""Small made-up files of texts in the published formats, as `made_files` has those of images."""

import gzip

from made_files import tarred, write, zipped

from seqjax.data.sets import babi

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


STORIES = """1 Mary moved to the bathroom.
2 John took the milk.
3 Where is Mary? \tbathroom\t1
4 Mary got the apple there.
5 What is carried?\tmilk,apple\t2 4
1 The hall is east of the attic.
2 How do you go from the attic to the hall?\te\t1
"""


def babi_files(form):
    names = [name for name in babi.FILES if not name.startswith("qa12_")]
    files = {form.format(name): STORIES.encode() for name in names}
    one = STORIES[STORIES.index("1 The") :].encode()  # of kind 12 there is a story in each part
    return files | {form.format(name): one for name in babi.FILES if name.startswith("qa12_")}


def babi_plain(folder):
    for name, content in babi_files("babi/tasks_1-20_v1-2/en/{}").items():
        write(folder / name, content)
    return {split: 1 if "qa12" in split else 2 for split in babi.FILES.values()}


def babi_archive(folder):
    files = {"tasks_1-20_v1-2/README.txt": b"words"}
    for language in ("en", "en-10k"):
        files |= babi_files(f"tasks_1-20_v1-2/{language}/{{}}")
    write(folder / "babi/tasks_1-20_v1-2.tar.gz", tarred(files, "gz"))
    return {split: 1 if "qa12" in split else 2 for split in babi.FILES.values()}


CAPTIONS = {
    "en": ["A man  sleeps.", "Two dogs & a cat run.", "Go!"],
    "de": ["Ein Mann schläft.", "Zwei Hunde & eine Katze rennen.", "Los!"],
    "fr": ["Un homme dort.", "Deux chiens & un chat courent.", "Vas-y !"],
}


def lines_of(language, repeated):
    return "".join(f"{line}\n" for line in CAPTIONS[language] * repeated).encode()


def multi30k(folder):
    parts = {"train": 4, "val": 2, "test_2016_flickr": 1, "test_2017_flickr": 1}
    for part, repeated in parts.items():
        for one in CAPTIONS:
            write(folder / f"multi30k/{part}.{one}.gz", gzip.compress(lines_of(one, repeated)))
    return {"train": 12, "validation": 6, "test": 3, "test_2017": 3}


def wmt14(folder):
    for n, part in enumerate(("train", "newstest2013", "newstest2014"), 1):
        for one in ("en", "de"):
            write(folder / f"wmt14/{part}.{one}", lines_of(one, n))
    return {"train": 3, "validation": 6, "test": 9}


def iwslt14(folder):
    files = {}
    for one in ("de", "en"):
        talk = f"<url>http://</url>\n<title>A talk</title>\n{lines_of(one, 16).decode()}"
        files[f"de-en/train.tags.de-en.{one}"] = talk.encode()
        segments = "\n".join(
            f'<seg id="{n}"> {line.replace("&", "&amp;")} </seg>'
            for n, line in enumerate(CAPTIONS[one], 1)
        )
        for part in ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012"):
            page = f'<?xml version="1.0"?>\n<mteval><doc>\n{segments}\n</doc></mteval>\n'
            files[f"de-en/IWSLT14.{part}.de-en.{one}.xml"] = page.encode()
    write(folder / "iwslt14/de-en.tgz", tarred(files, "gz"))
    return {"train": 46, "validation": 2, "test": 15}


MADE_TEXTS = {
    ("multi30k", "full"): multi30k,
    ("wmt14", "full"): wmt14,
    ("iwslt14", "full"): iwslt14,
    ("imdb", "full"): imdb_full,
    ("imdb", "subset_5k_5k"): imdb_subset,
    ("aan", "full"): aan,
    ("conll2000", "full"): conll2000,
    ("babi", "full"): babi_plain,
    ("babi_10k", "archive"): babi_archive,
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
}
# A text without an end of its own: the half of one is a text.
ENDLESS = {("shakespeare", "full"), ("tinystories", "sample"), ("pg19", "full")}
