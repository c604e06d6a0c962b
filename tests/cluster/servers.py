"""clipd processes, each on a loopback address of its own, all on the same three ports as machines of a cluster are."""

import collections
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

# A debug build on a busy machine starts in a few seconds.
START_SECONDS = 60
# More than the server's own grace period.
STOP_SECONDS = 40

Ports = collections.namedtuple("Ports", "grpc http metrics")


def free_port():
    """One that nobody uses on any address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def wait_for(state, seconds, what):
    """Returns what `state` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (reached := state()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return reached


def get(url):
    """The page, or None if there is none, or one that says no."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.read().decode()
    except OSError:
        return None


class Server:
    """Not ready yet once constructed. `inside` is what comes before the command, such as a network namespace."""

    def __init__(self, binary, host, ports, log, *flags, inside=()):
        self.host = host
        self.metrics = f"http://{host}:{ports.metrics}"
        listen = [f"--{name}={host}:{port}" for name, port in zip(["listen", "http-listen", "metrics-listen"], ports)]
        # Settings of the person who runs the tests are not settings of the tests.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLIPD_")}
        command = [*inside, binary, "serve", *listen, "--device=cpu", "--precision=fp32", "--threads=1", *flags]
        with open(log, "ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=file, env=environment)
        self._log = pathlib.Path(log)

    def is_ready(self):
        return get(f"{self.metrics}/readyz") is not None

    def wait_until_ready(self):
        """The process may end instead, which is an error."""
        wait_for(lambda: self.is_ready() or self.ended() is not None, START_SECONDS, f"{self.host} is ready")
        if self.ended() is not None:
            raise RuntimeError(f"{self.host} ended with {self.ended()}: {self._last_words()}")

    def ended(self):
        return self._process.poll()

    def served(self):
        """Calls answered with OK, so far."""
        page = get(f"{self.metrics}/metrics") or ""
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("clip_requests_total"))
        return sum(float(value) for name, value in lines if 'code="OK"' in name and "mbed" in name)

    def signal(self, name):
        self._process.send_signal(getattr(signal, name))

    def terminate(self):
        """As Kubernetes does; returns once the process has ended, which must be in peace."""
        self.signal("SIGTERM")
        code = self._process.wait(STOP_SECONDS)
        if code != 0:
            raise RuntimeError(f"{self.host} ended with {code}: {self._last_words()}")

    def _last_words(self):
        return self._log.read_text()[-1000:] if self._log.is_file() else f"logged to {self._log}"

    def kill(self):
        if self.ended() is None:
            self._process.kill()
        self._process.wait()
