"""Servers behind a fixed list of addresses are restarted one after the other, and no call is lost.

The client is gRPC's own, with nothing but the policy round_robin: no health checks, no retry policy. All that it knows
of a server is whether a connection is accepted.
"""

import collections
import threading

import grpc
import pytest
from clip.v1 import clip_pb2 as pb
from clip.v1.clip_pb2_grpc import ClipServiceStub
from test_server import wait_for

CALLERS = 4
# Addresses that nobody's outgoing connections use, so that a server finds its port free when it comes back.
HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
OK = 'clip_requests_total{method="Embed",code="OK"}'


class Load:
    """Calls one after the other, from several threads, until told to stop."""

    def __init__(self, channel):
        self._clip = ClipServiceStub(channel)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.codes = collections.Counter()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self):
        request = pb.EmbedRequest(inputs=[pb.Input(text="a cat")])
        # A pause leaves the machine to the server that starts.
        while not self._stop.wait(0.005):
            try:
                self._clip.Embed(request, timeout=30)
                self.codes["OK"] += 1
            except grpc.RpcError as error:
                self.codes[f"{error.code()}: {error.details()}"] += 1


@pytest.mark.timeout(240)
def test_a_rolling_restart_loses_no_call(start):
    servers = [start(listen=f"{host}:0") for host in HOSTS]
    addresses = ",".join(server.address for server in servers)
    options = [
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        # Otherwise it is the whole list, which HTTP/2 does not allow as the name of a server.
        ("grpc.default_authority", "clipd"),
    ]
    with grpc.insecure_channel(f"ipv4:{addresses}", options=options) as channel, Load(channel) as load:
        for place, server in enumerate(servers):
            wait_for(lambda: all(each.metrics().get(OK, 0) > 0 for each in servers), seconds=60)
            server.terminate()
            assert server.wait() == 0
            servers[place] = start(listen=server.address)
        wait_for(lambda: all(each.metrics().get(OK, 0) > 0 for each in servers), seconds=60)
    assert set(load.codes) == {"OK"}, load.codes
    for server in servers:
        server.terminate()
        assert server.wait() == 0
