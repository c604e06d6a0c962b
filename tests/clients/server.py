"""A clipd process, from its start on free ports to its end."""

import json
import os
import signal
import subprocess
import time
import urllib.request

import grpc
from clip.v1.clip_pb2_grpc import ClipServiceStub
from grpc_health.v1.health_pb2_grpc import HealthStub

# A debug build on a busy machine starts in a few seconds.
START_SECONDS = 60
# More than the server's own grace period, so that it is the server that gives up first.
STOP_SECONDS = 40

CLIP_SERVICE = "clip.v1.ClipService"


class Server:
    """Listens on a free port of 127.0.0.1 unless told otherwise; ready once constructed."""

    def __init__(self, binary, log_path, *flags, listen="127.0.0.1:0"):
        self._log_path = log_path
        # Settings of the person who runs the tests are not settings of the tests.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLIPD_")}
        ports = [f"--listen={listen}", "--http-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
        with open(log_path, "wb") as log:
            self._process = subprocess.Popen(
                [binary, "serve", *ports, "--log-format=json", *flags],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment,
            )
        try:
            self.pid = self._process.pid
            starting = self._wait_for_line("starting")
            self.address = starting["grpc"]
            self.http = f"http://{starting['http']}"
            self._metrics = f"http://{starting['metrics']}/metrics"
            self.channel = grpc.insecure_channel(self.address)
            self.clip = ClipServiceStub(self.channel)
            self.health = HealthStub(self.channel)
            self._wait_for_line("ready")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def log(self):
        """Fields of every line so far; a line that is not JSON is an error."""
        with open(self._log_path, encoding="utf-8") as file:
            # The last line may be half written.
            return [json.loads(line)["fields"] for line in file if line.endswith("\n")]

    def metrics(self):
        """Samples by name and labels, as in `clip_requests_total{method="Embed",code="OK"}`."""
        with urllib.request.urlopen(self._metrics, timeout=10) as response:
            lines = response.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {sample: float(value) for sample, value in samples}

    def terminate(self):
        """What Kubernetes does first."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self):
        """The exit code, once the process has ended."""
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self.channel.close()

    def _wait_for_line(self, message):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for fields in self.log():
                if fields["message"] == message:
                    return fields
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no line {message!r}, exit code {self._process.poll()}: {self.log()}")
