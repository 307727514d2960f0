"""The tasks, by name.  `make("mqar", pairs=4)` builds one; names as in the table of systems."""

from collections.abc import Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Any

from seqjax.core.ranges import check_options
from seqjax.tasks.arrays import from_arrays
from seqjax.tasks.control import (
    rl_memory,
)
from seqjax.tasks.images import (
    bouncing_mnist,
    captions,
    digit_lines,
    gen_mnist,
    lra_image,
    moving_digits,
    npcifar,
    pathfinder,
    pendulum,
    smnist,
)
from seqjax.tasks.signals import (
    bidmc,
    forecasting,
    handwriting,
    har2,
    physionet,
    polyphonic,
    speech_commands,
    uea,
)
from seqjax.tasks.sources import from_batches, from_source
from seqjax.tasks.synthetic import (
    adding,
    associative_recall,
    bit_copy,
    bit_recall,
    capacity,
    composition,
    copy,
    counting,
    demand,
    dyck,
    dynamic_ngrams,
    graphs,
    induction_heads,
    letter_stream,
    listops,
    lstm_2b,
    mackey_glass,
    majority,
    modular_arithmetic,
    mqar,
    needle,
    phonebook,
    priority_sort,
    repeat_copy,
    reverse,
    selective_copy,
    state_tracking,
    string_copy,
)
from seqjax.tasks.task import (
    Batch,
    Classes,
    DataIterator,
    Entry,
    Features,
    Spec,
    Task,
    Tokens,
    Values,
)
from seqjax.tasks.texts import (
    babi,
    char_lm,
    dna,
    imdb,
    lra_retrieval,
    tagging,
    translation,
    word_lm,
)

__all__ = [
    "TASKS", "Batch", "Classes", "DataIterator", "Entry", "Features", "Spec", "Task", "Tokens",
    "Values", "check_task", "from_arrays", "from_batches", "from_source",
    "make",
]  # fmt: skip

TASKS: dict[str, Entry] = {
    # synthetic
    "adding": Entry(adding.adding, "Adding task", "1997", length=20),
    "copy": Entry(
        copy.copy, "Copy memory task",
        "1997", length=16, smoke=dict(symbols=4, memorised=4),
    ),
    "selective_copy": Entry(
        selective_copy.selective_copy, "Selective copying (denoise)",
        "1706.02761, 2312.00752", length=20, smoke=dict(symbols=4, memorised=4),
    ),
    "induction_heads": Entry(
        induction_heads.induction_heads, "Induction heads",
        "2209.11895", length=16, smoke=dict(vocabulary=8),
    ),
    "associative_recall": Entry(
        associative_recall.associative_recall, "Associative recall",
        "1610.06258", length=9, smoke=dict(keys=5, values=4),
    ),
    "mqar": Entry(
        mqar.mqar, "Multi-query associative recall",
        "2312.04927", length=16, smoke=dict(pairs=2, vocabulary=16),
    ),
    "needle": Entry(
        needle.needle, "Needle retrieval with distance control",
        "2606.06479", length=12, smoke=dict(elements=4),
    ),
    "state_tracking": Entry(
        state_tracking.state_tracking,
        "Parity, modular addition, permutation groups (S3, A5, S5), finite automata",
        "2404.08819, 2411.12537", length=16, smoke=dict(group="S3"),
    ),
    "dyck": Entry(
        dyck.dyck, "State tracking: Dyck-k, brackets of k kinds",
        "1911.03329, 2010.07515", length=16, smoke=dict(depth=3),
    ),
    "counting": Entry(
        counting.counting, "State tracking: a^n b^n and a^n b^n c^n",
        "Gers & Schmidhuber 2001", length=12,
    ),
    "modular_arithmetic": Entry(
        modular_arithmetic.modular_arithmetic,
        "State tracking: modular arithmetic, with brackets and without", "2207.02098", length=17,
    ),
    "capacity": Entry(
        capacity.capacity, "Capacity: a sliding window",
        "Voelker et al. 2019", length=12, smoke=dict(window=6, delays=3),
    ),
    "letter_stream": Entry(
        letter_stream.letter_stream, "Elman's letter stream and grammar: what comes next",
        "Elman 1990", length=20,
    ),
    "listops": Entry(
        listops.listops, "ListOps: the value of a long nested list",
        "2011.04006", length=24, smoke=dict(shortest=8, depth=4, arguments=4),
    ),
    "lstm_2b": Entry(
        lstm_2b.lstm_2b, "Task 2b: the first symbol after a long time",
        "1997", length=8, smoke=dict(inputs=4),
    ),
    "phonebook": Entry(
        phonebook.phonebook, "Phone-book look-up",
        "2402.01032", length=12, smoke=dict(names=5, digits=3),
    ),
    "string_copy": Entry(
        string_copy.string_copy, "Copying strings of any length",
        "2402.01032", length=12, smoke=dict(letters=4),
    ),
    "composition": Entry(
        composition.composition, "k-fold composition of functions",
        "2402.08164", length=15, smoke=dict(size=3),
    ),
    "mackey_glass": Entry(
        mackey_glass.mackey_glass, "Chaotic series: Mackey-Glass, Lorenz and others, and NARMA",
        "1977", length=16, smoke=dict(series="henon"),
    ),
    "demand": Entry(
        demand.demand, "Demand for many items: counts over magnitudes, forecast by sampling",
        "1704.04110", length=28,
    ),
    "majority": Entry(majority.majority, "Majority of the bits so far", "2009.11264", length=16),
    "reverse": Entry(
        reverse.reverse, "Reversal: a source and a target, a pair or one sequence",
        "1409.3215, 2207.06881", length=6, smoke=dict(vocabulary=4),
    ),
    "bit_copy": Entry(
        bit_copy.bit_copy, "Copy of a neural Turing machine: vectors of bits",
        "1410.5401", length=9, smoke=dict(bits=3),
    ),
    "repeat_copy": Entry(
        repeat_copy.repeat_copy, "Repeat copy: vectors of bits, so many times",
        "1410.5401", length=14, smoke=dict(bits=3, repeats=3),
    ),
    "bit_recall": Entry(
        bit_recall.bit_recall, "Associative recall of items: which one came next",
        "1410.5401", length=22, smoke=dict(bits=3, vectors=2),
    ),
    "dynamic_ngrams": Entry(
        dynamic_ngrams.dynamic_ngrams, "Dynamic N-grams: a table that is counted anew",
        "1410.5401", length=16, smoke=dict(order=3),
    ),
    "priority_sort": Entry(
        priority_sort.priority_sort, "Priority sort: the most urgent first",
        "1410.5401", length=10, smoke=dict(bits=3, answered=3),
    ),
    "graph_traversal": Entry(
        graphs.graph_traversal, "Graph traversal: the way that is described, as triples",
        "Nature 2016", length=14, smoke=dict(nodes=4, labels=4, path=2),
    ),
    "shortest_path": Entry(
        graphs.shortest_path, "Shortest paths in a graph of triples",
        "Nature 2016", length=14, smoke=dict(nodes=4, labels=4, path=2),
    ),
    # images
    "pathfinder": Entry(
        pathfinder.pathfinder, "Pathfinder and Path-X: are two dots connected",
        "2011.04006", length=256, smoke=dict(contour=3),
    ),
    "pendulum": Entry(
        pendulum.pendulum, "A pendulum in noisy frames at irregular times",
        "Becker et al. 2019, 2208.04933", length=12,
    ),
    "bouncing_mnist": Entry(
        bouncing_mnist.bouncing_mnist, "Bouncing digits: the next frame",
        "1502.04681, 1810.07411", length=8,
    ),
    "smnist": Entry(
        smnist.smnist, "sMNIST, psMNIST, row-wise: a digit by its pixels", "1504.00941",
    ),
    "lra_image": Entry(
        lra_image.lra_image, "LRA Image (sCIFAR): a photograph by its pixels", "2011.04006",
    ),
    "npcifar": Entry(
        npcifar.npcifar, "Noise-padded CIFAR: a photograph, then noise", "1902.09689", length=40,
    ),
    "gen_mnist": Entry(
        gen_mnist.gen_mnist, "Pixel-sequence generation", "1601.06759, 2606.06479",
        smoke=dict(levels=4),
    ),
    "moving_digits": Entry(
        moving_digits.moving_digits, "Moving digits: which way a video goes",
        "1411.4389", length=8,
    ),
    "digit_lines": Entry(
        digit_lines.digit_lines, "A line of digits, column by column: labels without alignment",
        "Graves et al. 2006", length=64,
    ),
    "captions": Entry(
        captions.captions, "One to many: a picture in, its name spelt out",
        "Karpathy & Fei-Fei 2015",
    ),
    # texts
    "char_lm": Entry(
        char_lm.char_lm, "Character and byte language modelling on any text",
        "many", length=32, smoke=dict(data=None, glob="json/*.py", held_out=5_000),
    ),
    "word_lm": Entry(word_lm.word_lm, "Word language modelling (PTB, WikiText)", "many", length=35),
    "imdb": Entry(imdb.imdb, "Sentiment of reviews, by words", "Maas et al. 2011", length=64),
    "lra_text": Entry(
        imdb.lra_text, "LRA Text: sentiment of reviews, by bytes", "2011.04006", length=128
    ),
    "lra_retrieval": Entry(
        lra_retrieval.lra_retrieval, "LRA Retrieval: are two papers related, by bytes",
        "2011.04006", length=65,
    ),
    "tagging": Entry(tagging.tagging, "Tagging of sequences: chunks (CoNLL-2000)", "1997"),
    "babi": Entry(babi.babi, "bAbI: questions on stories, of twenty kinds", "1502.05698"),
    "translation": Entry(
        translation.translation, "Translation, BLEU (Multi30k, IWSLT, WMT)", "many",
        length=24, smoke=dict(units="bytes"),
    ),
    "dna": Entry(dna.dna, "Nucleotide language modelling", "2306.15794", length=64),
    # signals
    "uea": Entry(
        uea.uea, "Classification of time series, UEA and UCR", "1811.00075, 1810.07758",
    ),
    "forecasting": Entry(
        forecasting.forecasting, "Long-horizon forecasting: ETT, weather and others",
        "2012.07436", length=8, smoke=dict(dataset="illness", horizon=3),
    ),
    "polyphonic": Entry(
        polyphonic.polyphonic, "Polyphonic music: 88 keys, frame by frame",
        "1206.6392, 1412.3555",
    ),
    "physionet": Entry(
        physionet.physionet, "Sepsis in intensive care: uneven times, missing numbers",
        "2005.08926",
    ),
    "har2": Entry(har2.har2, "HAR-2: what a person with a phone is doing", "2013, 1901.02358"),
    "bidmc": Entry(bidmc.bidmc, "BIDMC vital signs", "2006.10996"),
    "speech_commands": Entry(
        speech_commands.speech_commands, "Speech Commands: a spoken word, raw or MFCC",
        "1804.03209",
    ),
    "handwriting": Entry(
        handwriting.handwriting, "Handwriting and drawings: where the pen goes next",
        "1308.0850, 1704.03477",
    ),
    # control
    "rl_memory": Entry(
        rl_memory.rl_memory, "Control with memory: T-maze, masked CartPole, key and door, pairs",
        "Bakker 2001, 1707.06347", length=12, smoke=dict(size=2, limit=8, epochs=2),
    ),
}  # fmt: skip


def check_task(name: str, options: Mapping[str, Any]) -> None:
    """Raise unless there is a task `name` that takes such options."""
    if name not in TASKS:
        raise ValueError(f"no task {name!r}{_nearest(name, list(TASKS))}")
    build = TASKS[name].make
    known = list(signature(build).parameters)
    for option in options:
        if option not in known:
            raise TypeError(f"task {name} has no option {option!r}{_nearest(option, known)}")
    check_options(options, build, f"task {name}: ")


def make(name: str, **options: Any) -> Task:
    """Build the task `name`; unknown names and options are answered before anything runs."""
    check_task(name, options)
    return TASKS[name].make(**options)


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known)}" if known else "; it takes none"
