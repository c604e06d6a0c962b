"""Compares JPEG to model input, as clipd makes it, with libjpeg-turbo doing nothing but decode. One core each.

    pip install numpy==2.4.6 simplejpeg==1.9.0     # simplejpeg brings libjpeg-turbo 3.1.2
    python tests/bench/libjpeg_turbo.py [ROUNDS]

The two take turns; times are CPU time, the median of a round, and of the rounds the median with the least and the
most. libjpeg-turbo decodes to RGB as Pillow has it do, into memory that is new each time (as in clipd, and as in
Python), and into memory that is kept.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy
import simplejpeg

ROOT = Path(__file__).parents[2]
BENCHMARK = ["cargo", "bench", "--quiet", "--bench", "batching", "--", "pictures"]
PICTURES = {
    "500 x 375": ROOT / "src/bench/pictures/0.jpg",
    # Made by the benchmark.
    "4000 x 3000": ROOT / "target/tmp/mosaic.jpg",
}
SPAN = 1.5


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    times = {name: {"clipd": [], "new memory": [], "kept memory": []} for name in PICTURES}
    for _ in range(rounds):
        for name, milliseconds in clipd().items():
            times[name]["clipd"].append(milliseconds)
        for name, path in PICTURES.items():
            jpeg = path.read_bytes()
            kept = numpy.empty_like(simplejpeg.decode_jpeg(jpeg))
            times[name]["new memory"].append(median(lambda: simplejpeg.decode_jpeg(jpeg)))
            times[name]["kept memory"].append(median(lambda: simplejpeg.decode_jpeg(jpeg, buffer=kept)))
    print("| picture | clipd, JPEG to input, ms | libjpeg-turbo, decoding alone, ms | of its speed |")
    print("|---|---|---|---|")
    for name, of in times.items():
        for memory in ("new memory", "kept memory"):
            ratio = spread([theirs / ours for theirs, ours in zip(of[memory], of["clipd"])])
            print(f"| {name} | {spread(of['clipd'])} | {spread(of[memory])}, {memory} | {ratio} |")


def clipd():
    """Milliseconds from JPEG to input, by picture."""
    report = subprocess.run(BENCHMARK, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rows = (line.strip("| ").split(" | ") for line in report.splitlines())
    return {row[0]: float(row[1]) for row in rows if row[0] in PICTURES}


def median(decode):
    times = []
    end = time.thread_time() + SPAN
    while time.thread_time() < end:
        start = time.thread_time()
        decode()
        times.append(time.thread_time() - start)
    return statistics.median(times) * 1000


def spread(numbers):
    return f"{statistics.median(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


if __name__ == "__main__":
    main()
