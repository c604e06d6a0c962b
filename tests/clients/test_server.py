"""What operators and generic tools rely on: health, reflection, metrics, many calls at a time, the end."""

import concurrent.futures
import pathlib
import subprocess
import sys
import threading
import time

import grpc
import pytest
from clip.v1 import clip_pb2 as pb
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from server import CLIP_SERVICE

# Seconds; far above what any call here takes.
TIMEOUT = 60
METHODS = ["Embed", "Classify", "Rank", "StreamEmbed", "StreamClassify", "GetModel"]


def text(content):
    return pb.EmbedRequest(inputs=[pb.Input(text=content)])


def wait_for(condition, seconds=10):
    """Until it is true: a server counts a call a moment after the client has its answer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("service", ["", CLIP_SERVICE, "live"])
def test_health_says_serving(server, service):
    response = server.health.Check(HealthCheckRequest(service=service), timeout=TIMEOUT)
    assert response.status == HealthCheckResponse.SERVING


def test_the_health_of_an_unknown_service_is_not_found(server):
    with pytest.raises(grpc.RpcError) as unknown:
        server.health.Check(HealthCheckRequest(service="nobody"), timeout=TIMEOUT)
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_service(server):
    database = ProtoReflectionDescriptorDatabase(server.channel)
    services = database.get_services()
    assert CLIP_SERVICE in services
    assert "grpc.health.v1.Health" in services
    service = DescriptorPool(database).FindServiceByName(CLIP_SERVICE)
    assert [method.name for method in service.methods] == METHODS
    assert service.methods_by_name["Embed"].input_type.fields_by_name["inputs"].message_type.name == "Input"


def test_metrics_count_calls_and_rows(server):
    ok = 'clip_requests_total{method="Embed",code="OK"}'
    invalid = 'clip_requests_total{method="Embed",code="INVALID_ARGUMENT"}'
    completed = 'clip_jobs_total{outcome="completed"}'
    server.clip.Embed(text("so that every sample is there"), timeout=TIMEOUT)
    wait_for(lambda: server.metrics()["clip_requests_in_flight"] == 0)
    before = server.metrics()

    inputs = [pb.Input(text="one"), pb.Input(text="two"), pb.Input(text=" ")]
    for _ in range(3):
        server.clip.Embed(pb.EmbedRequest(inputs=inputs), timeout=TIMEOUT)
    with pytest.raises(grpc.RpcError):
        server.clip.Embed(pb.EmbedRequest(), timeout=TIMEOUT)

    wait_for(lambda: server.metrics()["clip_requests_in_flight"] == 0)
    after = server.metrics()
    assert after[ok] - before[ok] == 3
    assert after[invalid] - before.get(invalid, 0) == 1
    assert after[completed] - before[completed] == 6, "the blank text is no row"
    assert after['clip_workers{device="cpu",state="ready"}'] == 1


def test_200_calls_at_a_time_are_all_answered(server):
    calls = 200
    expected = [server.clip.Embed(text(f"a cat, {n} times"), timeout=TIMEOUT).results for n in range(8)]
    together = threading.Barrier(calls)

    def call(n):
        together.wait(TIMEOUT)
        return server.clip.Embed(text(f"a cat, {n % 8} times"), timeout=TIMEOUT).results

    with concurrent.futures.ThreadPoolExecutor(calls) as threads:
        answers = list(threads.map(call, range(calls)))
    assert len(answers) == calls
    for n, [answer] in enumerate(answers):
        [own] = expected[n % 8]
        # The dot product of unit vectors; other company in the batch may change the last bits.
        assert sum(x * y for x, y in zip(answer.embedding.values, own.embedding.values, strict=True)) > 0.999


def test_a_watch_hears_that_the_server_leaves_and_ends(start):
    server = start("--drain-delay=2s")
    watch = server.health.Watch(HealthCheckRequest(service=CLIP_SERVICE), timeout=TIMEOUT)
    assert next(watch).status == HealthCheckResponse.SERVING
    server.terminate()
    assert next(watch).status == HealthCheckResponse.NOT_SERVING
    # Load balancers have not noticed yet, and may go on sending calls.
    assert len(server.clip.Embed(text("while it leaves"), timeout=TIMEOUT).results) == 1
    assert list(watch) == []
    assert watch.code() == grpc.StatusCode.OK
    assert server.wait() == 0
    assert server.log()[-1]["message"] == "stopped"


def test_calls_in_flight_at_the_end_are_answered(start):
    server = start()
    inputs = [pb.Input(text=f"text number {n}") for n in range(128)]
    calls = [server.clip.Embed.future(pb.EmbedRequest(inputs=inputs), timeout=TIMEOUT) for _ in range(4)]
    wait_for(lambda: server.metrics()["clip_requests_in_flight"] == 4 or all(call.done() for call in calls))
    server.terminate()
    assert [len(call.result().results) for call in calls] == [128] * 4
    assert server.wait() == 0


def test_the_example_prints_a_similarity(server, pictures):
    example = pathlib.Path(__file__).parent / "example.py"

    def similarity(words):
        command = [sys.executable, example, server.address, pictures / "dog.png", words]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout
        return float(output)

    assert similarity("an emoji of dog") > similarity("an emoji of pizza")
