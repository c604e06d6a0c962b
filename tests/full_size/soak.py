"""Sends requests of random sizes for a while and prints the server's memory over time.

    soak.py CLIPD DIRECTORY MINUTES      flags for the server, such as --device=openvino, in CLIPD_FLAGS

Every request has 1 to 4 inputs: pictures of 32 to 1100 pixels a side as JPEG, PNG or raw pixels, and texts of 1 to 100
words; some are classifications with label sets that were never seen. So batches have every number of rows and texts
every length. The label cache is small, to be full early. The last line compares the end with the state after a tenth
of the time.
"""

import io
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
from clip.v1 import clip_pb2 as pb
from PIL import Image
from server import Server

CLIENTS = 12
PICTURES = 60
# Reads of the memory that are averaged, so that what one batch needs does not count.
LAST = 6
WORDS = "red blue small old dog cat horse boat tree house on under near beside with and the a".split()


def main():
    binary, directory, minutes = sys.argv[1], sys.argv[2], float(sys.argv[3])
    pictures = [picture(random.Random(seed)) for seed in range(PICTURES)]
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--timeout=100s", "--label-cache-bytes=8000000", *os.environ.get("CLIPD_FLAGS", "").split()]
        server = Server(binary, Path(folder) / "log", f"--model={directory}", *flags)
        try:
            model = server.clip.GetModel(pb.GetModelRequest())
            print(f"{model.name} on {model.device} in {model.precision}; {memory(server):.1f} MiB when ready", flush=True)
            watch(server, pictures, 60 * minutes)
        finally:
            server.terminate()
            server.wait()


def watch(server, pictures, seconds):
    end = time.monotonic() + seconds
    answered, failed = [0] * CLIENTS, []

    def client(number):
        rng = random.Random(1000 + number)
        while time.monotonic() < end:
            try:
                send(server, rng, pictures)
                answered[number] += 1
            except grpc.RpcError as error:
                failed.append(error.code())

    threads = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    reads = []
    while time.monotonic() < end:
        time.sleep(seconds / 240)
        reads.append(memory(server))
        if len(reads) % 12 == 0:
            print(f"{len(reads) / 240:4.0%}  {sum(answered)} calls  {statistics.fmean(reads[-LAST:]):.1f} MiB", flush=True)
    for thread in threads:
        thread.join()
    warm, last = statistics.fmean(reads[24 : 24 + LAST]), statistics.fmean(reads[-LAST:])
    print(f"{sum(answered)} calls, {len(failed)} failed {sorted(set(map(str, failed)))}")
    print(f"warm {warm:.1f} MiB, at the end {last:.1f} MiB, {last / warm - 1:+.1%}; most {max(reads):.1f} MiB")


def send(server, rng, pictures):
    if rng.random() < 0.1:
        labels = sorted({text(rng, 6) for _ in range(20)})
        request = pb.ClassifyRequest(images=[rng.choice(pictures)], labels=labels)
        server.clip.Classify(request, timeout=100)
        return
    inputs = [one(rng, pictures) for _ in range(rng.randint(1, 4))]
    server.clip.Embed(pb.EmbedRequest(inputs=inputs), timeout=100)


def one(rng, pictures):
    if rng.random() < 0.5:
        return pb.Input(text=text(rng, 100))
    return pb.Input(image=rng.choice(pictures))


def text(rng, longest):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))


def picture(rng):
    width, height = rng.randint(32, 1100), rng.randint(32, 1100)
    noise = np.random.default_rng(rng.randint(0, 1 << 30)).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height))
    kind = rng.choice(["JPEG", "PNG", "raw"])
    if kind == "raw":
        return pb.Image(rgb=pb.RgbImage(width=width, height=height, pixels=image.tobytes()))
    file = io.BytesIO()
    image.save(file, kind)
    return pb.Image(encoded=file.getvalue())


def memory(server):
    """Resident, in MiB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
