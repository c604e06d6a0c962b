"""Makes three data sets in clip_benchmark's layout from the pictures of tests/fixtures/zeroshot.

    python tests/eval/make_data.py OUT

    emoji     240 pictures (Noto and OpenMoji), 1,644 classes, 3 templates, two shards
    words     the same pictures with several labels each: the words of their names that three names have
    captions  the same pictures with two captions each, no two alike

Python's standard library is enough. tests/it/eval.rs makes the same ones.
"""

import io
import struct
import sys
import tarfile
from collections import Counter
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures/zeroshot"
TEMPLATES = ["an emoji of {c}", "a picture of a {c}", "{c}"]
CAPTIONS = {
    "noto": ["an emoji of {}", "{}"],
    "openmoji": ["a drawing of {}", "a picture of a {}"],
}
SHARD = 120


def npy(numbers: list[int]) -> bytes:
    """A row of int64, as numpy.save writes it."""
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({len(numbers)},), }}"
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + struct.pack(f"<{len(numbers)}q", *numbers)


def write(directory: Path, samples: list[tuple[bytes, str, bytes]], lists: dict[str, list[str]]) -> None:
    """Samples are a picture, the ending of its label, and the label."""
    split = directory / "test"
    split.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (directory / name).write_text("".join(line + "\n" for line in lines))
    shards = [samples[first : first + SHARD] for first in range(0, len(samples), SHARD)]
    (split / "nshards.txt").write_text(f"{len(shards)}\n")
    for number, shard in enumerate(shards):
        with tarfile.open(split / f"{number}.tar", "w") as archive:
            for index, (picture, ending, label) in enumerate(shard, number * SHARD):
                for name, content in ((f"s{index:07}.png", picture), (f"s{index:07}.{ending}", label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def main(out: Path) -> None:
    classes = (FIXTURES / "labels.txt").read_text().splitlines()
    rows = [line.split("\t") for line in (FIXTURES / "samples.tsv").read_text().splitlines()[1:]]
    pictures = [
        (vendor, int(index), name, (FIXTURES / vendor / f"{code}.png").read_bytes())
        for vendor in ("noto", "openmoji")
        for code, index, name in rows
    ]
    templates = {"zeroshot_classification_templates.txt": TEMPLATES}

    samples = [(picture, "cls", str(index).encode()) for _, index, _, picture in pictures]
    write(out / "emoji", samples, {"classnames.txt": classes, **templates})

    count = Counter(word for _, _, name in rows for word in set(name.split()))
    words = sorted(word for word, names in count.items() if names >= 3)
    samples = [
        (picture, "npy", npy([int(word in name.split()) for word in words])) for _, _, name, picture in pictures
    ]
    write(out / "words", samples, {"classnames.txt": words, "dataset_type.txt": ["multilabel"], **templates})

    samples = [
        (picture, "txt", "\n".join(caption.format(name) for caption in CAPTIONS[vendor]).encode())
        for vendor, _, name, picture in pictures
    ]
    write(out / "captions", samples, {"dataset_type.txt": ["retrieval"]})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
