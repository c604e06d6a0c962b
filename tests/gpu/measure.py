"""Prints what a GPU gives with clipd and with PyTorch, as Markdown.

    measure.py CLIPD DIRECTORY DEVICE

The model is ViT-B/16 with random weights. PyTorch is measured before and after clipd, so that a GPU which slows down
shows. `clipd bench` measures the engine by itself (rows/s by batch size, median of three rounds) and the server.
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
from safetensors.numpy import load_file
from server import Server

SECONDS = 3


def main():
    clipd, directory, device = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    small = device == "cpu"
    sizes = [1, 2] if small else [2**doublings for doublings in range(9)]
    arms = [("fp32", "off")] if small else [("fp32", "off"), ("fp32", "on"), ("fp16", "off"), ("fp16", "on")]
    model = open_clip.create_model("ViT-B-16", load_weights=False)
    kinds = ["eager"] if small else ["eager", "compiled"]

    before = {kind: torch_rates(model, kind, device, sizes) for kind in kinds}
    reports = {arm: bench(clipd, directory, device, arm, max(sizes), small) for arm in arms}
    after = {kind: torch_rates(model, kind, device, sizes) for kind in kinds}

    environment = reports[arms[0]]["environment"]
    print(f"{environment['model']} on {gpu(device)}, {environment['cores']} cores of {environment['cpu']}")
    print(f"{environment['engine']}, torch {torch.__version__}\n")
    print("| images/s of the engine alone, by batch size |", " | ".join(map(str, sizes)), "|")
    print("|---" * (len(sizes) + 1) + "|")
    precision = "fp32" if small else "fp16"
    for name, rates in [("before", before), ("after", after)]:
        for kind in kinds:
            row(f"torch {precision}, {kind}, {name}", [rates[kind][size] for size in sizes])
    for arm, report in reports.items():
        row(f"clipd {arm[0]}, CUDA graphs {arm[1]}", [engine_rate(report, size) for size in sizes])

    print("\n| server | images/s | of its engine | p50 alone, ms | added to a bare run, ms |")
    print("|---|---|---|---|---|")
    for arm, report in reports.items():
        ceiling = max(engine_rate(report, size) for size in sizes)
        for service in report["services"]:
            best = service["best_per_second"]
            alone = next(load for load in service["loads"] if load.get("concurrency") == 1)["latency_ms"]["p50"]
            # Null where there are too few to tell, as in a dry run.
            alone = float("nan") if alone is None else alone
            added = alone - 1e3 / engine_rate(report, 1)
            name = f"{arm[0]}, CUDA graphs {arm[1]}, {service['workload']}"
            print(f"| {name} | {best:.4g} | {best / ceiling:.2f} | {alone:.2f} | {added:.2f} |")

    print("\n| cosine to open_clip in fp32 | images: mean, min | texts: mean, min |")
    print("|---|---|---|")
    for arm in arms:
        images, texts = cosines(clipd, directory, device, arm)
        print(f"| {arm[0]} | {images.mean():.6f}, {images.min():.6f} | {texts.mean():.6f}, {texts.min():.6f} |")


def row(name, rates):
    print(f"| {name} |", " | ".join(f"{rate:.4g}" for rate in rates), "|", flush=True)


def gpu(device):
    return "the CPU" if device == "cpu" else torch.cuda.get_device_name(device)


def torch_rates(model, kind, device, sizes):
    """Images per second, from pixels on the device to embeddings on the host."""
    dtype = torch.float32 if device == "cpu" else torch.float16
    encode = model.to(device, dtype).eval().encode_image
    if kind == "compiled":
        encode = torch.compile(encode, mode="max-autotune")
    rates = {}
    with torch.inference_mode():
        for size in sizes:
            pixels = torch.rand(size, 3, 224, 224, device=device, dtype=dtype)
            for _ in range(3):
                encode(pixels).float().cpu()
            start, runs = time.perf_counter(), 0
            while time.perf_counter() < start + SECONDS:
                encode(pixels).float().cpu()
                runs += 1
            rates[size] = size * runs / (time.perf_counter() - start)
    return rates


def serve_flags(directory, device, arm):
    return [f"--model={directory}", f"--device={device}", f"--precision={arm[0]}", f"--cuda-graphs={arm[1]}"]


def bench(clipd, directory, device, arm, largest, small):
    duration, clients = ("2s", "1,2") if small else ("10s", "1,64,256,512")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command = [clipd, "bench", "--workload=rgb,images", "--mode=closed", f"--concurrency={clients}"]
        command += [f"--duration={duration}", "--warm-up=1s", f"--json={file}", "--", f"--max-batch-size={largest}"]
        subprocess.run(command + serve_flags(directory, device, arm), check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())


def engine_rate(report, size):
    points = report["ceiling"]["engine"]
    rates = [point["rows_per_second"]["median"] for point in points
             if point["modality"] == "image" and point["batch_size"] == size and point["layout"] == report["ceiling"]["layout"]]
    return rates[0] if rates else float("nan")


def cosines(clipd, directory, device, arm):
    reference = load_file(directory / "reference.safetensors")
    pictures = [pb.Input(image=pb.Image(encoded=path.read_bytes())) for path in sorted((directory / "pictures").iterdir())]
    texts = [pb.Input(text=text) for text in json.loads((directory / "texts.json").read_text())]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(clipd, Path(folder) / "log", "--timeout=300s", *serve_flags(directory, device, arm))
        try:
            return [cosine(server, inputs, reference[name])
                    for inputs, name in [(pictures, "images"), (texts, "texts")]]
        finally:
            server.terminate()
            server.wait()


def cosine(server, inputs, expected):
    results = server.clip.Embed(pb.EmbedRequest(inputs=inputs), timeout=300).results
    actual = np.array([result.embedding.values for result in results])
    actual /= np.linalg.norm(actual, axis=1, keepdims=True)
    return (actual * expected).sum(axis=1)


if __name__ == "__main__":
    main()
