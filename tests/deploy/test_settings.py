"""What the manifests tell the server: the real program is asked whether it takes it."""

import re
import shutil
import subprocess

import pytest

import rendering
from rendering import VARIANTS, containers, of_kind
from watched import certificate

MIB = 1 << 20
# What the server itself takes with the embedded model, resident, under load on OpenVINO, which takes more than `cpu`.
SERVER = 260 * MIB
UNITS = {"Mi": MIB, "Gi": MIB << 10}
# The only one that a machine without a GPU cannot load a model with; its flags are checked all the same.
NEEDS_GPU = {"cuda", "everything"}


@pytest.fixture(scope="module")
def mounts(clipd, tmp_path_factory):
    """What would be mounted into the pods: keys, a certificate, and the cache of the hub with a model."""
    folder = tmp_path_factory.mktemp("mounts")
    keys, tls, models = folder / "keys", folder / "tls", folder / "models"
    for path in (keys, tls, models):
        path.mkdir()
    rendering.run(clipd, "keys", "add", "search", "--file", keys / "keys.toml")
    certificate(tls)
    return {"/etc/clipd/keys": keys, "/etc/clipd/tls": tls, "/models": models}


def cache_of_the_hub(models, repository):
    """The embedded model where a pull of `repository` would have put it."""
    cache = models / "hub" / ("models--" + repository.replace("/", "--"))
    commit = "0" * 40
    if not cache.exists():
        (cache / "refs").mkdir(parents=True)
        (cache / "refs/main").write_text(commit)
        shutil.copytree(rendering.ROOT / "src/model/builtin", cache / "snapshots" / commit)


def environment(rendered, container):
    """Names and values as Kubernetes would give them to the container."""
    configs = {item["metadata"]["name"]: item["data"] for item in of_kind(rendered, "ConfigMap")}
    values = {}
    for entry in container["env"]:
        source = entry.get("valueFrom", {})
        if "configMapKeyRef" in source:
            values[entry["name"]] = configs[source["configMapKeyRef"]["name"]][source["configMapKeyRef"]["key"]]
        elif "resourceFieldRef" in source:
            kind, resource = source["resourceFieldRef"]["resource"].split(".")
            values[entry["name"]] = container["resources"][kind][resource]
        elif "secretKeyRef" in source:
            values[entry["name"]] = "token"
        else:
            values[entry["name"]] = entry["value"]
    return values


def check(clipd, values, mounts):
    """`clipd serve --check-config` with this environment and no other."""
    for path, folder in mounts.items():
        values = {name: re.sub(f"^{path}(?=/|$)", str(folder), value) for name, value in values.items()}
    command = [clipd, "serve", "--check-config"]
    return subprocess.run(command, env=values, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variable_is_a_flag_of_the_server(clipd, rendered, name):
    known = set(re.findall(r"\[env:\s+(\w+)=", rendering.run(clipd, "serve", "--help"))) | {"HF_HOME"}
    assert {entry["name"] for entry in containers(rendered(name))[-1]["env"]} - known == set()
    assert "CLIPD_DRAIN_DELY" not in known and "CLIPD_DRAIN_DELAY" in known


@pytest.mark.parametrize("name", VARIANTS)
def test_the_server_takes_its_settings(clipd, rendered, mounts, name):
    container = containers(rendered(name))[-1]
    values = environment(rendered(name), container)
    if "CLIPD_MODEL" in values:
        cache_of_the_hub(mounts["/models"], values["CLIPD_MODEL"])
    done = check(clipd, values, mounts)
    if name in NEEDS_GPU:
        # 64 would be a flag; what is missing here is the library for GPUs.
        assert done.returncode == 1 and "cuda" in done.stderr, done.stderr
        return
    assert done.returncode == 0, done.stderr
    shown = dict(line.removeprefix("--").split(" ", 1) for line in done.stdout.splitlines() if line.startswith("--"))
    for variable in values.keys() - {"CLIPD_LOG_FORMAT", "HF_HOME"}:
        flag = variable.removeprefix("CLIPD_").lower().replace("_", "-")
        assert shown[flag].endswith("(environment)"), variable
    together = int(re.search(r"together (\d+) MiB", done.stdout)[1]) * MIB
    limit = container["resources"]["limits"]["memory"]
    assert together + SERVER <= int(limit[:-2]) * UNITS[limit[-2:]], f"{done.stdout}: {limit}"


def test_a_wrong_value_is_found(clipd, rendered, mounts):
    values = environment(rendered("base"), containers(rendered("base"))[-1])
    done = check(clipd, values | {"CLIPD_DRAIN_DELAY": "5"}, mounts)
    assert done.returncode == 64 and "drain-delay" in done.stderr
