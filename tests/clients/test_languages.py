"""The clients in go, java, node and python, each of which does the same: against two servers behind one name.

Calls go over TLS of a private CA, with a key. The name is in a hosts file that only the client sees.
"""

import os
import pathlib
import socket
import socketserver
import subprocess
import sys
import threading
import time

import grpc
import pytest
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub
from test_keys import Keys

HERE = pathlib.Path(__file__).parent
BUILT = HERE.parent.parent / "target/clients"
CLIENTS = {
    "go": [BUILT / "go/client"],
    # These options make it start sooner.
    "java": ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar", BUILT / "java/target/client.jar"],
    "node": ["node", BUILT / "node/client.mjs"],
    "python": [sys.executable, HERE / "python/client.py"],
    "python-asyncio": [sys.executable, HERE / "python/client_asyncio.py"],
}
# Nobody else's outgoing connections use them.
HOSTS = ["127.0.0.2", "127.0.0.3"]
NAME = "clipd.test"
# Gives the command that follows a hosts file of its own.
WITH_HOSTS = ["unshare", "--user", "--map-root-user", "--mount"]
WITH_HOSTS += ["sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']
STREAM_ENDED = 'clip_requests_total{method="StreamEmbed",code="UNAVAILABLE"}'
TIMEOUT = 60


class Relay(socketserver.ThreadingTCPServer):
    """Hands connections on to a server, and counts the bytes that clients send."""

    daemon_threads = True

    def __init__(self, server):
        super().__init__(("127.0.0.1", 0), None)
        host, port = server.address.split(":")
        self._server = (host, int(port))
        self.sent = 0

    def finish_request(self, client, address):
        with client, socket.create_connection(self._server) as server:
            back = threading.Thread(target=self._copy, args=(server, client))
            back.start()
            for data in self._copied(client, server):
                self.sent += len(data)
            back.join()

    def _copy(self, source, to):
        for _ in self._copied(source, to):
            pass

    def _copied(self, source, to):
        """What one side has sent and the other has got, until one of them has gone."""
        try:
            while data := source.recv(1 << 16):
                to.sendall(data)
                yield data
            to.shutdown(socket.SHUT_WR)
        except OSError:
            to.close()


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates of NAME, and of a CA that vouches for it and of one that does not; inputs that are wrong."""
    folder = tmp_path_factory.mktemp("languages")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days=2"]
    for name in ["ca", "other"]:
        openssl(*new, f"-subj=/CN={name}", f"-keyout={folder / name}.key", f"-out={folder / name}.pem")
    openssl(
        *new,
        f"-CA={folder}/ca.pem",
        f"-CAkey={folder}/ca.key",
        f"-subj=/CN={NAME}",
        f"-addext=subjectAltName=DNS:{NAME}",
        "-addext=basicConstraints=critical,CA:FALSE",
        f"-keyout={folder}/server.key",
        f"-out={folder}/server.pem",
    )
    (folder / "no-picture.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def keys(request, folder):
    return Keys(request.config.getoption("--clipd"), folder / "keys.toml")


@pytest.fixture(scope="module")
def secrets(keys):
    """Of each client one, and two with limits: of calls, and of inputs a second at each server."""
    limited = {"slow": keys("add", "slow", "--rate=1", "--burst=1"), "paced": keys("add", "paced", "--rows=250")}
    return {name: keys("add", name) for name in CLIENTS} | limited


@pytest.fixture(scope="module")
def servers(start, folder, keys, secrets):
    """Two at the same port. Their streams are short and narrow, so that a client must open many of them."""
    flags = [f"--tls-cert={folder}/server.pem", f"--tls-key={folder}/server.key", f"--api-keys={keys.path}"]
    flags += ["--max-stream-age=300ms", "--max-stream-inputs=2"]
    first = start(*flags, listen=f"{HOSTS[0]}:0")
    second = start(*flags, listen=f"{HOSTS[1]}:{first.address.rpartition(':')[2]}")
    yield [first, second]
    for server in [first, second]:
        server.terminate()
        assert server.wait() == 0, server.log()


@pytest.fixture(params=CLIENTS)
def client(request, folder, servers, secrets):
    """Runs the client of a language: returns its exit code and what it printed."""

    def run(*arguments, hosts=HOSTS, port=None, ca="ca", secret=secrets[request.param], timeout=TIMEOUT):
        names = folder / "hosts"
        names.write_text("".join(f"{host} {name}\n" for host in hosts for name in [NAME, "localhost"]))
        target = f"dns:///{NAME}:{port or servers[0].address.rpartition(':')[2]}"
        settings = {"CLIPD_CA": f"{folder / ca}.pem", "CLIPD_API_KEY": secret, "CLIPD_TIMEOUT": str(timeout)}
        ended = subprocess.run(
            [*WITH_HOSTS, names, *CLIENTS[request.param], target, *arguments],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.fixture(scope="module")
def expected(clip):
    """What a client prints for inputs: the cosine to the first, or the error."""

    def expected(sources, field="inputs[{}]"):
        def content(source):
            if os.path.isfile(source):
                return pb.Input(image=pb.Image(encoded=pathlib.Path(source).read_bytes()))
            return pb.Input(text=source)

        lines = []
        for place, source in enumerate(sources):
            [result] = clip.Embed(pb.EmbedRequest(inputs=[content(source)]), timeout=TIMEOUT).results
            if result.HasField("error"):
                path = result.error.field.replace("inputs[0]", field.format(place))
                lines.append(["error", source, f"{path}: {result.error.message}"])
                continue
            first = result.embedding.values if place == 0 else first
            lines.append([sum(a * b for a, b in zip(first, result.embedding.values, strict=True)), source])
        return lines

    return expected


def check(printed, expected, model):
    head, *lines = printed.splitlines()
    assert head.split("\t") == ["model", model.name, model.fingerprint]
    assert len(lines) == len(expected)
    for line, (what, *rest) in zip(lines, expected, strict=True):
        said, *others = line.split("\t")
        assert others == rest
        # Other company in the batch may change the last bits.
        assert said == what if what == "error" else abs(float(said) - what) < 0.002


@pytest.fixture(scope="module")
def model(clip):
    return clip.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)


def test_a_call_with_errors_of_single_inputs(client, expected, model, pictures, folder):
    sources = ["an emoji of dog", str(pictures / "dog.png"), str(folder / "no-picture.png"), " ", "a cat"]
    code, printed, errors = client("embed", *sources)
    assert code == 1, errors
    lines = expected(sources)
    assert [line[0] == "error" for line in lines] == [False, False, True, True, False]
    check(printed, lines, model)
    code, printed, errors = client("embed", *sources[:2])
    assert code == 0, errors


def test_a_stream_sends_again_what_is_unanswered_and_elsewhere(client, servers, secrets, expected, model, folder):
    ended = [server.metrics().get(STREAM_ENDED, 0) for server in servers]
    sources = ["a dog", str(folder / "no-picture.png"), *(f"number {n % 40}" for n in range(1000))]
    # However fast the servers are, the half of it takes them a second or more, which is three streams at least.
    code, printed, errors = client("stream", *sources, secret=secrets["paced"])
    assert code == 1, errors
    lines = expected(sources[:42], field="input")
    check(printed, lines + [lines[2 + n % 40] for n in range(40, 1000)], model)
    # Round robin: the next stream is another server's.
    for server, before in zip(servers, ended, strict=True):
        assert server.metrics()[STREAM_ENDED] > before


def test_an_answer_of_more_than_4_mb(client, clip, pictures, folder):
    labels = [f"label {n}, {'and some more of it ' * 5}" for n in range(200)]
    (folder / "labels.txt").write_text("\n".join(labels) + "\n")
    paths = [str(pictures / "dog.png")] * 250
    code, printed, errors = client("classify", folder / "labels.txt", *paths)
    assert code == 0, errors
    _, *lines = printed.splitlines()
    image = pb.Image(encoded=(pictures / "dog.png").read_bytes())
    answer = clip.Classify(pb.ClassifyRequest(images=[image], labels=labels), timeout=TIMEOUT)
    [result] = answer.results
    assert 250 * result.ByteSize() > 4 << 20
    # Labels so alike may change places with other company in the batch.
    for best, path, count in (line.split("\t") for line in lines):
        assert best in labels
        assert (path, count) == (paths[0], "200")
    assert len(lines) == 250


def test_requests_are_compressed(client, servers):
    texts = ["a dog " * 1000] * 100
    with Relay(servers[0]) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        code, _, errors = client("embed", *texts, hosts=["127.0.0.1"], port=relay.server_address[1])
        relay.shutdown()
    assert code == 0, errors
    assert 0 < relay.sent < sum(map(len, texts)) / 10


def test_a_call_has_a_deadline(client):
    code, _, errors = client("embed", "a dog", timeout=0.001)
    assert code == 1
    assert "deadline" in errors.lower()


def test_a_server_is_trusted_by_its_ca_and_a_caller_by_its_key(client):
    code, _, errors = client("embed", "a dog", secret="a wrong one")
    assert code == 1
    assert "unauthenticated" in errors.lower()
    code, _, errors = client("embed", "a dog", ca="other", timeout=20)
    assert code == 1
    assert "unavailable" in errors.lower()


def test_a_refused_call_is_tried_again_when_the_server_says(client, servers, secrets):
    """The key may call once a second, and a client calls twice: for the model, and for the embedding."""
    refused = 'clip_key_requests_total{key="slow",code="RESOURCE_EXHAUSTED"}'
    before = servers[0].metrics().get(refused, 0)
    started = time.monotonic()
    code, _, errors = client("embed", "a dog", hosts=HOSTS[:1], secret=secrets["slow"])
    assert code == 0, errors
    assert servers[0].metrics()[refused] > before
    assert time.monotonic() - started > 0.5
