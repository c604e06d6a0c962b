"""Calibrates a model directory made by make.py, and compares the server's answers in 8 bits with open_clip's.

    int8.py CLIPD DIRECTORY

It draws 300 pictures to calibrate with and 200 others to compare: drawn, one colour, dark, bright, and noise, 40 of
each; and as many texts. Prints what calibrating took, and for bf16 and int8 the cosine to open_clip in fp32: mean and
smallest, and behind each the same after the mean of the reference was taken off both.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from clip.v1 import clip_pb2 as pb
from compare import embed
from make import WORDS
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import load_file
from server import Server

CALIBRATED, COMPARED = 300, 200
KINDS = ["drawn", "one colour", "dark", "bright", "noise"]


def main():
    binary, directory = sys.argv[1], Path(sys.argv[2])
    calibration = directory / "clipd_int8.json"
    calibration.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        seen, others = folder / "seen", folder / "others"
        draw(seen, CALIBRATED, 5)
        draw(others, COMPARED, 6)
        texts = folder / "texts.txt"
        texts.write_text("\n".join(sentences(CALIBRATED, 7)))
        began = time.monotonic()
        command = [binary, "--log=warn", "calibrate", "--model", directory, "--images", seen, "--texts", texts]
        subprocess.run(command, check=True)
        print(f"{directory.name}: calibrated in {time.monotonic() - began:.0f} s, {calibration.stat().st_size} bytes")
        pictures, words = sorted(others.iterdir()), sentences(COMPARED, 8)
        expected = reference(directory, pictures, words)
        print("| precision | inputs | mean | min | centred mean | min |")
        print("|---|---|---|---|---|---|")
        for precision in ["bf16", "int8"]:
            actual = served(binary, directory, precision, pictures, words, folder / "log")
            for kind, (ours, theirs) in zip(["pictures", "texts"], zip(actual, expected)):
                mean = theirs.mean(axis=0)
                row(precision, kind, cosines(ours, theirs), cosines(ours - mean, theirs - mean))
                if kind == "pictures" and precision == "int8":
                    for number, name in enumerate(KINDS):
                        part = cosines(ours[number :: len(KINDS)], theirs[number :: len(KINDS)])
                        row(precision, name, part, None)


def row(precision, inputs, plain, centred):
    cells = [f"{value:.6f}" for each in [plain, centred] if each is not None for value in (each.mean(), each.min())]
    print(f"| {precision} | {inputs} | {' | '.join(cells)} |", flush=True)


def cosines(a, b):
    return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def served(binary, directory, precision, pictures, texts, log):
    flags = ["--device=openvino", f"--precision={precision}", f"--model={directory}", "--timeout=100s"]
    server = Server(binary, log, *flags)
    try:
        images = [pb.Input(image=pb.Image(encoded=picture.read_bytes())) for picture in pictures]
        return embed(server, images), embed(server, [pb.Input(text=text) for text in texts])
    finally:
        server.terminate()
        server.wait()


def reference(directory, pictures, texts):
    config = json.loads((directory / "open_clip_config.json").read_text())
    model = open_clip.CLIP(**config["model_cfg"]).eval()
    model.load_state_dict(load_file(directory / "open_clip_model.safetensors"))
    preprocess = image_transform(model.visual.image_size, is_train=False, **config["preprocess_cfg"])
    with torch.no_grad():
        images = [model.encode_image(preprocess(Image.open(picture))[None]) for picture in pictures]
        embedded = [model.encode_text(SimpleTokenizer()([text])) for text in texts]
    return [torch.nn.functional.normalize(torch.cat(each), dim=-1).numpy() for each in [images, embedded]]


def draw(directory, count, seed):
    directory.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        width, height = (int(side) for side in random.integers(200, 500, 2))
        coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
        pixels = {
            "drawn": lambda: smooth,
            "one colour": lambda: np.broadcast_to(random.integers(0, 256, 3), (height, width, 3)),
            "dark": lambda: smooth * 0.15,
            "bright": lambda: 255 - (255 - smooth) * 0.15,
            "noise": lambda: random.integers(0, 256, (height, width, 3)),
        }[KINDS[number % len(KINDS)]]()
        Image.fromarray(pixels.astype(np.uint8)).save(directory / f"{number:03}.png")


def sentences(count, seed):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, int(random.integers(2, 30)))) for _ in range(count)]


if __name__ == "__main__":
    main()
