"""Traces and ids of requests, with OpenTelemetry's SDK as the caller and its protocol as the collector."""

import concurrent.futures
import re
import threading

import grpc
import openai
import pytest
from clip.v1 import clip_pb2 as pb
from opentelemetry import propagate, trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

TIMEOUT = 60


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self):
        self._arrived, self._spans = threading.Condition(), []

    def Export(self, request, context):
        with self._arrived:
            for resource in request.resource_spans:
                service = {each.key: each.value.string_value for each in resource.resource.attributes}
                assert service["service.name"] == "clipd"
                self._spans += [span for scope in resource.scope_spans for span in scope.spans]
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id, count):
        """The spans of a trace by name, once there are so many."""
        with self._arrived:
            found = lambda: [span for span in self._spans if span.trace_id == trace_id]
            assert self._arrived.wait_for(lambda: len(found()) >= count, TIMEOUT), found()
            return {span.name: span for span in found()}

    def batch(self, link):
        with self._arrived:
            found = lambda: [span for span in self._spans if span.span_id == link.span_id]
            assert self._arrived.wait_for(found, TIMEOUT)
            return found()[0]

    def traces(self):
        return {span.trace_id for span in self._spans}


@pytest.fixture(scope="module")
def collector():
    servicer = Collector()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer
    server.stop(None).wait()


@pytest.fixture(scope="module")
def traced(start, collector):
    endpoint = f"--otlp-endpoint=http://127.0.0.1:{collector.port}"
    server = start(endpoint, "--trace-sample=0", "--log=info,clipd::admission=debug")
    yield server
    server.terminate()
    assert server.wait() == 0


def over_grpc(server, headers):
    """The id of the request."""
    request = pb.EmbedRequest(inputs=[pb.Input(text="a")])
    _, call = server.clip.Embed.with_call(request, timeout=TIMEOUT, metadata=list(headers.items()))
    return dict(call.initial_metadata())["x-request-id"]


def over_http(server, headers):
    client = openai.OpenAI(base_url=f"{server.http}/v1", api_key="none", max_retries=0)
    return client.embeddings.create(model="emoji-clip", input="a", extra_headers=headers)._request_id


def call(server, how, sampler):
    """The span of the caller, and the id of the request."""
    with TracerProvider(sampler=sampler).get_tracer("tests").start_as_current_span("caller") as span:
        headers = {}
        propagate.inject(headers)
        return span.get_span_context(), how(server, headers)


def attributes(span):
    values = {each.key: each.value for each in span.attributes}
    return {key: value.string_value or value.int_value for key, value in values.items()}


@pytest.mark.parametrize("name, how", [("Embed", over_grpc), ("/v1/embeddings", over_http)])
def test_a_call_is_a_part_of_its_callers_trace(traced, collector, name, how):
    caller, request_id = call(traced, how, ALWAYS_ON)
    trace_id = caller.trace_id.to_bytes(16, "big")
    spans = collector.of(trace_id, 6)
    assert spans.keys() == {name, "admission", "preprocess", "queue", "inference", "reply"}
    assert spans[name].parent_span_id == caller.span_id.to_bytes(8, "big")
    stages = [span for stage, span in spans.items() if stage != name]
    assert all(span.parent_span_id == spans[name].span_id for span in stages)

    [link] = spans["inference"].links
    batch = collector.batch(link)
    assert batch.name == "batch" and batch.trace_id == link.trace_id != trace_id
    assert spans["inference"].span_id in [back.span_id for back in batch.links]
    about = attributes(batch)
    assert about["clip.batch.rows"] == 1 and about["clip.batch.close_reason"] == "idle"
    assert about["clip.device"] == "cpu" and about["clip.modality"] == "text"

    assert re.fullmatch("req_[0-9a-f]{32}", request_id)
    assert attributes(spans[name])["clip.request_id"] == request_id
    [line] = [line for line in traced.log() if line.get("request_id") == request_id]
    assert (line["message"], line["method"], line["code"]) == ("call", name, "OK")
    assert line["trace"] == trace.format_trace_id(caller.trace_id)


@pytest.mark.parametrize("how", [over_grpc, over_http])
def test_what_its_caller_does_not_sample_is_not_traced(traced, collector, how):
    unsampled, _ = call(traced, how, ALWAYS_OFF)
    how(traced, {})
    # What comes later has arrived, and so what came before.
    sampled, _ = call(traced, how, ALWAYS_ON)
    collector.of(sampled.trace_id.to_bytes(16, "big"), 6)
    assert unsampled.trace_id.to_bytes(16, "big") not in collector.traces()
    about = [line["trace"] for line in traced.log() if line["message"] == "call" and "trace" in line]
    assert trace.format_trace_id(unsampled.trace_id) not in about


def test_the_last_spans_arrive_before_the_server_ends(start, collector):
    server = start(f"--otlp-endpoint=http://127.0.0.1:{collector.port}")
    caller, _ = call(server, over_grpc, ALWAYS_ON)
    server.terminate()
    assert server.wait() == 0
    spans = [span for span in collector._spans if span.trace_id == caller.trace_id.to_bytes(16, "big")]
    assert len(spans) == 6
