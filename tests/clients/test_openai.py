"""OpenAI's official client, and others that speak its API, each as it comes."""

import base64
import json
import pathlib
import subprocess
import threading
import time
import urllib.request

import grpc
import numpy as np
import openai
import pytest
from clip.v1 import clip_pb2 as pb

KEY = "an open server asks for none"


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.http}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def cat(pictures):
    return base64.b64encode((pictures / "cat.png").read_bytes()).decode()


def over_grpc(clip, *inputs):
    results = clip.Embed(pb.EmbedRequest(inputs=inputs), timeout=60).results
    return np.array([result.embedding.values for result in results], dtype=np.float32)


def test_strings_and_lists(client, clip, model):
    """The client asks for base64 where its caller says nothing."""
    expected = over_grpc(clip, pb.Input(text="a cat"), pb.Input(text="a dog"))
    one = client.embeddings.create(model=model, input="a cat")
    assert np.array_equal(np.float32(one.data[0].embedding), expected[0])
    for encoding in {}, {"encoding_format": "float"}, {"encoding_format": "base64"}:
        answer = client.embeddings.create(model=model, input=["a cat", "a dog"], **encoding)
        vectors = [
            np.frombuffer(base64.b64decode(each.embedding), dtype="<f4")
            if isinstance(each.embedding, str)
            else np.float32(each.embedding)
            for each in answer.data
        ]
        assert np.array_equal(vectors, expected)
        assert answer.model == model
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8


def test_pictures_by_extra_body(client, clip, model, cat, pictures):
    picture = pb.Input(image=pb.Image(encoded=(pictures / "cat.png").read_bytes()))
    expected = over_grpc(clip, picture)[0]
    uri = f"data:image/png;base64,{cat}"
    by_modality = client.embeddings.create(model=model, input=[uri], extra_body={"modality": "image"})
    by_item = client.embeddings.create(model=model, input=[{"image": cat}])
    for answer in by_modality, by_item:
        assert np.array_equal(np.float32(answer.data[0].embedding), expected)


def test_models(client, model):
    assert client.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-4")
    assert error.value.body["param"] == "model"


def test_a_wrong_model_and_wrong_input(client, model):
    with pytest.raises(openai.NotFoundError) as error:
        client.embeddings.create(model="text-embedding-3-large", input="a")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model=model, input=[""])
    assert error.value.param == "input[0]"
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model=model, input=[[1, 2, 3]])
    assert "check_embedding_ctx_length" in str(error.value)


def test_overload_is_a_rate_limit_and_the_client_comes_back(start):
    """One call at a time, which a body that does not end holds for its second."""
    server = start("--max-concurrent-requests=1", "--timeout=1s")
    impatient = openai.OpenAI(base_url=f"{server.http}/v1", api_key=KEY, max_retries=0)
    model = impatient.models.list().data[0].id
    hold = held(server)
    with pytest.raises(openai.RateLimitError) as error:
        impatient.embeddings.create(model=model, input="a")
    assert int(error.value.response.headers["retry-after-ms"]) > 0
    patient = openai.OpenAI(base_url=f"{server.http}/v1", api_key=KEY, max_retries=20)
    assert patient.embeddings.create(model=model, input="a").data
    hold.join()
    server.terminate()
    assert server.wait() == 0


def held(server):
    """A call that holds a place until its deadline; returns once it does."""
    host, port = server.http.removeprefix("http://").split(":")

    def hold():
        import socket

        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            connection.recv(1000)

    thread = threading.Thread(target=hold)
    thread.start()
    while server.metrics()["clip_requests_in_flight"] == 0:
        time.sleep(0.01)
    return thread


def test_a_timeout_of_the_client_cancels(start):
    server = start("--timeout=20s")
    client = openai.OpenAI(base_url=f"{server.http}/v1", api_key=KEY, max_retries=0)
    model = client.models.list().data[0].id
    with pytest.raises((openai.APITimeoutError, openai.APIStatusError)):
        # Less than reading so many texts takes.
        client.embeddings.create(model=model, input=["a text of some length " * 20] * 256, timeout=0.002)
    while server.metrics()["clip_requests_in_flight"] > 0:
        time.sleep(0.01)
    calls = {name: value for name, value in server.metrics().items() if "/v1/embeddings" in name and "_total" in name}
    assert calls['clip_requests_total{method="/v1/embeddings",code="OK"}'] == 0, calls
    server.terminate()
    assert server.wait() == 0


def test_the_client_for_javascript(server, model, cat, clip, pictures):
    node = pathlib.Path(__file__).parent.parent.parent / "target/clients/node"
    answer = subprocess.run(
        ["node", "openai.mjs", f"{server.http}/v1", model, cat],
        cwd=node,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    said = json.loads(answer.stdout)
    picture = pb.Input(image=pb.Image(encoded=(pictures / "cat.png").read_bytes()))
    expected = over_grpc(clip, pb.Input(text="a cat"), picture)
    assert np.array_equal(np.float32(said["text"]), expected[0])
    assert np.array_equal(np.float32(said["picture"]), expected[1])
    assert said["model"] == model
    assert said["wrong"] == {"name": "NotFoundError", "status": 404, "param": "model"}


def test_langchain(server, model, clip):
    from langchain_openai import OpenAIEmbeddings

    options = {"model": model, "base_url": f"{server.http}/v1", "api_key": KEY, "max_retries": 0}
    embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **options)
    expected = over_grpc(clip, pb.Input(text="a cat"), pb.Input(text="a dog"))
    assert np.array_equal(np.float32(embeddings.embed_documents(["a cat", "a dog"])), expected)
    assert np.array_equal(np.float32(embeddings.embed_query("a cat")), expected[0])


@pytest.mark.parametrize("provider", ["openai", "infinity", "jina_ai"])
def test_litellm(server, model, clip, provider):
    import litellm

    base = {"openai": f"{server.http}/v1", "infinity": server.http, "jina_ai": f"{server.http}/v1/embeddings"}
    answer = litellm.embedding(
        model=f"{provider}/{model}", input=["a cat"], api_base=base[provider], api_key=KEY, num_retries=0
    )
    expected = over_grpc(clip, pb.Input(text="a cat"))[0]
    vector = answer.data[0]["embedding"]
    if isinstance(vector, str):
        vector = np.frombuffer(base64.b64decode(vector), dtype="<f4")
    assert np.array_equal(np.float32(vector), expected)


def test_litellm_ranks(server, model):
    import litellm

    answer = litellm.rerank(
        model=f"jina_ai/{model}",
        query="a cat",
        documents=["a car", "a cat", "a dog"],
        top_n=2,
        api_base=f"{server.http}/v1/rerank",
        api_key=KEY,
    )
    assert [each["index"] for each in answer.results][0] == 1
    assert len(answer.results) == 2


def test_every_form_of_request_has_an_answer_that_is_documented(server, tmp_path):
    """schemathesis makes requests of the document and against it: no status that is not there, and none of 5xx."""
    program = pathlib.Path(__import__("sys").executable).parent / "schemathesis"
    run = subprocess.run(
        [
            program,
            "run",
            f"{server.http}/openapi.json",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--max-examples=60",
            "--phases=examples,coverage,fuzzing",
            "--seed=1",
            "--no-color",
            "--suppress-health-check=all",
            "--request-timeout=30",
        ],
        # It leaves a cache where it runs.
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stdout
    with urllib.request.urlopen(f"{server.http}/readyz", timeout=10) as answer:
        assert answer.status == 200
    codes = [name for name, value in server.metrics().items() if "INTERNAL" in name and value > 0]
    assert not codes


def test_both_edges_share_their_places(start):
    server = start("--max-concurrent-requests=1", "--timeout=1s")
    hold = held(server)
    with pytest.raises(grpc.RpcError) as error:
        server.clip.GetModel(pb.GetModelRequest(), timeout=10)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    hold.join()
    server.terminate()
    assert server.wait() == 0
