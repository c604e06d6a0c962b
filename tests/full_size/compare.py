"""Serves model directories made by make.py and prints a table of how close the answers are to the reference.

    compare.py CLIPD DIRECTORY...      flags for the server, such as --device=openvino, in CLIPD_FLAGS

Every row has the smallest cosine of 64 images and 64 texts, and the same after the mean of the reference was
taken off both: random weights give all inputs much the same direction, which flatters the plain cosine.
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
    print("| model | engine | ready after | peak memory | images: min cosine, centred | texts: min cosine, centred |")
    print("|---|---|---|---|---|---|")
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
    image, text = cosines(images, reference["images"]), cosines(embedded, reference["texts"])
    print(f"| {directory.name} | {model.engine}, {model.device}, {model.precision} | {seconds:.1f} s | {peak:.2f} GB "
          f"| {image[0]:.6f}, {image[1]:.6f} | {text[0]:.6f}, {text[1]:.6f} |", flush=True)
    return min(*image, *text)


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
