"""What stands between clients and servers: a proxy with its configuration as it stands, or the client's own policy.

A front knows where clients call (`target`, `options`, `http`), and hears of it when the members of the cluster change.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import grpc
from names import NAME
from servers import free_port, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOOD = ROOT / "deploy/loadbalancers"
NAIVE = pathlib.Path(__file__).parent / "naive"
SERVICE_CONFIG = json.loads((GOOD / "service-config.json").read_text())

# Where a call may be sent to another server before it is answered: more than the slowest answer takes.
ANSWER_TIMEOUT = "3s"


class RoundRobin:
    """gRPC's client chooses among the addresses of the name. Over HTTP each connection goes to one of them."""

    name = "round_robin"

    def __init__(self, naive, ports, names, directory):
        self._naive = naive
        self.http = f"http://{NAME}:{ports.http}"
        if naive:
            addresses = ",".join(f"{host}:{ports.grpc}" for host in names.members)
            self.target = f"ipv4:{addresses}"
        else:
            self.target = f"dns://127.0.0.1:{names.port}/{NAME}:{ports.grpc}"

    def options(self, retries):
        wanted = ["loadBalancingConfig"] if self._naive else ["loadBalancingConfig", "healthCheckConfig"]
        options = [
            *service_config([*wanted, "methodConfig"] if retries else wanted),
            ("grpc.default_authority", "clipd"),
        ]
        if self._naive:
            return options
        return [
            *options,
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
            ("grpc.keepalive_time_ms", 2000),
            ("grpc.keepalive_timeout_ms", 1000),
            ("grpc.http2.ping_timeout_ms", 1000),
        ]

    def members_changed(self, hosts):
        pass

    def stop(self):
        pass


class Proxy:
    """A process before the servers. Its files and its log are in a directory of its own."""

    def __init__(self, naive, ports, names, directory):
        self._naive = naive
        self._directory = directory / self.name
        self._directory.mkdir()
        grpc_port, http_port = free_port(), free_port()
        self.target = f"127.0.0.1:{grpc_port}"
        self.http = f"http://127.0.0.1:{http_port}"
        self._ports = ports
        variables = {
            "GRPC_PORT": grpc_port,
            "HTTP_PORT": http_port,
            "DNS_ADDRESS": "127.0.0.1",
            "DNS_PORT": names.port,
            "CLIPD_NAME": NAME,
            "CLIPD_GRPC_PORT": ports.grpc,
            "CLIPD_HTTP_PORT": ports.http,
            "CLIPD_METRICS_PORT": ports.metrics,
            "ANSWER_TIMEOUT": ANSWER_TIMEOUT,
        }
        self._environment = {name: str(value) for name, value in variables.items()}
        self._template = (NAIVE if naive else GOOD) / self.file
        self.write_members(names.members)
        with open(self._directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
            )
        with grpc.insecure_channel(self.target, self.options(False)) as channel:
            try:
                grpc.channel_ready_future(channel).result(20)
            except grpc.FutureTimeoutError:
                self.stop()
                raise RuntimeError(f"{self.name}: {(self._directory / 'log').read_text()}") from None

    def filled_in(self):
        """The configuration with the variables' values, as envsubst gives it."""
        config = self._directory / self.file
        value = lambda name: self._environment[name[1]]
        config.write_text(re.sub(r"\$\{([A-Z_]+)\}", value, self._template.read_text()))
        return config

    def options(self, retries):
        # Health and balance are the proxy's.
        return service_config(["methodConfig"] if retries else [])

    def write_members(self, hosts):
        pass

    def members_changed(self, hosts):
        """Those who look the name up find out by themselves."""

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Envoy(Proxy):
    name = "envoy"
    file = "envoy.yaml"

    def command(self):
        envoy = pathlib.Path(sys.executable).parent / "envoy"
        return [envoy, "-c", self.filled_in(), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]


class Haproxy(Proxy):
    name = "haproxy"
    file = "haproxy.cfg"

    def command(self):
        return ["haproxy", "-db", "-f", self._template]


class Nginx(Proxy):
    name = "nginx"
    file = "nginx.conf"

    def command(self):
        process = f"daemon off; pid {self._directory}/pid; worker_processes 1;"
        return ["nginx", "-c", self.filled_in(), "-g", process]

    def write_members(self, hosts):
        for api in ["grpc", "http"]:
            port = getattr(self._ports, api)
            failures = "" if self._naive else " max_fails=1 fail_timeout=2s"
            lines = [f"server {host}:{port}{failures};\n" for host in hosts]
            (self._directory / f"clipd-{api}.servers").write_text("".join(lines))

    def members_changed(self, hosts):
        self.write_members(hosts)
        before = self._workers()
        self._process.send_signal(1)
        # Old workers live until their streams end; a new one has the new servers.
        wait_for(lambda: self._workers() - before, 10, "nginx has read its servers")

    def _workers(self):
        pid = self._process.pid
        return set(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def service_config(parts):
    if not parts:
        return []
    return [("grpc.service_config", json.dumps({part: SERVICE_CONFIG[part] for part in parts}))]


FRONTS = {front.name: front for front in [Envoy, Haproxy, Nginx, RoundRobin]}
