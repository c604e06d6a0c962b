"""Pictures per second of clipd and of a server written by hand, in turns, with the cosine to open_clip beside them.

    peer.py CLIPD SERVER.py DIRECTORY      see `peer`

All servers run from the beginning to the end and only one is sent requests at a time: JPEG pictures of 500 x 375, one a
request, from clients that wait for each answer. The server written by hand is measured at several numbers of clients,
of which the best counts; clipd at one. The cosine is to open_clip in fp32, from the pictures' bytes on.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import open_clip
import torch
from clip.v1 import clip_pb2 as pb
from PIL import Image
from safetensors.torch import load_file
from server import Server

ROUNDS = 3
SECONDS = 6
HAND_CLIENTS = (1, 2, 4)
CLIPD_CLIENTS = 16
PICTURES = sorted(Path("src/bench/pictures").glob("*.jpg"))


def main():
    clipd, script, directory = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    pictures = [path.read_bytes() for path in PICTURES]
    expected = reference(directory / "open_clip_model.safetensors", pictures)
    with tempfile.TemporaryDirectory() as folder:
        arms = []
        try:
            for mode in ("def", "async"):
                for bf16 in ("0", "1"):
                    arms.append(Hand(script, directory, Path(folder), mode, bf16))
            for name, flags in {
                "clipd": [],
                "clipd --precision fp32": ["--precision=fp32"],
                "clipd --device cpu": ["--device=cpu"],
            }.items():
                arms.append(Clipd(name, clipd, directory, Path(folder), flags))
            for arm in arms:
                arm.cosines = [cosine(arm.embed(picture), row) for picture, row in zip(pictures, expected)]
            for _ in range(ROUNDS):
                for arm in arms:
                    for clients, rates in arm.rates.items():
                        rates.append(rate(arm, clients, pictures))
        finally:
            for arm in arms:
                arm.stop()
    report(arms)


def report(arms):
    def best(arm):
        return max(arm.rates.values(), key=statistics.median)

    base = {bf16: max(statistics.median(best(arm)) for arm in arms if isinstance(arm, Hand) and arm.bf16 == bf16) for bf16 in "01"}
    print(f"{ROUNDS} rounds of {SECONDS} s in turns, images/s: median (least to most)")
    print("| server | images/s | of the best fp32 by hand | of the best bf16 by hand | cosine to open_clip, mean, min |")
    print("|---|---|---|---|---|")
    for arm in arms:
        rates = best(arm)
        middle = statistics.median(rates)
        ratios = " | ".join(f"{middle / base[bf16]:.2f}" for bf16 in "01")
        fidelity = f"{statistics.fmean(arm.cosines):.6f}, {min(arm.cosines):.6f}"
        print(f"| {arm.name} | {middle:.2f} ({min(rates):.2f} to {max(rates):.2f}) | {ratios} | {fidelity} |")


class Hand:
    def __init__(self, script, directory, folder, mode, bf16):
        self.name = f"by hand, {mode}, {'bf16' if bf16 == '1' else 'fp32'}"
        self.bf16 = bf16
        self.rates = {clients: [] for clients in HAND_CLIENTS}
        weights = str(directory / "open_clip_model.safetensors")
        environment = {**os.environ, "PEERS_WEIGHTS": str(Path(weights).resolve()), "BASE_MODE": mode, "BASE_BF16": bf16}
        log = folder / f"{mode}-{bf16}.log"
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", f"{script.stem}:app", "--host=127.0.0.1", "--port=0"],
                cwd=script.parent, env=environment, stderr=file, stdout=file,
            )
        self.url = self._url(log)

    def _url(self, log):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in log.read_text().splitlines():
                if "running on " in line:
                    return line.split("running on ")[1].split()[0] + "/image"
            time.sleep(0.1)
        raise SystemExit(f"{self.name} did not start: {log.read_text()}")

    def embed(self, picture):
        boundary = "picture-boundary"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        body = head.encode() + picture + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        with urllib.request.urlopen(urllib.request.Request(self.url, body, headers), timeout=100) as response:
            # A JSON parser is not what is compared: numbers between brackets.
            text = response.read().decode()
        return np.array([float(number) for number in text[text.index("[") + 1 : text.index("]")].split(",")])

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Clipd:
    def __init__(self, name, binary, directory, folder, flags):
        self.rates = {CLIPD_CLIENTS: []}
        self.server = Server(binary, folder / name.replace(" ", "-"), f"--model={directory}", *flags)
        model = self.server.clip.GetModel(pb.GetModelRequest())
        self.name = f"{name} ({model.device} {model.precision})"

    def embed(self, picture):
        request = pb.EmbedRequest(inputs=[pb.Input(image=pb.Image(encoded=picture))])
        (result,) = self.server.clip.Embed(request, timeout=100).results
        return np.array(result.embedding.values)

    def stop(self):
        self.server.terminate()
        self.server.wait()


def rate(arm, clients, pictures):
    """Answers per second from `clients` clients."""
    answered = [0] * clients
    began = time.monotonic()

    def client(number):
        while time.monotonic() < began + SECONDS:
            arm.embed(pictures[(number + answered[number]) % len(pictures)])
            answered[number] += 1

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered) / (time.monotonic() - began)


def reference(weights, pictures):
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-16")
    model.load_state_dict(load_file(weights))
    model.eval()
    inputs = torch.stack([preprocess(Image.open(io.BytesIO(picture))) for picture in pictures])
    with torch.inference_mode():
        return model.encode_image(inputs).numpy()


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


if __name__ == "__main__":
    main()
