"""Three servers behind each front, clients of every kind, and an event: what was lost? Called by `run`.

Prints a row for each front, and fails where a promise is broken: see `Case.promises`.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import sys
import tempfile
import time
from typing import Callable

import events
import grpc_observability
from fronts import FRONTS
from load import Answers, Load
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

COLUMNS = [
    "front", "client retries", "sent: gRPC, HTTP, stream inputs", "answered", "retried: gRPC, HTTP, stream inputs",
    "failed", "unanswered", "doubled", "streams ended by", "p50, p99, max ms", "share of each server afterwards, %",
]
FLAGS = ["--drain-delay=3s", "--max-connection-age=10s"]


@dataclasses.dataclass
class Case:
    title: str
    event: Callable
    # Whether clients that do not, or do, send again must lose nothing.
    promises: dict = dataclasses.field(default_factory=dict)
    flags: list = dataclasses.field(default_factory=lambda: FLAGS)
    far: bool = False
    log: str = None


ALWAYS = {False: True, True: True}
CASES = {
    "restart": Case("Rolling restart (SIGTERM, `--drain-delay 3s`)", events.rolling_restart, ALWAYS),
    "scaling": Case("Three servers, then four, then two", events.scaling, ALWAYS),
    "kill": Case("SIGKILL of one, started again after 3 s", events.kill, {True: True}),
    "freeze": Case("SIGSTOP of one for 10 s", events.freeze),
    "slow": Case("One server with a tenth of its time for 10 s", events.slow, ALWAYS),
    "cut": Case("The network of one cut for 10 s", events.network_cut, far=True),
    "disk": Case(
        "Logs go to a full disk; rolling restart", events.rolling_restart, ALWAYS, log="/dev/full"
    ),
    "model": Case("A roll to a model that is broken", events.bad_model, ALWAYS),
    "age": Case(
        "No event, `--max-connection-age 3s --max-stream-age 3s`", events.nothing, ALWAYS,
        ["--max-connection-age=3s", "--max-stream-age=3s"],
    ),
}


class Attempts:
    """gRPC's own count of how often calls were begun, by where they went."""

    def __init__(self):
        self._reader = InMemoryMetricReader()
        self._plugin = grpc_observability.OpenTelemetryPlugin(meter_provider=MeterProvider([self._reader]))
        self._plugin.register_global()

    def close(self):
        self._plugin.deregister_global()

    def of(self, target):
        """Of unary calls. What has just ended is not counted before a second has passed."""
        time.sleep(1.5)
        data = self._reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        points = [p for m in metrics if m.name == "grpc.client.attempt.started" for p in m.data.data_points]
        here = {"grpc.target": target, "grpc.method": "clip.v1.ClipService/Embed"}
        return sum(point.value for point in points if here.items() <= dict(point.attributes).items())


def run(case, names, retries, naive, binary, attempts, size):
    """One event for the clients of all these fronts; returns their rows, and what is wrong."""
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipd-cluster-")))
        hosts = events.HOSTS
        if case.far:
            stack.enter_context(events.wire())
            hosts = [hosts[0], events.FAR_HOST, hosts[2]]
        cluster = events.Cluster(binary, directory, case.flags, hosts, case.log)
        stack.callback(cluster.close)
        answers = Answers(f"{hosts[0]}:{cluster.ports.grpc}")
        fronts = []
        for name in names:
            fronts.append(FRONTS[name](naive, cluster.ports, cluster.names, directory))
            stack.callback(fronts[-1].stop)
        cluster.tell = lambda members: [front.members_changed(members) for front in fronts]
        before = [attempts.of(front.target) for front in fronts]
        loads = [Load(front, answers, retries, **size) for front in fronts]
        for load in loads:
            load.start()
        try:
            time.sleep(2)
            begin = time.monotonic()
            shares = case.event(cluster)
            end = time.monotonic()
            time.sleep(2)
            shares = ", then ".join([*([shares] if shares else []), cluster.share()])
        finally:
            for load in loads:
                load.stop()
        began = [attempts.of(load.front.target) - count for load, count in zip(loads, before)]
    rows, wrong = [], []
    for load, calls in zip(loads, began):
        rows.append(row(load, retries, naive, calls, (begin, end), shares))
        if load.unanswered() or load.doubled:
            wrong.append(f"{load.front.name}: {load.unanswered()} unanswered, {load.doubled} doubled")
        if load.failed and case.promises.get(retries) and not naive:
            wrong.append(f"{load.front.name}, {'with' if retries else 'without'} retries: lost {words(load.failed)}")
    return rows, wrong


def row(load, retries, naive, calls, during, shares):
    kinds = ["grpc", "http", "stream"]
    seconds = sorted(length for begin, length in load.durations if during[0] <= begin <= during[1])
    at = lambda share: f"{1000 * seconds[min(len(seconds) - 1, int(share * len(seconds)))]:.0f}"
    return [
        load.front.name + (" (naive)" if naive else ""),
        "yes" if retries else "no",
        " ".join(f"{load.sent[kind]}" for kind in kinds),
        f"{load.answered.total()}",
        f"{calls - load.sent['grpc']} {load.http_retries()} {load.resent}",
        words(load.failed),
        f"{load.unanswered()}",
        f"{load.doubled}",
        words(load.ends),
        f"{at(0.5)} {at(0.99)} {at(1)}" if seconds else "-",
        shares,
    ]


def words(counter):
    return ", ".join(f"{count} {what}" for what, count in sorted(counter.items())) or "0"


def table_line(cells):
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clipd", help="path of the program")
    parser.add_argument("--full", action="store_true", help="every case, one front at a time; about half an hour")
    parser.add_argument("--cases", default=",".join(CASES), help="some of them; implies --full")
    parser.add_argument("--fronts", default=",".join(FRONTS), help="some of them; implies --full")
    parser.add_argument("--retries", choices=["yes", "no", "both"], default="both")
    parser.add_argument("--naive", action="store_true", help="with the configurations that one writes first")
    arguments = parser.parse_args()
    names = arguments.fronts.split(",")
    full = arguments.full or arguments.cases != parser.get_default("cases") or names != list(FRONTS) or arguments.naive
    if full:
        how = {"yes": [True], "no": [False], "both": [False, True]}[arguments.retries]
        plan = [(CASES[case], [[name] for name in names], how, {}) for case in arguments.cases.split(",")]
    else:
        # All fronts before the same servers, with few clients each.
        few = {"unary": 2, "http": 1, "streams": 1}
        plan = [(CASES["restart"], [names], [False], few), (CASES["kill"], [names], [True], few)]

    wrong = []
    with contextlib.closing(Attempts()) as attempts:
        for case, groups, how, size in plan:
            print(f"\n**{case.title}**\n\n{table_line(COLUMNS)}\n{'|---' * len(COLUMNS)}|", flush=True)
            for group in groups:
                for retries in how:
                    rows, faults = run(case, group, retries, arguments.naive, arguments.clipd, attempts, size)
                    print("\n".join(map(table_line, rows)), flush=True)
                    wrong += [f"{case.title}: {fault}" for fault in faults]
    if wrong:
        sys.exit("\n".join(["", *wrong]))


if __name__ == "__main__":
    main()
