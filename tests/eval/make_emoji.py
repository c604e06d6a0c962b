"""Makes a fourth data set in clip_benchmark's layout: all emoji but flags, as Noto and OpenMoji draw them.

    npm install --prefix WORK --no-save emojibase-data@17.0.0 emoji-datasource-google@16.0.0 openmoji@17.0.0
    python tests/eval/make_emoji.py WORK OUT

    every     some 3,200 pictures, 1,644 classes and the templates of make_data.py

Noto Emoji is Apache-2.0, OpenMoji CC BY-SA 4.0, emojibase MIT: the pictures stay where they are made. OpenMoji is a style
that the embedded model has never seen; Noto is one that it was trained on.
"""

import io
import json
import sys
from pathlib import Path

import resvg_py
from make_data import FIXTURES, TEMPLATES, write
from PIL import Image

SIDE = 72


def key(hexcode: str) -> str:
    """Vendors differ in case and in the selector of colour."""
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")


def png(picture: Image.Image) -> bytes:
    """On white: a model would not see alpha."""
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture.convert("RGBA"))
    out = io.BytesIO()
    page.convert("RGB").save(out, "png")
    return out.getvalue()


def noto(path: Path) -> bytes:
    return png(Image.open(path))


def openmoji(path: Path) -> bytes:
    return png(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=SIDE, height=SIDE)))))


def main(work: Path, out: Path) -> None:
    modules = work / "node_modules"
    classes = (FIXTURES / "labels.txt").read_text().splitlines()
    position = {name: index for index, name in enumerate(classes)}
    emoji = json.loads((modules / "emojibase-data/en/data.json").read_text())
    class_of = {key(one["hexcode"]): position.get(one["label"].lower()) for one in emoji}
    samples = []
    for folder, ending, draw in (
        (modules / "emoji-datasource-google/img/google/64", "png", noto),
        (modules / "openmoji/color/svg", "svg", openmoji),
    ):
        for path in sorted(folder.glob(f"*.{ending}")):
            index = class_of.get(key(path.stem))
            if index is not None:
                samples.append((draw(path), "cls", str(index).encode()))
    lists = {"classnames.txt": classes, "zeroshot_classification_templates.txt": TEMPLATES}
    write(out / "every", samples, lists)
    print(f"{len(samples)} pictures")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
