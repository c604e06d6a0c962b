"""The load tests of `deploy/ghz` send requests that the server answers."""

import json
import pathlib
import subprocess
import sys

import pytest
from clip.v1 import clip_pb2 as pb
from google.protobuf import json_format

ROOT = pathlib.Path(__file__).parents[2]
GHZ = ROOT / "deploy/ghz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load-data")
    subprocess.run([sys.executable, GHZ / "make_data.py", folder], check=True, timeout=60)
    return folder


@pytest.mark.parametrize(("name", "message"), [("embed", pb.EmbedRequest), ("classify", pb.ClassifyRequest)])
def test_every_request_is_answered(clip, folder, name, message):
    config = json.loads((GHZ / f"{name}.json").read_text())
    assert (ROOT / config["proto"]).is_file()
    assert pathlib.Path(config["data-file"]).name == f"{name}.json"
    service, method = config["call"].split("/")
    assert service == pb.DESCRIPTOR.services_by_name["ClipService"].full_name

    requests = json.loads((folder / f"{name}.json").read_text())
    assert len(requests) == 8
    for request in requests:
        [result] = getattr(clip, method)(json_format.ParseDict(request, message()), timeout=60).results
        assert not result.HasField("error")
