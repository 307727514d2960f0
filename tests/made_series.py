"""Made-up files of series, music, strokes and people, as those of `made_files`."""

import gzip
import io
import json
import pickle
import wave

import numpy as np
from made_files import MADE, tarred, write, zipped

from seqjax.data import DATASETS
from seqjax.data.sets.har import SIGNALS
from seqjax.data.sets.physionet import COLUMNS

DATED = "date,HUFL,OT\n" + "".join(
    f"2016-07-01 {hour:02}:00:00,{5 + hour / 3:.12f},{30.531000137329 - hour}\n"
    for hour in range(24)
)
BARE = "".join(f"{0.7855 + n / 100:.6f},{1.611:.6f},{n % 3:.6f}\n" for n in range(20))


def series_file(name, text):
    def make(folder):
        content = text.encode()
        packed = gzip.compress(content) if name.endswith(".gz") else content
        write(folder / "forecasting" / name, packed)
        return {"series": 1}

    return make


CHORALES = {  # MIDI numbers of the keys of each frame, of each piece
    "train": [[[60, 72], [], [21]], [[108, 64, 67]]],
    "valid": [[[60], [61]]],
    "test": [[[50, 60, 70]], [[40]], [[41], [42]]],
}
COUNTS = {"train": 2, "validation": 1, "test": 3}


def rolls(pieces):
    """Cells of 0 and 1, as MATLAB has them."""
    cell = np.empty((1, len(pieces)), object)
    for i, piece in enumerate(pieces):
        cell[0, i] = np.array([[key in frame for key in range(21, 109)] for frame in piece], "u1")
    return cell


def music_mat(folder):
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, {f"{part}data": rolls(pieces) for part, pieces in CHORALES.items()},
            do_compression=True)  # fmt: skip
    write(folder / "polymusic/JSB_Chorales.mat", out.getvalue())
    return COUNTS


def music_pickle(folder):
    tuples = {part: [[tuple(f) for f in piece] for piece in ps] for part, ps in CHORALES.items()}
    write(folder / "polymusic/JSB Chorales.pickle", pickle.dumps(tuples, protocol=0))
    return COUNTS


def music_json(folder):
    write(folder / "polymusic/jsb-chorales-quarter.json", json.dumps(CHORALES).encode())
    return COUNTS


DRAWINGS = {
    "train": [[[0, 0, 0], [5, -3, 1], [2000, 4, 1]], [[1, 2, 1]]],
    "valid": [[[0, 7, 0], [1, 1, 1]]],
    "test": [[[3, 3, 1]], [[4, 4, 0], [5, 5, 1]], [[6, 6, 1]]],
}


def drawings(folder):
    out = io.BytesIO()
    arrays = {}
    for part, ones in DRAWINGS.items():
        arrays[part] = np.empty(len(ones), object)
        arrays[part][:] = [np.array(one, np.int16) for one in ones]
    np.savez_compressed(out, **arrays)
    write(folder / "sketchrnn/omniglot.npz", out.getvalue())
    return COUNTS


IAM_LISTS = {"train": "a01-000u\na01-000w\n", "testset_v": " a02-001\n", "testset_f": "b01-049z"}


def iam_line(points):
    strokes = "".join(
        "<Stroke colour='black' start_time='1' end_time='2'>"
        + "".join(f"<Point x='{x}' y='{y}' time='3.5'/>" for x, y in stroke)
        + "</Stroke>"
        for stroke in points
    )
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<WhiteboardCaptureSession><WhiteboardDescription><SensorLocation corner="top_left"/>
</WhiteboardDescription><StrokeSet>{strokes}</StrokeSet></WhiteboardCaptureSession>""".encode()


def iam(folder):
    line = iam_line([[(10, 20), (13, 18)], [(12, 30)]])
    names = ["a01/a01-000/a01-000u-01", "a01/a01-000/a01-000w-02", "a02/a02-001/a02-001c-01",
             "b01/b01-049/b01-049z-01", "h09/h09-999/h09-999z-01"]  # fmt: skip
    files = {f"lineStrokes/{name}.xml": line for name in names}
    write(folder / "iam-online/lineStrokes-all.tar.gz", tarred(files, "gz"))
    for part, forms in IAM_LISTS.items():
        name = "trainset" if part == "train" else part
        write(folder / f"iam-online/{name}.txt", forms.encode())
    return {"train": 2, "validation": 1, "test": 1}


PATIENTS = {  # hours of the stay, heart rates, temperatures, labels
    "A": [([1, 2, 3, 5], [80, None, None, 90.5], [None, None, 36.5, None], [0, 0, 0, 0]),
          ([4, 6], [None, None], [None, None], [0, 0])],
    "B": [([2, 72, 73], [100, 110, 120], [39, None, None], [0, 0, 1]),
          ([1], [70], [None], [0])],
}  # fmt: skip


def psv(hours, rates, temperatures, labels):
    """A patient of 50 years, of whom the first unit is known, and rates and temperatures."""
    lines = ["|".join(COLUMNS)]
    for hour, rate, temperature, label in zip(hours, rates, temperatures, labels):
        row = dict.fromkeys(COLUMNS, "NaN") | {
            "Age": "50.00", "Unit1": "1", "ICULOS": hour, "SepsisLabel": label, "HR": rate,
            "Temp": temperature,
        }  # fmt: skip
        lines.append("|".join("NaN" if v is None else str(v) for v in row.values()))
    return ("\n".join(lines) + "\n").encode()


def patients():
    return {
        f"training_set{hospital}/p{hospital}{n:05}.psv": psv(*one)
        for hospital, found in PATIENTS.items()
        for n, one in enumerate(4 * found)
    }


def sepsis_folders(folder):
    for name, content in patients().items():
        write(folder / "physionet2019" / name, content)
    return {"patients": 16}


def sepsis_zips(folder):
    for hospital in PATIENTS:
        files = {name: one for name, one in patients().items() if f"set{hospital}" in name}
        write(folder / f"physionet2019/training_set{hospital}.zip", zipped(files))
    return {"patients": 16}


def activities():
    """Rows of six and of three persons; the first number of each signal names row and signal."""
    files = {}
    for part, persons in (("train", [1, 1, 3, 5, 6, 7]), ("test", [2, 4, 4])):
        for n, name in enumerate(SIGNALS):
            rows = np.zeros((len(persons), 128)) + 0.5
            rows[:, 0] = 10 * np.arange(len(persons)) + n
            text = "\n".join("".join(f" {v: .7e}" for v in row) for row in rows)
            files[f"{part}/Inertial Signals/{name}_{part}.txt"] = f"{text}\n"
        files[f"{part}/y_{part}.txt"] = "".join(f"{1 + n % 6}\n" for n in range(len(persons)))
        files[f"{part}/subject_{part}.txt"] = "".join(f"{one}\n" for one in persons)
    return {f"UCI HAR Dataset/{name}": text.encode() for name, text in files.items()}


def har_folder(folder):
    for name, content in activities().items():
        write(folder / "har" / name, content)
    return {"train": 5, "validation": 1, "test": 3}


def har_zip(folder):
    write(folder / "har/UCI HAR Dataset.zip", zipped(activities()))
    return {"train": 5, "validation": 1, "test": 3}


def vital_signs(folder):
    head = "@problemName BIDMC32HR\n@timeStamps false\n@targetlabel true\n@data\n"
    for part, rows in (("TRAIN", 20), ("TEST", 3)):
        lines = [f"0.25,{n},0.5:1,{-n},2:{60 + n}.5" for n in range(rows)]
        name = f"BIDMC32HR_{part}.ts"
        write(folder / "ucr-uea/BIDMC32HR" / name, (head + "\n".join(lines)).encode())
    return {"train": 20, "test": 3}


def wav(sound, rate=16_000):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(sound, "<i2").tobytes())
    return out.getvalue()


def spoken():
    """Five recordings of three words, noise that is none, and the two lists."""
    names = ["yes/a_nohash_0.wav", "yes/b_nohash_0.wav", "no/a_nohash_1.wav", "bed/a_nohash_0.wav",
             "yes/c_nohash_0.wav", "_background_noise_/tap.wav"]  # fmt: skip
    files = {name: wav(100 * np.arange(1, 4 + n)) for n, name in enumerate(names)}
    lists = {"validation_list.txt": b"no/a_nohash_1.wav\n",
             "testing_list.txt": b"yes/c_nohash_0.wav\n"}  # fmt: skip
    return files | lists


def speech_folder(folder):
    for name, content in spoken().items():
        write(folder / "speech_commands" / name, content)
    return {"train": 3, "validation": 1, "test": 1}


def speech_archive(folder):
    files = {f"./{name}": content for name, content in spoken().items()}
    write(folder / "speech_commands/speech_commands_v0.02.tar.gz", tarred(files, "gz"))
    return {"train": 3, "validation": 1, "test": 1}


def commands_folder(folder):
    speech_folder(folder)
    (folder / "speech_commands/_background_noise_/tap.wav").unlink()
    (folder / "speech_commands/bed/a_nohash_0.wav").unlink()
    return {"train": 2, "validation": 1, "test": 1}


MADE_SERIES = {
    ("etth1", "csv_gz"): series_file("ETTh1.csv.gz", DATED),
    ("weather", "csv"): series_file("weather.csv", DATED),
    ("exchange", "txt_gz"): series_file("exchange_rate.txt.gz", BARE),
    ("electricity", "csv"): series_file("electricity.csv", DATED),
    ("jsb", "mat"): music_mat,
    ("jsb", "pickle"): music_pickle,
    ("jsb", "json"): music_json,
    ("omniglot", "sketch_rnn"): drawings,
    ("iam_online", "archive"): iam,
    ("speech_commands", "archive"): speech_archive,
    ("sc10", "folder"): commands_folder,
    ("physionet_sepsis", "folders"): sepsis_folders,
    ("physionet_sepsis", "zips"): sepsis_zips,
    ("har", "folder"): har_folder,
    ("har", "zip"): har_zip,
    ("uea_bidmc32hr", "folder"): vital_signs,
}


def prepares(folder, monkeypatch):
    """What writes the files of a dataset there; what is prepared goes beside them."""
    monkeypatch.setenv("SEQJAX_DATA", str(folder))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "prepared"))
    return lambda *row: (MADE | MADE_SERIES)[row](folder)


def raw(dataset):
    """The examples of the raw files that are here, by split."""
    layout, paths = DATASETS[dataset].find()
    return {split: list(rows) for split, rows in layout.examples(paths).items()}
