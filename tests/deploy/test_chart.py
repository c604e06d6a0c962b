"""The Helm chart gives what Kustomize gives, and lets values change it."""

import copy
import json
import re
import subprocess

import pytest

import rendering
import schemas
from rendering import DEPLOY, TOOLS, VARIANTS, containers, deployment, of_kind


def normal(rendered):
    """Objects by kind and name, without what may differ: the order of lists with names, and the hash of a name."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, list):
            parts = [plain(part) for part in value]
            named = all(isinstance(part, dict) and "name" in part for part in parts)
            return sorted(parts, key=lambda part: part["name"]) if named else parts
        return re.sub("^clipd-model-[0-9a-z]{10}$", "clipd-model-HASH", value) if isinstance(value, str) else value

    found = {(item["kind"], plain(item["metadata"]["name"])): plain(item) for item in rendered}
    assert len(found) == len(rendered)
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_the_chart_gives_what_kustomize_gives(rendered, name):
    ours, theirs = normal(rendered(name)), normal(rendering.helm(name))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key] == theirs[key], key


def test_a_difference_is_found(rendered):
    changed = copy.deepcopy(rendered("http"))
    containers(changed)[-1]["env"][0]["value"] += "1"
    assert normal(changed) != normal(rendered("http"))


def test_values_change_what_they_name():
    given = {
        "env": {"CLIPD_PRECISION": "bf16", "CLIPD_MAX_STREAMS": 8},
        "image": {"repository": "registry.example.com/clipd", "tag": "1"},
        "model": "openai/clip-vit-base-patch32",
        "resources": {"requests": {"cpu": "4"}},
        "gateway": {"grpcHost": "a.example.com", "httpHost": "b.example.com"},
        "autoscaling": {"min": 3, "max": 4, "prometheus": "http://p:9090"},
    }
    made = rendering.helm("everything", *(f"--set-json={key}={json.dumps(value)}" for key, value in given.items()))
    pull, server = containers(made)
    environment = {entry["name"]: entry.get("value") for entry in server["env"]}
    assert environment["CLIPD_PRECISION"] == "bf16" and environment["CLIPD_MAX_STREAMS"] == "8"
    assert pull["image"] == server["image"] == "registry.example.com/clipd:1"
    assert server["resources"]["requests"]["cpu"] == "4" and server["resources"]["requests"]["memory"] == "12Gi"
    models = [item for item in of_kind(made, "ConfigMap") if "model" in item["data"]]
    assert models[0]["data"]["model"] == given["model"]
    before = [item for item in of_kind(rendering.helm("everything"), "ConfigMap") if "model" in item["data"]]
    assert models[0]["metadata"]["name"] != before[0]["metadata"]["name"]
    assert [of_kind(made, f"{kind}Route")[0]["spec"]["hostnames"][0][0] for kind in ("GRPC", "HTTP")] == ["a", "b"]
    scaler = of_kind(made, "ScaledObject")[0]["spec"]
    assert (scaler["minReplicaCount"], scaler["maxReplicaCount"]) == (3, 4)
    assert scaler["triggers"][0]["metadata"]["serverAddress"] == "http://p:9090"
    assert deployment(rendering.helm("base", "--set=replicas=5"))["spec"]["replicas"] == 5
    for item in made:
        assert schemas.problem(item, schemas.VERSIONS[-1]) is None


@pytest.mark.parametrize("wrong", ["components.htttp=true", "image.tag=7", "replicas=two", "gateways.grpcHost=a"])
def test_wrong_values_are_refused(wrong):
    with pytest.raises(subprocess.CalledProcessError):
        rendering.helm("base", "--set", wrong)


def test_the_chart_is_packed_whole(tmp_path):
    """Links to the files of Kustomize become files of the package, which gives the same."""
    helm = TOOLS / "bin/helm"
    rendering.run(helm, "package", DEPLOY / "helm/clipd", "--destination", tmp_path, stderr=subprocess.DEVNULL)
    (package,) = tmp_path.iterdir()
    command = [helm, "template", "clipd", package, "--kube-version=1.37.0", "--set=components.http=true"]
    assert normal(rendering.objects(rendering.run(*command))) == normal(rendering.helm("http"))
    rendering.run(helm, "lint", "--strict", package)
