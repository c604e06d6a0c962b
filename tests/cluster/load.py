"""Clients that call until told to stop, and what became of every call.

Unary calls come from gRPC's client, HTTP calls from OpenAI's, streams from a client that sends again on a new stream
what the old one left without an answer. Every answer is compared with the embedding that one server gave before.
"""

import base64
import collections
import pathlib
import threading
import time

import grpc
import numpy
import openai
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub

PICTURES = sorted((pathlib.Path(__file__).parent.parent / "fixtures/images").glob("*.png"))
INPUTS = [pb.Input(image=pb.Image(encoded=path.read_bytes())) for path in PICTURES]
INPUTS += [pb.Input(text=f"an emoji of a {path.stem}") for path in PICTURES]
TEXTS = range(len(PICTURES), len(INPUTS))

DEADLINE_SECONDS = 10
# Inputs of a stream without an answer.
WINDOW = 32
# A call without an end by then is unanswered.
PATIENCE_SECONDS = 45


class Answers:
    """What the answers should be, from a server that is called directly."""

    def __init__(self, address):
        with grpc.insecure_channel(address) as channel:
            results = ClipServiceStub(channel).Embed(pb.EmbedRequest(inputs=INPUTS), timeout=60).results
        self._expected = [numpy.array(result.embedding.values) for result in results]

    def check(self, place, values):
        # Their neighbours in a batch change the last bits.
        if len(values) == 0 or numpy.dot(self._expected[place], numpy.array(values)) < 0.9999:
            raise ValueError("a wrong answer")


class Load:
    """The clients of one front."""

    def __init__(self, front, answers, retries, unary=6, http=3, streams=2, rate=8):
        self.front = front
        self.sent = collections.Counter()
        self.answered = collections.Counter()
        self.failed = collections.Counter()
        self.doubled = 0
        self.ends = collections.Counter()
        self.resent = 0
        # (begin, seconds) of what was answered, over both APIs.
        self.durations = []
        self._http_attempts = 0
        self._pause = 1 / rate
        self._answers = answers
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._channels = []
        self._threads = []
        for _ in range(unary):
            stub = self._stub(retries)
            self._threads.append(threading.Thread(target=self._repeat, args=("grpc", self._unary(stub)), daemon=True))
        for _ in range(http):
            call = self._http(retries)
            self._threads.append(threading.Thread(target=self._repeat, args=("http", call), daemon=True))
        self._streams = [Stream(self, self._stub(retries)) for _ in range(streams)]
        self._threads += [threading.Thread(target=stream.run, daemon=True) for stream in self._streams]

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Waits for the last answers."""
        self._stop.set()
        over = time.monotonic() + PATIENCE_SECONDS
        for thread in self._threads:
            thread.join(max(0, over - time.monotonic()))
        for channel in self._channels:
            channel.close()

    def unanswered(self):
        """Calls and inputs of streams that neither succeeded nor failed."""
        return self.sent.total() - self.answered.total() - self.failed.total()

    def http_retries(self):
        return self._http_attempts - self.sent["http"]

    def _stub(self, retries):
        # A connection of its own for each, as clients on several machines have.
        options = [*self.front.options(retries), ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(self.front.target, options=options)
        self._channels.append(channel)
        return ClipServiceStub(channel)

    def _repeat(self, kind, call):
        place = 0
        while not self._stop.wait(self._pause):
            place = (place + 1) % len(INPUTS)
            self.count(self.sent, kind)
            begin = time.monotonic()
            try:
                call(place)
            except Exception as error:
                self.count(self.failed, f"{kind} {status(error)}")
                continue
            with self._lock:
                self.durations.append((begin, time.monotonic() - begin))
                self.answered[kind] += 1

    def _unary(self, stub):
        def call(place):
            answer = stub.Embed(pb.EmbedRequest(inputs=[INPUTS[place]]), timeout=DEADLINE_SECONDS)
            self._answers.check(place, answer.results[0].embedding.values)

        return call

    def _http(self, retries):
        # Two are the library's own default.
        client = openai.OpenAI(
            base_url=f"{self.front.http}/v1",
            api_key="none",
            max_retries=2 if retries else 0,
            timeout=DEADLINE_SECONDS,
        )
        client._client.event_hooks = {"request": [self._count_attempt]}

        def call(place):
            place = TEXTS[place % len(TEXTS)]
            answer = client.embeddings.create(model="emoji-clip", input=INPUTS[place].text, encoding_format="base64")
            values = answer.data[0].embedding
            self._answers.check(place, decoded(values) if isinstance(values, str) else values)

        return call

    def _count_attempt(self, _request):
        with self._lock:
            self._http_attempts += 1

    def count(self, counter, key):
        with self._lock:
            counter[key] += 1


class Stream:
    """One StreamEmbed after the other, each with the inputs that the last one left without an answer first."""

    def __init__(self, load, stub):
        self._load = load
        self._stub = stub
        self._open = {}
        self._answered = set()
        self._next = 0

    def run(self):
        load = self._load
        while not (load._stop.is_set() and not self._open):
            over = threading.Event()
            try:
                for answer in self._stub.StreamEmbed(self._inputs(over)):
                    self._take(answer)
                if not load._stop.is_set():
                    load.count(load.ends, "OK")
            except grpc.RpcError as error:
                load.count(load.ends, error.code().name)
                time.sleep(0.05)
            except ValueError:
                # The channel is closed: nobody waits any longer.
                return
            finally:
                over.set()

    def _inputs(self, over):
        load = self._load
        for tag, place in list(self._open.items()):
            with load._lock:
                load.resent += 1
            yield pb.StreamEmbedRequest(tag=tag, input=INPUTS[place])
        while not over.wait(load._pause) and not load._stop.is_set():
            if len(self._open) >= WINDOW:
                continue
            tag, place = self._next, self._next % len(INPUTS)
            self._next += 1
            self._open[tag] = place
            load.count(load.sent, "stream")
            yield pb.StreamEmbedRequest(tag=tag, input=INPUTS[place])

    def _take(self, answer):
        load = self._load
        if answer.tag in self._answered:
            with load._lock:
                load.doubled += 1
            return
        # UNAVAILABLE of one input: it is sent again with the next stream.
        if answer.error.code == grpc.StatusCode.UNAVAILABLE.value[0]:
            load.count(load.ends, "(input UNAVAILABLE)")
            return
        place = self._open.pop(answer.tag)
        self._answered.add(answer.tag)
        try:
            load._answers.check(place, answer.embedding.values)
            load.count(load.answered, "stream")
        except ValueError as error:
            load.count(load.failed, f"stream {answer.error.message or error}")


def decoded(text):
    return numpy.frombuffer(base64.b64decode(text), dtype="<f4")


def status(error):
    """In a word."""
    if isinstance(error, grpc.RpcError):
        return error.code().name
    if isinstance(error, openai.APIStatusError):
        return str(error.status_code)
    return type(error).__name__
