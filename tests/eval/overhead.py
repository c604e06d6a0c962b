"""What `clipd eval` takes beyond embedding, as a share of it.

    python tests/eval/overhead.py CLIPD DATA [MODEL]

DATA is a data set in clip_benchmark's layout, with a class for each picture; MODEL a model directory, or else the
embedded model. What goes before the line that announces the embedding (start, looking through the data), and what
follows the last line of its progress (scores, figures, intervals, reports), is beyond it.
"""

import statistics
import subprocess
import sys
import tempfile
import time

from judge import served

ROUNDS = 10


def parts(command: list[str]) -> tuple[float, float, float]:
    """Seconds before, of and after the embedding."""
    times = [time.monotonic()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        for line in run.stderr:
            if "MB of embeddings" in line or " of " in line:
                times.append(time.monotonic())
    times.append(time.monotonic())
    assert run.returncode == 0
    return times[1] - times[0], times[-2] - times[1], times[-1] - times[-2]


def main(clipd: str, data: str, *model: str) -> None:
    flags = [f"--model={directory}" for directory in model]
    with tempfile.TemporaryDirectory() as home, served(clipd, *flags) as address:
        command = [clipd, "eval", "zeroshot", data, "--addr", address, "--json", f"{home}/figures.json"]
        arms = {"--json": command, "--json --lines --html": [*command, f"--lines={home}/l", f"--html={home}/h"]}
        rounds = [{arm: parts(command) for arm, command in arms.items()} for _ in range(1 if model else ROUNDS)]
    for arm in arms:
        before, embedding, after = (statistics.median(part) for part in zip(*(one[arm] for one in rounds)))
        share = statistics.median((one[arm][0] + one[arm][2]) / one[arm][1] for one in rounds)
        print(f"{arm}: {before:.3f} s before {embedding:.2f} s of embedding, {after:.3f} s after: {100 * share:.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
