"""The program, and every rendering once."""

import functools

import pytest

import rendering


def pytest_addoption(parser):
    parser.addoption("--clipd", required=True, help="path of the program")


@pytest.fixture(scope="session")
def clipd(request):
    return request.config.getoption("--clipd")


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """The objects of a variant; not to be changed."""
    return functools.cache(lambda name: rendering.variant(name, tmp_path_factory.mktemp(name)))
