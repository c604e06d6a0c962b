"""Predictions of a full-size model, input by input, three ways.

    python tests/eval/full.py CLIPD HOME MODEL

HOME has the data set `emoji` of make_data.py in data/. MODEL is a directory of tests/full_size/make.py, whose weights
are random: accuracy would say nothing, but 240 pictures have 1,644 classes to choose from. The ways: clip_benchmark
with open_clip (CPU, fp32, no autocast); clip_benchmark on a running clipd in fp32 (suite.py); `clipd eval` on that
server.

Where another way's prediction is not open_clip's, it is listed with its margin: by how much open_clip's own cosine of
its answer is above that of the other. Only what is below 1e-5 may be rounding.
"""

import json
import subprocess
import sys
from pathlib import Path

import suite
import torch
from clip_benchmark.datasets.builder import build_dataset
from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier
from judge import served

ROUNDING = 1e-5
BATCH = 16


def cosines(data: Path, model, transform, tokenizer) -> tuple[torch.Tensor, list[str]]:
    """Of pictures in rows and classes in columns, as the suite has them, and the classes."""
    dataset = build_dataset("wds/emoji", root=str(data), transform=transform, split="test")
    loader = torch.utils.data.DataLoader(dataset.batched(BATCH), batch_size=None)
    model.eval()
    classifier = zero_shot_classifier(model, tokenizer, dataset.classes, dataset.templates, "cpu", amp=False)
    logits, _ = run_classification(model, classifier, loader, "cpu", amp=False)
    return logits / 100, dataset.classes


def clipd_eval(clipd: str, data: Path, address: str, lines: Path) -> list[str]:
    command = [clipd, "eval", "zeroshot", str(data), "--addr", address, "--lines", str(lines)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    written = map(json.loads, lines.read_text().splitlines())
    return [line["prediction"] for line in written if line.get("kind") == "picture"]


def main(clipd: str, home: str, directory: str) -> None:
    data = Path(home) / "data/emoji"
    # A text may wait longer than a person would.
    with served(clipd, f"--model={directory}", "--timeout=100s") as address:
        own = clipd_eval(clipd, data, address, Path(home) / "full.jsonl")
        on_clipd, classes = cosines(data, *suite.load_clipd(address, "", "", "cpu"))
    reference, _ = cosines(data, *suite.load_directory(directory, "", "", "cpu"))

    best = reference.topk(2).values
    margins = best[:, 0] - best[:, 1]
    answered = len(set(reference.argmax(1).tolist()))
    print(f"{len(reference)} pictures, {len(classes)} classes, of which {answered} are answers")
    print(f"open_clip's first answer before its second: median {margins.median():.1e}, ", end="")
    print(f"least {margins.min():.1e}, {int((margins < ROUNDING).sum())} below {ROUNDING:.0e}")
    print(f"cosines of the suite on clipd and with open_clip: {(on_clipd - reference).abs().max():.1e} apart at most")

    ways = {"the suite on clipd": on_clipd.argmax(1).tolist(), "clipd eval": [classes.index(name) for name in own]}
    beyond = 0
    for way, answers in ways.items():
        assert len(answers) == len(reference)
        differing = [(row, answer) for row, answer in enumerate(answers) if answer != int(reference[row].argmax())]
        print(f"{way}: {len(differing)} predictions differ from open_clip's")
        for row, answer in differing:
            first = int(reference[row].argmax())
            margin = float(reference[row, first] - reference[row, answer])
            beyond += margin >= ROUNDING
            print(f"  picture {row}: {classes[answer]!r}, open_clip {classes[first]!r}, margin {margin:.1e}")
    if beyond:
        sys.exit(f"{beyond} differ by more than {ROUNDING:.0e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
