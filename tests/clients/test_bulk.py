"""Data sets through deploy/bulk/embed_ray.py into Parquet, and what deploy/README.md says of searching them."""

import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from clip.v1 import clip_pb2 as pb

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
SHARDS, SAMPLES = 30, 40
SECONDS = 60


def begin(source, out, address, *flags):
    command = [sys.executable, DEPLOY / "bulk/embed_ray.py", source, out, f"--addr={address}", "--parallel=2", *flags]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*arguments):
    process = begin(*arguments)
    output, _ = process.communicate(timeout=2 * SECONDS)
    return process.returncode, output


def rows(out):
    """By their keys; a key that is there twice is an error."""
    table = pa.dataset.dataset(out).to_table().to_pylist()
    by_key = {row["key"]: row for row in table}
    assert len(by_key) == len(table)
    return by_key


def embedded(clip, *inputs):
    return [result.embedding.values for result in clip.Embed(pb.EmbedRequest(inputs=inputs)).results]


def same(row, values):
    assert row["error"] is None
    # Rows of other batches may differ in their last bits.
    np.testing.assert_allclose(row["embedding"], values, atol=1e-5)


def write_shard(path, files):
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def test_every_row_is_there_once_though_the_first_run_is_killed(start, pictures, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    words = ["dog", "cat", "pizza", "apple"]
    encoded = [(pictures / f"{word}.png").read_bytes() for word in words]
    for shard in range(SHARDS):
        samples = {f"{sample:03}.png": encoded[sample % len(words)] for sample in range(SAMPLES)}
        write_shard(source / f"{shard:03}.tar", samples | {"007.cls": b"3"})
    server = start()
    try:
        first = begin(source, out, server.address)
        deadline = time.monotonic() + SECONDS
        while not any(out.glob("*.parquet")):
            assert first.poll() is None and time.monotonic() < deadline, first.stdout.read()
            time.sleep(0.01)
        # Nothing more is answered, so the run is in the middle whenever it is killed.
        os.kill(server.pid, signal.SIGSTOP)
        first.kill()
        first.communicate()
        os.kill(server.pid, signal.SIGCONT)
        # Workers outlive the one that was killed for a moment, and may end the parts that they have.
        code, output = run(source, out, server.address)
        assert code == 0, output
        # What was done is not done again.
        (again,) = re.findall(r"(\d+) rows, 0 of them with an error", output)
        assert 0 < int(again) < SHARDS * SAMPLES
        found = rows(out)
        assert set(found) == {f"{shard:03}.tar/{sample:03}" for shard in range(SHARDS) for sample in range(SAMPLES)}
        expected = embedded(server.clip, *(pb.Input(image=pb.Image(encoded=each)) for each in encoded))
        for key, row in found.items():
            same(row, expected[int(key[-3:]) % len(words)])
        assert "nothing is left to do" in run(source, out, server.address)[1]
        assert {path.suffix for path in out.iterdir()} == {".parquet"}
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.terminate()
    assert server.wait() == 0


def test_pictures_of_a_folder_and_what_is_new_in_it(server, clip, pictures, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "below").mkdir(parents=True)
    dog, cat = ((pictures / f"{word}.png").read_bytes() for word in ("dog", "cat"))
    (source / "below/dog.PNG").write_bytes(dog)
    (source / "broken.jpg").write_bytes(b"no picture")
    (source / "notes.txt").write_bytes(b"no picture either")
    code, output = run(source, out, server.address)
    assert code == 0 and "2 rows, 1 of them with an error" in output
    (source / "cat.png").write_bytes(cat)
    code, output = run(source, out, server.address)
    assert code == 0 and "1 rows, 0 of them with an error" in output
    found = rows(out)
    assert set(found) == {"below/dog.PNG", "broken.jpg", "cat.png"}
    assert found["broken.jpg"]["embedding"] is None
    assert "not recognised" in found["broken.jpg"]["error"]
    for key, values in zip(["below/dog.PNG", "cat.png"], embedded(clip, *map(image, (dog, cat))), strict=True):
        same(found[key], values)


def test_parquet_of_pictures_and_of_texts(server, clip, pictures, tmp_path):
    dog = (pictures / "dog.png").read_bytes()
    source, out = tmp_path / "pictures", tmp_path / "pictures-out"
    source.mkdir()
    structs = [{"bytes": dog, "path": "dog.png"}, {"bytes": None, "path": "missing.png"}]
    pa.parquet.write_table(pa.table({"image": structs, "id": [7, 8]}), source / "a.parquet")
    code, output = run(source, out, server.address, "--key=id")
    assert code == 0 and "2 rows, 1 of them with an error" in output
    found = rows(out)
    same(found["7"], embedded(clip, image(dog))[0])
    assert found["8"]["error"].startswith("input.image")

    source, out = tmp_path / "texts", tmp_path / "texts-out"
    source.mkdir()
    pa.parquet.write_table(pa.table({"caption": ["a dog", "a cat"]}), source / "a.parquet")
    assert run(source, out, server.address, "--column=caption")[0] == 0
    found = rows(out)
    for key, values in zip(["a.parquet#0", "a.parquet#1"], embedded(clip, text("a dog"), text("a cat")), strict=True):
        same(found[key], values)


def test_vectors_of_another_model_are_refused(server, pictures, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    schema = pa.schema({"key": pa.string()}, {"fingerprint": "another"})
    pa.parquet.write_table(pa.table([["a"]], schema), out / "pictures-1.parquet")
    code, output = run(pictures, out, server.address)
    assert code == 1 and "has vectors of another" in output


@pytest.fixture
def vectors(server, pictures, tmp_path):
    out = tmp_path / "VECTORS"
    assert run(pictures, out, server.address)[0] == 0
    return out


def test_they_are_found_as_the_page_says(server, vectors, tmp_path):
    page = (DEPLOY / "README.md").read_text()
    (code,) = re.findall(r"```python\n(import lancedb.*?)```", page, re.DOTALL)
    assert "http://localhost:8080" in code
    code = code.replace("http://localhost:8080", server.http)
    how = {"cwd": vectors.parent, "capture_output": True, "text": True, "timeout": SECONDS}
    done = subprocess.run([sys.executable, "-c", code], **how)
    assert done.returncode == 0, done.stderr
    best = done.stdout.splitlines()[1]
    assert "pizza." in best, done.stdout


def image(encoded):
    return pb.Input(image=pb.Image(encoded=encoded))


def text(words):
    return pb.Input(text=words)
