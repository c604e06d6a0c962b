"""One server for all tests, and one of its own for a test that ends it."""

import itertools
import pathlib

import pytest
from server import Server


def pytest_addoption(parser):
    parser.addoption("--clipd", required=True, help="path of the program")


@pytest.fixture(scope="session")
def start(request, tmp_path_factory):
    """Starts a server with flags. The caller ends it; one that a failed test left is ended here."""
    logs = tmp_path_factory.mktemp("logs")
    numbers = itertools.count(1)
    started = []

    def start(*flags, **how):
        log = logs / f"{next(numbers)}.log"
        # What `auto` takes depends on the machine, and these tests compare with the reference.
        started.append(Server(request.config.getoption("--clipd"), log, "--device=cpu", *flags, **how))
        return started[-1]

    yield start
    for server in started:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def server(start):
    server = start()
    yield server
    server.terminate()
    assert server.wait() == 0, server.log()


@pytest.fixture(scope="session")
def clip(server):
    return server.clip


@pytest.fixture(scope="session")
def pictures():
    """Folder of the sample pictures."""
    return pathlib.Path(__file__).parent.parent / "fixtures/images"
