"""Three ways to the same figures, which must be the same to the last digit.

    python tests/eval/judge.py CLIPD HOME

HOME has the data sets of make_data.py and make_emoji.py in data/. The ways: clip_benchmark with open_clip on the
weights of the embedded model (CPU, fp32, no autocast); clip_benchmark on a running clipd in fp32 (suite.py); `clipd
eval` on that server. Then clip_benchmark makes its table of what `clipd eval` wrote. The figures of make_data.py's go
to tests/fixtures/eval/suite.json, for tests/it/eval.rs.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = [sys.executable, str(ROOT / "tests/eval/suite.py")]
TASKS = {"emoji": "zeroshot", "words": "zeroshot", "captions": "retrieval", "every": "zeroshot"}
SUITE_TASKS = {"zeroshot": "zeroshot_classification", "retrieval": "zeroshot_retrieval"}
FIXTURE = ROOT / "tests/fixtures/eval/suite.json"


def suite(home: Path, data: str, kind: str, model: str) -> dict[str, float]:
    output = home / f"{kind}-{data}.json"
    command = ["eval", "--model_type", kind, "--model", model, "--pretrained", kind, "--dataset", f"wds/{data}"]
    command += ["--dataset_root", str(home / "data" / data), "--task", SUITE_TASKS[TASKS[data]], "--no_amp"]
    command += ["--num_workers", "0", "--recall_k", "1", "5", "10", "--quiet", "--output", str(output)]
    # Bars of progress, and warnings; shown if it fails.
    done = subprocess.run([*SUITE, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(output.read_text())["metrics"]


def clipd_eval(clipd: str, home: Path, data: str, address: str) -> dict[str, float]:
    output = home / f"eval-{data}.json"
    command = [clipd, "eval", TASKS[data], str(home / "data" / data), "--addr", address, "--json", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(output.read_text())["metrics"]


@contextmanager
def served(clipd: str, *flags: str) -> Iterator[str]:
    """A server in fp32 on the CPU: the address of its gRPC API, once it is ready."""
    serve = ["serve", "--device", "cpu", "--precision", "fp32", "--listen", "127.0.0.1:0", "--http-listen", "off"]
    serve += ["--metrics-listen", "127.0.0.1:0", "--log", "info", "--log-format", "json", *flags]
    server = subprocess.Popen([clipd, *serve], stderr=subprocess.PIPE, text=True)
    try:
        yield address_of(server.stderr)
    finally:
        server.terminate()
        server.wait()


def address_of(log: Iterable[str]) -> str:
    address = None
    for line in log:
        fields = json.loads(line)["fields"]
        address = fields.get("grpc", address)
        if fields["message"] == "ready":
            return address
    sys.exit("the server ended before it was ready")


def table(home: Path) -> None:
    """What clip_benchmark's `build` makes of the files of `clipd eval`."""
    files = [str(home / f"eval-{data}.json") for data in TASKS]
    output = home / "table.csv"
    subprocess.run([*SUITE, "build", *files, "--output", str(output)], check=True)
    with output.open() as lines:
        rows = {row["dataset"]: row for row in csv.DictReader(lines)}
    for data in TASKS:
        written = json.loads((home / f"eval-{data}.json").read_text())["metrics"]
        assert {name: float(rows[data][name]) for name in written} == written, rows[data]


def main(clipd: str, home: Path) -> None:
    figures, same = {}, True
    with served(clipd) as address:
        for data in TASKS:
            figures[data] = suite(home, data, "open_clip_dir", str(ROOT / "src/model/builtin"))
            on_clipd = suite(home, data, "clipd", address)
            own = clipd_eval(clipd, home, data, address)
            for name, value in figures[data].items():
                agree = value == on_clipd[name] == own[name]
                same &= agree
                print(f"{data} {name}: {value} {on_clipd[name]} {own[name]}{'' if agree else '  DIFFERENT'}")
            assert own.keys() == figures[data].keys()
    table(home)
    if not same:
        sys.exit("the figures differ")
    del figures["every"]
    FIXTURE.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
