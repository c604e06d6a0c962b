"""Serves model directories made by make.py and prints a table of how close the answers are to the reference.

    compare.py CLIPD DIRECTORY...      flags for the server, such as --device=openvino, in CLIPD_FLAGS

Every row has the smallest cosine of 32 PNG and 32 JPEG images and 64 texts, and behind it the same after the
mean of the reference was taken off both: random weights give all inputs much the same direction, which flatters
the plain cosine. JPEG decoders differ by a rounding, and that shows in the images.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from clip.v1 import clip_pb2 as pb
from safetensors.numpy import load_file
from server import Server

FLOOR = 0.9999


def main():
    binary, *directories = sys.argv[1:]
    print("| model | engine | ready after | peak memory | PNG | JPEG | texts |")
    print("|---|---|---|---|---|---|---|")
    worst = min(row(binary, Path(directory)) for directory in directories)
    sys.exit(0 if worst >= FLOOR else f"the smallest cosine is below {FLOOR}")


def row(binary, directory):
    reference = load_file(directory / "reference.safetensors")
    pictures = [path.read_bytes() for path in sorted((directory / "pictures").iterdir())]
    texts = json.loads((directory / "texts.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        flags = os.environ.get("CLIPD_FLAGS", "").split()
        server = Server(binary, Path(folder) / "log", f"--model={directory}", "--timeout=100s", *flags)
        seconds = time.monotonic() - began
        try:
            model = server.clip.GetModel(pb.GetModelRequest())
            images = embed(server, [pb.Input(image=pb.Image(encoded=picture)) for picture in pictures])
            embedded = embed(server, [pb.Input(text=text) for text in texts])
            peak = peak_memory(server)
        finally:
            server.terminate()
            server.wait()
    # make.py draws them in turns.
    kinds = [(images[first::2], reference["images"][first::2]) for first in range(2)]
    plain, centred = zip(*(cosines(*pair) for pair in [*kinds, (embedded, reference["texts"])]))
    cells = [directory.name, f"{model.engine}, {model.device}, {model.precision}", f"{seconds:.1f} s", f"{peak:.2f} GB"]
    cells += [f"{a:.6f}, {b:.6f}" for a, b in zip(plain, centred)]
    print(f"| {' | '.join(cells)} |", flush=True)
    return min(plain)


def embed(server, inputs):
    results = []
    for start in range(0, len(inputs), 8):
        request = pb.EmbedRequest(inputs=inputs[start : start + 8])
        results += server.clip.Embed(request, timeout=100).results
    errors = [result.error for result in results if result.HasField("error")]
    assert not errors, errors
    return np.array([result.embedding.values for result in results])


def cosines(ours, reference):
    """The smallest, plain and centred."""
    mean = reference.mean(axis=0)
    return cosine(ours, reference), cosine(ours - mean, reference - mean)


def cosine(a, b):
    return float((np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def peak_memory(server):
    """Of the process, in GB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    main()
