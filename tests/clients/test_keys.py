"""API keys, as gRPC's and OpenAI's clients send them."""

import subprocess
import threading

import grpc
import openai
import pytest
from clip.v1 import clip_pb2 as pb

TIMEOUT = 60


class Keys:
    """A file of keys, and the program that keeps it."""

    def __init__(self, binary, path):
        self._binary, self.path = binary, path

    def __call__(self, *arguments):
        run = [self._binary, "keys", *arguments, "--file", self.path]
        return subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT).stdout.strip()


@pytest.fixture(scope="module")
def keys(request, tmp_path_factory):
    return Keys(request.config.getoption("--clipd"), tmp_path_factory.mktemp("keys") / "keys.toml")


@pytest.fixture(scope="module")
def secrets(keys):
    return {
        "free": keys("add", "free"),
        "slow": keys("add", "slow", "--rate", "0.05", "--burst", "2"),
        "old": keys("add", "old", "--expires", "2001-01-01"),
    }


@pytest.fixture(scope="module")
def locked(start, keys, secrets):
    server = start(f"--api-keys={keys.path}")
    yield server
    server.terminate()
    assert server.wait() == 0
    log = str(server.log())
    assert not any(secret in log for secret in secrets.values()), "a secret is in the log"


def embed(server, secret):
    metadata = [("authorization", f"Bearer {secret}")] if secret else []
    request = pb.EmbedRequest(inputs=[pb.Input(text="a")])
    return server.clip.Embed(request, timeout=TIMEOUT, metadata=metadata)


def over_openai(server, secret):
    return openai.OpenAI(base_url=f"{server.http}/v1", api_key=secret, max_retries=0)


def test_a_key_opens_both_doors(locked, secrets):
    assert len(embed(locked, secrets["free"]).results) == 1
    client = over_openai(locked, secrets["free"])
    assert client.embeddings.create(model=client.models.list().data[0].id, input="a").data


@pytest.mark.parametrize("secret", [None, "wrong", "clipd_" + 64 * "0", "old"])
def test_no_other_does(locked, secrets, secret):
    secret = secrets.get(secret, secret)
    with pytest.raises(grpc.RpcError) as error:
        embed(locked, secret)
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(openai.AuthenticationError) as error:
        over_openai(locked, secret or "none").embeddings.create(model="any", input="a")
    assert error.value.code == "invalid_api_key"


def test_a_key_has_its_rate(locked, secrets):
    client = over_openai(locked, secrets["slow"])
    model = over_openai(locked, secrets["free"]).models.list().data[0].id
    raw = client.embeddings.with_raw_response.create(model=model, input="a")
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    embed(locked, secrets["slow"])
    with pytest.raises(openai.RateLimitError) as error:
        client.embeddings.create(model=model, input="a")
    assert int(error.value.response.headers["retry-after"]) > 5
    with pytest.raises(grpc.RpcError) as error:
        embed(locked, secrets["slow"])
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(error.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 5000
    embed(locked, secrets["free"])


def test_keys_rotate_under_load_without_a_wrong_answer(locked, keys):
    """A new key is added, the callers move to it, and the old one is revoked; meanwhile nobody is refused."""
    current = {"secret": keys("add", "first")}
    while not passes(locked, current["secret"]):
        pass
    failures, stop, calls = [], threading.Event(), [0]

    def call():
        while not stop.is_set():
            try:
                embed(locked, current["secret"])
                calls[0] += 1
            except grpc.RpcError as error:
                failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    second = keys("add", "second")
    while not passes(locked, second):
        pass
    first, current["secret"] = current["secret"], second
    before = calls[0]
    # Whoever still had the old one has had its answer.
    while calls[0] < before + 8:
        pass
    keys("revoke", "first")
    while passes(locked, first):
        pass
    stop.set()
    for caller in callers:
        caller.join()
    assert not failures
    assert calls[0] > 8


def passes(server, secret):
    try:
        embed(server, secret)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        return False
    return True
