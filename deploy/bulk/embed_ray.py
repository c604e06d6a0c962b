"""Embeds a data set of any size through clipd into Parquet files, with Ray Data on one machine or many:

    embed_ray.py SOURCE OUT --addr HOST:PORT [--addr HOST:PORT ...] [--parallel 8]

SOURCE is a directory, looked through with all below it, of
    pictures (.jpg .jpeg .png .webp .gif .bmp .tif .tiff): the key is the path below SOURCE;
    WebDataset shards (.tar): the picture of each sample, the key is SHARD/KEY;
    Parquet files: --column (image) holds pictures as bytes, or as Hugging Face's structs of bytes, or texts; the key is
    that of --key, or FILE#ROW.
OUT gets Parquet files of key, embedding (float32, of unit length) and error: what cannot be embedded has a row that says
why. A file has one part of the data, and is complete or not there. So after a crash the same command goes on where it
was, with no row missing or doubled, and later it takes what is new in SOURCE; only two at a time must not write to one
OUT. Vectors of another model or precision than those in OUT are refused. Several machines see SOURCE and OUT under the
same paths, and RAY_ADDRESS says where the cluster is.

The work is CLASS_BULK, which gives way to interactive calls. CLIPD_API_KEY and CLIPD_CA (certificates to trust; without
it calls go in the clear) are read from the environment. The stubs, of `python -m grpc_tools.protoc`, are on the
PYTHONPATH of all machines.
"""

import argparse
import os
import pathlib
import tarfile
import time
import uuid
from urllib.parse import quote

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import ray
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# Pictures in a part, and rows that a worker holds at a time.
ROWS = 1000
# How often in a row a stream may end without an answer, and the first pause after that; it doubles.
FRUITLESS, PAUSE = 10, 0.2
# How a stream ends, and an input fails, that is worth another try.
LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
LOST = [code.value[0] for code in (*LATER, grpc.StatusCode.DEADLINE_EXCEEDED)]


def main():
    flags = arguments()
    os.makedirs(flags.out, exist_ok=True)
    fingerprint = model(flags.addr[0]).fingerprint
    parts = list(unfinished(flags, fingerprint))
    if not parts:
        return print("nothing is left to do")
    ray.init(log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = flags.progress
    # Of the workers only the environment reaches other machines.
    secrets = {name: os.environ[name] for name in ("CLIPD_API_KEY", "CLIPD_CA") if name in os.environ}
    done = ray.data.from_items(parts, override_num_blocks=len(parts)).map(
        Worker,
        fn_constructor_kwargs={"flags": flags, "fingerprint": fingerprint},
        compute=ray.data.ActorPoolStrategy(size=min(flags.parallel, len(parts))),
        # It waits for the server, most of the time.
        num_cpus=0.1,
        runtime_env={"env_vars": secrets},
    )
    rows = errors = 0
    for part in done.iter_rows():
        rows, errors = rows + part["rows"], errors + part["errors"]
    print(f"{rows} rows, {errors} of them with an error")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--addr", action="append", required=True, help="of a server, or dns:///NAME:PORT of many")
    parser.add_argument("--parallel", type=int, default=8, help="streams at a time, spread over the addresses")
    parser.add_argument("--column", default="image", help="of Parquet files: pictures or texts")
    parser.add_argument("--key", help="of Parquet files: the column that names a row")
    parser.add_argument("--progress", action="store_true", help="Ray's bars")
    return parser.parse_args()


def unfinished(flags, fingerprint):
    """The parts of SOURCE that OUT does not have: the name of each in OUT, and the files that it is made of."""
    # What a run that was cut off had begun.
    for begun in flags.out.glob(".*.parquet.*"):
        begun.unlink(missing_ok=True)
    done = {path.name for path in flags.out.glob("*.parquet")}
    for name in done:
        has = pa.parquet.read_schema(flags.out / name).metadata[b"fingerprint"].decode()
        if has != fingerprint:
            raise SystemExit(f"{flags.out / name} has vectors of {has}, and the server gives those of {fingerprint}")
    files = sorted(path.relative_to(flags.source).as_posix() for path in flags.source.rglob("*") if path.is_file())
    for file in files:
        name = f"{quote(file, safe='')}.parquet"
        if pathlib.PurePath(file).suffix in (".tar", ".parquet") and name not in done:
            yield {"name": name, "files": [file]}
    # Pictures by themselves have no files that they belong to, so it is looked up which were done.
    pictures = [file for file in files if pathlib.PurePath(file).suffix.lower() in PICTURES]
    loose = [flags.out / name for name in done if name.startswith("pictures-")]
    known = set(pa.dataset.dataset(loose).to_table(["key"])["key"].to_pylist()) if loose else set()
    new = [picture for picture in pictures if picture not in known]
    for start in range(0, len(new), ROWS):
        yield {"name": f"pictures-{uuid.uuid4().hex}.parquet", "files": new[start : start + ROWS]}


class Worker:
    """Embeds one part after the other, over a channel of its own."""

    def __init__(self, flags, fingerprint):
        self._flags, self._fingerprint = flags, fingerprint
        # Workers begin at different addresses; one that is lost is tried again, as Ray gives its part to another.
        addresses = flags.addr
        self._channel = connect(addresses[os.getpid() % len(addresses)])
        self._clip = ClipServiceStub(self._channel)
        answer = self._clip.GetModel(pb.GetModelRequest(), metadata=metadata(), wait_for_ready=True, timeout=60)
        if answer.fingerprint != fingerprint:
            raise RuntimeError(f"this server gives vectors of {answer.fingerprint}, another one those of {fingerprint}")
        self._schema = pa.schema(
            {"key": pa.string(), "embedding": pa.list_(pa.float32(), answer.embedding_size), "error": pa.string()},
            {"model": answer.name, "fingerprint": fingerprint},
        )

    def __call__(self, part):
        rows = errors = 0
        # It has its name when it is complete.
        unfinished = self._flags.out / f".{part['name']}.{uuid.uuid4().hex}"
        try:
            with pa.parquet.ParquetWriter(unfinished, self._schema) as writer:
                for keys, contents in batches(self._flags, part["files"]):
                    results = self._embed(contents)
                    writer.write_batch(self._rows(keys, results))
                    rows, errors = rows + len(keys), errors + sum(result.HasField("error") for result in results)
            os.replace(unfinished, self._flags.out / part["name"])
        finally:
            unfinished.unlink(missing_ok=True)
        return {"name": part["name"], "rows": rows, "errors": errors}

    def _embed(self, contents):
        """The results in the order of the inputs. A stream that ends early is opened again for what has no answer."""
        results, fruitless = {}, 0
        while unanswered := [tag for tag in range(len(contents)) if tag not in results]:
            answered, ended = len(results), None
            # Sent one by one, as the server takes them.
            requests = (pb.StreamEmbedRequest(tag=tag, input=contents[tag]()) for tag in unanswered)
            try:
                for result in self._clip.StreamEmbed(requests, metadata=metadata(), wait_for_ready=True):
                    if not (result.HasField("error") and result.error.code in LOST):
                        results[result.tag] = result
            except grpc.RpcError as error:
                if error.code() not in LATER:
                    raise
                ended = error
            fruitless = fruitless + 1 if len(results) == answered else 0
            if fruitless == FRUITLESS:
                raise RuntimeError(f"inputs are without an answer: {ended}")
            if fruitless:
                time.sleep(PAUSE * 2 ** (fruitless - 1))
        return [results[tag] for tag in range(len(contents))]

    def _rows(self, keys, results):
        size = self._schema.field("embedding").type.list_size
        values = np.zeros((len(results), size), np.float32)
        errors = [None] * len(results)
        for row, result in enumerate(results):
            if result.HasField("error"):
                errors[row] = f"{result.error.field}: {result.error.message}"
            else:
                values[row] = result.embedding.values
        missing = pa.array([error is not None for error in errors])
        vectors = pa.FixedSizeListArray.from_arrays(values.reshape(-1), size, mask=missing)
        return pa.record_batch([pa.array(keys), vectors, pa.array(errors, pa.string())], schema=self._schema)


def batches(flags, files):
    """Keys, and functions that give their inputs, of a part."""
    match pathlib.PurePath(files[0]).suffix:
        case ".tar":
            yield from of_shard(flags.source, files[0])
        case ".parquet":
            yield from of_table(flags, files[0])
        case _:
            yield files, [lambda path=flags.source / file: picture(path.read_bytes()) for file in files]


def of_shard(source, file):
    """Names in a shard are keys and nothing else: no path is made of them."""
    with tarfile.open(source / file) as shard:
        keys, contents = [], []
        for member in shard:
            key, dot, suffix = member.name.rpartition(".")
            if not member.isfile() or dot + suffix.lower() not in PICTURES:
                continue
            encoded = shard.extractfile(member).read()
            keys.append(f"{file}/{key}")
            contents.append(lambda encoded=encoded: picture(encoded))
            if len(keys) == ROWS:
                yield keys, contents
                keys, contents = [], []
        if keys:
            yield keys, contents


def of_table(flags, file):
    before = 0
    columns = [flags.column] + [flags.key] * bool(flags.key)
    for batch in pa.parquet.ParquetFile(flags.source / file).iter_batches(ROWS, columns=columns):
        values = batch.column(flags.column).to_pylist()
        numbers = range(before, before + len(values))
        keys = batch.column(flags.key).to_pylist() if flags.key else [f"{file}#{number}" for number in numbers]
        yield [str(key) for key in keys], [lambda value=value: content(value) for value in values]
        before += len(values)


def content(value):
    """What is missing is an input without content: the server says so in its place."""
    if isinstance(value, str):
        return pb.Input(text=value)
    return picture((value["bytes"] if isinstance(value, dict) else value) or b"")


def picture(encoded):
    return pb.Input(image=pb.Image(encoded=encoded))


def connect(address):
    options = [("grpc.max_receive_message_length", 32 << 20)]
    if "CLIPD_CA" in os.environ:
        certificates = pathlib.Path(os.environ["CLIPD_CA"]).read_bytes()
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(certificates), options)
    return grpc.insecure_channel(address, options)


def metadata():
    key = os.environ.get("CLIPD_API_KEY")
    return [("clip-class", "bulk")] + [("authorization", f"Bearer {key}")] * bool(key)


def model(address):
    with connect(address) as channel:
        return ClipServiceStub(channel).GetModel(pb.GetModelRequest(), metadata=metadata(), timeout=60)


if __name__ == "__main__":
    main()
