"""What happens to a cluster of three servers while clients call: each function is one event, from begin to end."""

import contextlib
import pathlib
import shutil
import subprocess
import time

from names import Names
from servers import Ports, Server, free_port, wait_for

# Addresses that nobody's outgoing connections use, so that a server finds its ports free when it comes back.
HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
FOURTH = "127.0.0.5"
# Of a range for tests of networks (RFC 2544): a server there is reached over a wire that can be cut.
FAR_HOST, NEAR_END = "198.18.77.2", "198.18.77.1"
NAMESPACE = "clipd-cluster"

FAULT_SECONDS = 10
# Longer than connections get old in (servers' flag), so that clients that balance by themselves have looked again.
SETTLE_SECONDS = 12

# The files of the model that the program has in it.
MODEL = pathlib.Path(__file__).resolve().parent.parent.parent / "src/model/builtin"


class Cluster:
    """Servers and their name. Fronts are told of members by `tell`, which main sets."""

    def __init__(self, binary, directory, flags, hosts=HOSTS, log=None):
        self.directory = directory
        self.ports = Ports(free_port(), free_port(), free_port())
        self.names = Names(list(hosts))
        self.servers = {}
        self.tell = lambda hosts: None
        self._binary = binary
        self._flags = flags
        self._log = log
        for host in hosts:
            self.start(host)
        for server in self.servers.values():
            server.wait_until_ready()

    def start(self, host, *more):
        inside = ["ip", "netns", "exec", NAMESPACE] if host == FAR_HOST else []
        log = self._log or self.directory / f"{host}.log"
        server = Server(self._binary, host, self.ports, log, *self._flags, *more, inside=inside)
        self.servers[host] = server
        return server

    def members(self, hosts):
        self.names.members = list(hosts)
        self.tell(hosts)

    def share(self, seconds=2):
        """Of the calls of the next seconds, by server, in percent."""
        before = {host: server.served() for host, server in self.servers.items()}
        time.sleep(seconds)
        calls = [max(0, self.servers[host].served() - before[host]) for host in before]
        return "/".join(f"{100 * count / max(1, sum(calls)):.0f}" for count in calls)

    def close(self):
        for server in self.servers.values():
            server.kill()
        self.names.close()


def nothing(cluster):
    """Only time passes, in which connections and streams get old."""
    time.sleep(FAULT_SECONDS)


def rolling_restart(cluster):
    for host in HOSTS:
        cluster.servers[host].terminate()
        cluster.start(host).wait_until_ready()


def scaling(cluster):
    """3 to 4 to 2. Those who leave are no members any more when they are told to end, as in Kubernetes."""
    cluster.start(FOURTH).wait_until_ready()
    cluster.members([*HOSTS, FOURTH])
    time.sleep(SETTLE_SECONDS)
    share = cluster.share()
    cluster.members(HOSTS[:2])
    for host in [HOSTS[2], FOURTH]:
        cluster.servers.pop(host).terminate()
    return share


def kill(cluster):
    """Half a second of silence before, so that calls of every client are under way there."""
    cluster.servers[HOSTS[1]].signal("SIGSTOP")
    time.sleep(0.5)
    cluster.servers[HOSTS[1]].kill()
    time.sleep(3)
    cluster.start(HOSTS[1]).wait_until_ready()


def freeze(cluster):
    cluster.servers[HOSTS[1]].signal("SIGSTOP")
    time.sleep(FAULT_SECONDS)
    cluster.servers[HOSTS[1]].signal("SIGCONT")


def slow(cluster):
    """One server has a tenth of its time."""
    over = time.monotonic() + FAULT_SECONDS
    while time.monotonic() < over:
        cluster.servers[HOSTS[1]].signal("SIGSTOP")
        time.sleep(0.18)
        cluster.servers[HOSTS[1]].signal("SIGCONT")
        time.sleep(0.02)


def network_cut(cluster):
    """Neither end hears of it: nothing arrives any more."""
    in_namespace("ip", "link", "set", "far", "down")
    time.sleep(FAULT_SECONDS)
    in_namespace("ip", "link", "set", "far", "up")


def bad_model(cluster):
    """A roll to a version whose weights are cut short: once with a fourth server, as a Deployment does it, once in
    place, as a StatefulSet does. It stops at the first server that does not become ready, and is taken back."""
    broken = cluster.directory / "broken-model"
    shutil.copytree(MODEL, broken)
    weights = broken / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    cluster.members([*HOSTS, FOURTH])
    never_ready(cluster.start(FOURTH, f"--model={broken}"))
    cluster.members(HOSTS)
    del cluster.servers[FOURTH]

    cluster.servers[HOSTS[0]].terminate()
    never_ready(cluster.start(HOSTS[0], f"--model={broken}"))
    cluster.start(HOSTS[0]).wait_until_ready()


def never_ready(server):
    wait_for(lambda: server.is_ready() or server.ended() is not None, 60, f"{server.host} is ready or ends")
    if server.ended() in (None, 0):
        raise RuntimeError(f"{server.host} serves a broken model")


@contextlib.contextmanager
def wire():
    """A network namespace, and a pair of interfaces between it and here."""
    run = lambda *command: subprocess.run(command, check=True)
    run("ip", "netns", "add", NAMESPACE)
    try:
        run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", NAMESPACE)
        run("ip", "address", "add", f"{NEAR_END}/30", "dev", "near")
        run("ip", "link", "set", "near", "up")
        in_namespace("ip", "address", "add", f"{FAR_HOST}/30", "dev", "far")
        in_namespace("ip", "link", "set", "lo", "up")
        in_namespace("ip", "link", "set", "far", "up")
        yield
    finally:
        # With the namespace alone it goes some time later, and the next one of its name is refused.
        subprocess.run(["ip", "link", "delete", "near"])
        run("ip", "netns", "delete", NAMESPACE)


def in_namespace(*command):
    subprocess.run(["ip", "netns", "exec", NAMESPACE, *command], check=True)
