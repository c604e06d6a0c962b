"""What `clipd eval` takes beyond embedding.

    python tests/eval/overhead.py CLIPD DATA [MODEL]

DATA is a data set in clip_benchmark's layout, with a class for each picture; MODEL a model directory, or else the embedded
model. A server embeds the same pictures, and the prompts of the classes, for `clipd embed` and for `clipd eval` in turns.
"""

import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from judge import served

ROUNDS = 7


def unpacked(data: Path, folder: Path) -> None:
    """`clipd embed` reads no shards."""
    for shard in sorted((data / "test").glob("*.tar")):
        with tarfile.open(shard) as archive:
            for member in archive:
                if not member.name.endswith(".cls"):
                    (folder / member.name).write_bytes(archive.extractfile(member).read())


def prompts(data: Path) -> list[str]:
    names, templates = (
        (data / name).read_text().splitlines() for name in ("classnames.txt", "zeroshot_classification_templates.txt")
    )
    return [f"--text={template.replace('{c}', name)}" for name in names for template in templates]


def seconds(*commands: list[str]) -> float:
    began = time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def main(clipd: str, data: str, *model: str) -> None:
    flags = [f"--model={directory}" for directory in model]
    with tempfile.TemporaryDirectory() as home, served(clipd, *flags) as address:
        pictures = Path(home) / "pictures"
        pictures.mkdir()
        unpacked(Path(data), pictures)
        embed = [clipd, "embed", "--addr", address, "--out", f"{home}/rows.npy"]
        embeds = [[*embed, str(pictures)], [*embed, *prompts(Path(data))]]
        evaluate = [clipd, "eval", "zeroshot", data, "--addr", address, "--json", f"{home}/figures.json"]
        arms = {
            "embed": embeds,
            "eval": [evaluate],
            "eval --lines --html": [[*evaluate, "--lines", f"{home}/lines", "--html", f"{home}/page.html"]],
        }
        # The first round warms up.
        rounds = [{arm: seconds(*commands) for arm, commands in arms.items()} for _ in range(ROUNDS + 1)][1:]
    for arm in arms:
        taken = [one[arm] for one in rounds]
        more = [100 * (one[arm] / one["embed"] - 1) for one in rounds]
        print(f"{arm}: {statistics.median(taken):.2f} s, {statistics.median(more):+.1f} % ({min(more):+.1f} to {max(more):+.1f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
