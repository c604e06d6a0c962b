"""Prints what a GPU gives with clipd and with PyTorch, as Markdown.

    measure.py CLIPD DIRECTORY DEVICE

The model is ViT-B/16 with random weights. PyTorch is measured before and after everything else, so that a GPU which
slows down shows. A part that fails says so in its place, and the others go on.
"""

import json
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import open_clip
import torch  # Before onnxruntime: it brings CUDA's libraries.
from clip.v1 import clip_pb2 as pb
from kernels import Kernels, export
from rates import rate
from safetensors.numpy import load_file
from server import Server

# Of the service: how many callers wait for their answers.
CALLERS = "1,64,256,512"


class Measurement:
    def __init__(self, clipd, directory, device):
        self.clipd, self.directory, self.device = clipd, directory, device
        self.small = device == "cpu"
        self.sizes = [1, 2] if self.small else [1, 8, 64, 256]
        self.reference = load_file(directory / "reference.safetensors")
        self.model = open_clip.create_model("ViT-B-16", load_weights=False)
        # The checkpoint's own weights, so that embeddings can be compared.
        self.model.load_state_dict({name: torch.from_numpy(value) for name, value in
                                    load_file(directory / "open_clip_model.safetensors").items()})
        self.start, self.failures = time.monotonic(), 0

    def run(self):
        print(f"{gpu(self.device)}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}", flush=True)
        self.heading("kernels alone: images/s by batch size", [*map(str, self.sizes), "1 - cosine, worst of 8"])
        self.part(self.torch, "eager")
        self.part(self.kernels)
        self.part(self.torch, "compiled")
        self.part(self.torch, "eager")
        self.part(self.services)
        self.part(self.cosines)
        self.part(self.texts)
        print(f"\n{time.monotonic() - self.start:.0f} s")

    def part(self, measure, *arguments):
        try:
            measure(*arguments)
        except Exception:
            self.failures += 1
            print(f"{measure.__name__} failed:\n{traceback.format_exc()}", flush=True)

    def heading(self, what, columns):
        print(f"\n| {what} | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|", flush=True)

    def torch(self, kind):
        """From pixels on the device to embeddings on the host."""
        dtype = torch.float32 if self.small else torch.float16
        encode = self.model.to(self.device, dtype).eval().encode_image
        sizes = self.sizes
        if kind == "compiled":
            encode = torch.compile(encode, mode="reduce-overhead", dynamic=False)
            # Half a minute each.
            sizes = [] if self.small else [1, 64]
        cells = []
        with torch.inference_mode():
            for size in self.sizes:
                pixels = torch.rand(size, 3, 224, 224, device=self.device, dtype=dtype)
                cells.append(rate(lambda: encode(pixels).float().cpu(), size) if size in sizes else "")
        row(f"torch {str(dtype).split('.')[-1]}, {kind}", [*cells, ""])

    def kernels(self):
        rng = np.random.default_rng(7)
        seen = rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
        normalise = open_clip.transform.Normalize(*[getattr(self.model.visual, f"image_{key}") for key in ("mean", "std")])
        with torch.inference_mode():
            pixels = normalise(torch.from_numpy(seen).permute(0, 3, 1, 2) / 255)
            expected = self.model.float().to(self.device).encode_image(pixels.to(self.device)).cpu().numpy()
        precisions = ["fp32"] if self.small else ["fp16", "fp32"]
        arms = [(precision, "fused", {}) for precision in precisions]
        arms += [(precisions[0], "standard", {})]
        if not self.small:
            # Numbers of ONNX Runtime's option: which kernels attention may take.
            arms += [("fp16", "fused", {"sdpa_kernel": number}) for number in (1, 2, 8)]
            arms += [("fp16", "fused", {"enable_cuda_graph": 0})]
        for precision, operators, options in arms:
            with tempfile.TemporaryDirectory() as folder:
                graph = export(self.clipd, self.directory, folder, precision, operators)
                kernels = Kernels(graph / "image.onnx", self.device, options)
            cells = [kernels.rate(rng.integers(0, 256, (size, 224, 224, 3), dtype=np.uint8)) for size in self.sizes]
            apart = f"{1 - cosine(kernels.embed(seen), expected).min():.1e}"
            words = {1: "flash", 2: "memory efficient", 8: "cuDNN"}
            notes = [f"attention {words[value]}" if key == "sdpa_kernel" else "no CUDA graphs" for key, value in options.items()]
            row(", ".join([f"clipd {precision}", operators, *notes]), [*cells, apart])
            del kernels

    def services(self):
        duration, callers = ("2s", "1,2") if self.small else ("4s", CALLERS)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "report.json"
            command = [self.clipd, "bench", "--workload=rgb,images,texts", "--mode=closed", f"--concurrency={callers}"]
            command += [f"--duration={duration}", "--warm-up=1s", "--connections=8", f"--json={file}", "--"]
            subprocess.run(command + self.flags(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            report = json.loads(file.read_text())
        environment, ceiling = report["environment"], report["ceiling"]
        print(f"\n{environment['engine']} in {environment['precision']}, {environment['cores']} cores of {environment['cpu']}")
        points = [point for point in ceiling["engine"] if point["layout"] == ceiling["layout"] and point["modality"] == "image"]
        self.heading("engine with assembly, by batch size", [str(point["batch_size"]) for point in points])
        row("clipd", [point["rows_per_second"]["median"] for point in points])
        self.heading("gRPC, one input a call, by callers", [*callers.split(","), "p50 of one, ms", "server CPU s/1000"])
        for service in report["services"]:
            loads = [load for load in service["loads"] if "concurrency" in load]
            alone = loads[0]["latency_ms"]["p50"]
            busiest = max(loads, key=lambda load: load["answered_per_second"])
            cpu = (busiest["server"] or {}).get("cpu_seconds")
            answers = busiest["answered_per_second"] * busiest["seconds"]
            known = ["" if alone is None else f"{alone:.2f}", "" if cpu is None else f"{1e3 * cpu / answers:.2f}"]
            row(service["workload"], [*(load["answered_per_second"] for load in loads), *known])

    def cosines(self):
        self.heading("served, cosine to open_clip in fp32", ["images: mean, min", "texts: mean, min", "GPU memory"])
        for precision in ["fp32"] if self.small else ["fp16", "fp32"]:
            with tempfile.TemporaryDirectory() as folder:
                flags = [*self.flags(), "--timeout=300s", f"--precision={precision}"]
                server = Server(self.clipd, Path(folder) / "log", *flags)
                try:
                    pictures = sorted((self.directory / "pictures").iterdir())
                    images = served(server, [pb.Input(image=pb.Image(encoded=path.read_bytes())) for path in pictures])
                    captions = json.loads((self.directory / "texts.json").read_text())
                    texts = served(server, [pb.Input(text=text) for text in captions])
                    memory = gpu_memory(self.device, server.pid)
                finally:
                    server.terminate()
                    server.wait()
            pairs = [(images, self.reference["images"]), (texts, self.reference["texts"])]
            cells = [f"{each.mean():.6f}, {each.min():.6f}" for each in (cosine(*pair) for pair in pairs)]
            row(precision, [*cells, memory])

    def texts(self):
        """Captions of 16 tokens, and whole contexts."""
        sizes = [1, 2] if self.small else [1, 16, 64, 256]
        precision = "fp32" if self.small else "fp16"
        self.heading("kernels alone: texts/s by batch size", [*map(str, sizes)])
        rng = np.random.default_rng(8)
        with tempfile.TemporaryDirectory() as folder:
            graph = export(self.clipd, self.directory, folder, precision, "fused")
            kernels = Kernels(graph / "text.onnx", self.device, {})
        encode = self.model.to(self.device, torch.float32 if self.small else torch.float16).encode_text
        for length in (16, 77):
            tokens = {size: captions(rng, size, length) for size in sizes}
            row(f"clipd {precision}, {length} tokens", [kernels.rate(tokens[size]) for size in sizes])
            if length == 77:
                with torch.inference_mode():
                    on_device = {size: torch.from_numpy(rows).to(self.device) for size, rows in tokens.items()}
                    cells = [rate(lambda: encode(on_device[size]).float().cpu(), size) for size in sizes]
                row(f"torch {precision}, {length} tokens", cells)

    def flags(self):
        largest = ["--max-batch-size=2"] if self.small else []
        return [f"--model={self.directory}", f"--device={self.device}", *largest]


def served(server, inputs):
    results = server.clip.Embed(pb.EmbedRequest(inputs=inputs), timeout=300).results
    return np.array([result.embedding.values for result in results])


def row(name, cells):
    """Rates have five digits; what is empty is not known."""
    print(f"| {' | '.join([name, *(f'{cell:.5g}' if isinstance(cell, float) else cell for cell in cells)])} |", flush=True)


def captions(rng, rows, length):
    """Each with its end token last, so that all of them are of this length."""
    tokens = rng.integers(1, 49000, (rows, length))
    tokens[:, 0], tokens[:, -1] = 49406, 49407
    return tokens


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def gpu(device):
    return "the CPU" if device == "cpu" else torch.cuda.get_device_name(device)


def gpu_memory(device, pid):
    if device == "cpu":
        return ""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader"]
    lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
    return next((line.split(",")[1].strip() for line in lines if line.startswith(str(pid))), "not told")


if __name__ == "__main__":
    measurement = Measurement(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    measurement.run()
    sys.exit(measurement.failures)
