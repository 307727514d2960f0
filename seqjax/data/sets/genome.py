"""Genomes in FASTA files: E. coli, and the human one, HG38.

name       bytes: the line after > that a sequence begins with
sequence   bytes: its letters, as they are: lower case where a repeat is masked, N unknown
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seqjax.data.dataset import Dataset, Example, Layout, Paths, Splits
from seqjax.data.files import File, read, reading

PARTS = ("train", "validation", "test")
LETTERS = b"ACGTUNRYKMSWBDHVacgtunrykmswbdhv-"  # of the IUPAC: bases, and what may be several
ECOLI = "https://github.com/mschatz/anicompare/tree/master/data"
BASENJI = "https://console.cloud.google.com/storage/browser/basenji_barnyard/data/human"
UCSC = "https://hgdownload.soe.ucsc.edu/goldenPath/hg38/bigZips/"


def read_fasta(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Names and sequences of a FASTA file, one after the other. Raises DataError."""
    content = read(path)
    with reading(path, "a FASTA file"):
        if not content.startswith(b">"):
            raise ValueError(f"it begins with {content[:20]!r}")
        for record in content[1:].split(b"\n>"):
            name, _, lines = record.partition(b"\n")
            sequence = lines.translate(None, b"\r\n")
            if strange := sequence.translate(None, LETTERS):
                raise ValueError(f"{name.strip()!r} has the letter {strange[:1]!r}")
            if not sequence:
                raise EOFError(f"nothing is in {name.strip()!r}")
            yield name.strip(), sequence


def one_sequence(paths: Paths) -> Splits:
    """The first 90 % of a genome, then 5 % to validate on, then 5 % to test."""
    (path,) = paths["genome"]
    found = list(read_fasta(path))
    with reading(path, "a FASTA file of one sequence"):
        ((name, letters),) = found
    ends = [0, len(letters) * 90 // 100, len(letters) * 95 // 100, len(letters)]
    return {part: [{"name": name, "sequence": letters[a:b]}]
            for part, a, b in zip(PARTS, ends, ends[1:])}  # fmt: skip


def chromosomes(paths: Paths) -> Splits:
    """Chromosomes 1 to 22, X and Y: the 7th to validate on, the 8th and 9th to test."""
    (path,) = paths["genome"]
    held_out = {b"chr7": "validation", b"chr8": "test", b"chr9": "test"}
    wanted = {b"chr%d" % n for n in range(1, 23)} | {b"chrX", b"chrY"}

    def of(part: str) -> Iterator[Example]:
        for name, letters in read_fasta(path):
            short = name.partition(b" ")[0]
            if short in wanted and held_out.get(short, "train") == part:
                yield {"name": short, "sequence": letters}

    return {part: of(part) for part in PARTS}


def intervals(paths: Paths) -> Splits:
    """Pieces of chromosomes that a BED file has, one at a line: chromosome, start, end, split."""
    (genome,), (bed,) = paths["genome"], paths["intervals"]
    text = read(bed)
    wanted: dict[str, list[tuple[bytes, int, int]]] = {part: [] for part in PARTS}
    with reading(bed, "a BED file of a chromosome, a start, an end and a split"):
        for line in text.splitlines():
            name, start, end, part = line.split(b"\t")
            short = part.decode().strip().replace("valid", "validation", 1)
            wanted[short].append((name, int(start), int(end)))

    def of(part: str) -> Iterator[Example]:
        whole = {name.partition(b" ")[0]: letters for name, letters in read_fasta(genome)}
        for name, start, end in wanted[part]:
            with reading(genome, f"the genome of {bed.name}"):
                letters = whole[name][start:end]
                if len(letters) < end - start:
                    raise EOFError(f"{name.decode()} has no {start} to {end}")
            yield {"name": b"%s:%d-%d" % (name, start, end), "sequence": letters}

    return {part: of(part) for part in PARTS}


def features() -> Mapping[str, Any]:
    from seqjax.data.records import tfds

    text = tfds().features.Text()
    return {"name": text, "sequence": text}


def _human(name: str, size: int | None) -> Layout:
    return Layout("chromosomes", {"genome": File(f"genome/{name}", size, UCSC)}, chromosomes)


GENOMES = (
    Dataset("ecoli", "E. coli K-12", "Blattner et al. 1997", "public domain", features,
            (Layout("full", {"genome": File("genome/ecoli.fa.gz", 1432602, ECOLI)},
                    one_sequence),), True),
    Dataset("hg38", "Human genome, GRCh38", "International Human Genome Consortium 2001",
            "public domain", features,
            (Layout("intervals", {"genome": File("genome/hg38.ml.fa.gz", None, BASENJI),
                                  "intervals": File("genome/human-sequences.bed", None, BASENJI)},
                    intervals),
             _human("hg38.fa.gz", 983659424), _human("hg38.fa", None)), True),
)  # fmt: skip
