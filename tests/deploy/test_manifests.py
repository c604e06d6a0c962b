"""The manifests: what Kubernetes takes, what it admits, and that their parts fit together."""

import copy
import json
import pathlib
import re
import tomllib

import pytest

import rendering
import schemas
from rendering import DEPLOY, ROOT, TOOLS, VARIANTS, containers, deployment, of_kind

# Made by whoever deploys, as the components say; there is never one in the manifests.
SECRETS = {"clipd-keys", "clipd-tls", "clipd-hub"}


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_object_is_what_kubernetes_takes(rendered, name, version):
    problems = [(item["kind"], problem) for item in rendered(name) if (problem := schemas.problem(item, version))]
    assert problems == []


def test_every_component_is_in_a_variant():
    assert {part for parts in VARIANTS.values() for part in parts} == set(rendering.COMPONENTS)


@pytest.mark.parametrize("version", schemas.VERSIONS)
def test_the_production_overlay_is_what_kubernetes_takes(version):
    for item in rendering.kustomize(DEPLOY / "kubernetes/overlays/production"):
        assert schemas.problem(item, version) is None
        assert "registry.example.com/clipd:" in json.dumps(item) or item["kind"] != "Deployment"


def at(item, path):
    for step in path:
        item = item[step]
    return item


# Where an error is planted: kind, where, the key and its new value.
POD = ["spec", "template", "spec"]
PLANTED = {
    "a misspelt field": ("Deployment", [*POD, "containers", 0], "readynessProbe", {}),
    "a misspelt field deep inside": ("Deployment", [*POD, "securityContext"], "runAsNonroot", True),
    "a text for a number": ("Deployment", ["spec"], "replicas", "two"),
    "a number for a text": ("Deployment", [*POD, "containers", 0, "env", 1], "value", 1),
    "a misspelt field of a Service": ("Service", ["spec", "ports", 0], "targetport", "grpc"),
    "a misspelt field of a budget": ("PodDisruptionBudget", ["spec"], "maxUnavailible", 1),
    "a list for an object": ("NetworkPolicy", ["spec"], "podSelector", []),
    "a custom resource's misspelt field": ("ScaledObject", ["spec"], "minReplicas", 2),
    "a custom resource's wrong type": ("ScaledObject", ["spec"], "maxReplicaCount", "ten"),
    "a route's misspelt field": ("GRPCRoute", ["spec", "rules", 0, "backendRefs", 0], "portNumber", 50051),
    "a route's value that is none of the allowed": ("HTTPRoute", ["spec", "rules", 0, "timeouts"], "request", "soon"),
    "a monitor's misspelt field": ("ServiceMonitor", ["spec", "endpoints", 0], "intervall", "15s"),
    "a rule's misspelt field": ("PrometheusRule", ["spec", "groups", 0, "rules", 0], "expression", "1"),
}


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("planted", PLANTED)
def test_planted_errors_are_found(rendered, planted, version):
    kind, path, key, value = PLANTED[planted]
    item = copy.deepcopy(of_kind(rendered("everything"), kind)[0])
    assert schemas.problem(item, version) is None
    at(item, path)[key] = value
    found = schemas.problem(item, version)
    assert found and (key in found or str(value) in found), found


def admitted(*pods):
    """What Kubernetes' own check of the standard `restricted` says to each pod: nothing, or what it forbids."""
    lines = [json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}) for pod in pods]
    return rendering.run(TOOLS / "bin/podsecurity", input="\n".join(lines)).splitlines()


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_are_admitted_where_the_standard_restricted_is_enforced(rendered, name):
    pod = deployment(rendered(name))["spec"]["template"]
    root = copy.deepcopy(pod)
    root["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    host = copy.deepcopy(pod)
    host["spec"]["volumes"] = [{"name": "host", "hostPath": {"path": "/"}}]
    said = admitted(pod, root, host)
    assert said[0] == ""
    assert "allowPrivilegeEscalation" in said[1] and "hostPath" in said[2]
    for container in containers(rendered(name)):
        assert container["securityContext"]["readOnlyRootFilesystem"], container["name"]


def unmatched(rendered):
    """Names that lead nowhere: of ports, Secrets, ConfigMaps, claims, Services, the Deployment and labels."""
    found = []
    pod = deployment(rendered)["spec"]["template"]
    server = containers(rendered)[-1]
    ports = {port["name"] for port in server["ports"]}
    labels = pod["metadata"]["labels"].items()
    have = {(item["kind"], item["metadata"]["name"]) for item in rendered} | {("Secret", name) for name in SECRETS}

    def need(kind, name):
        if (kind, name) not in have:
            found.append(f"{kind} {name}")

    def port(name):
        if name not in ports:
            found.append(f"port {name}")

    def select(selector):
        if not selector["matchLabels"].items() <= labels:
            found.append(f"labels {selector['matchLabels']}")

    for service in of_kind(rendered, "Service"):
        select({"matchLabels": service["spec"]["selector"]})
        for entry in service["spec"]["ports"]:
            port(entry["targetPort"])
    for item in of_kind(rendered, "NetworkPolicy"):
        select(item["spec"]["podSelector"])
        for rule in item["spec"].get("ingress", []):
            for entry in rule["ports"]:
                port(entry["port"])
    for item in of_kind(rendered, "PodDisruptionBudget") + [deployment(rendered)]:
        select(item["spec"]["selector"])
    for constraint in pod["spec"]["topologySpreadConstraints"]:
        select(constraint["labelSelector"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if "httpGet" in server[probe]:
            port(server[probe]["httpGet"]["port"])
        elif server[probe]["grpc"]["port"] not in [entry["containerPort"] for entry in server["ports"]]:
            found.append(f"port of {probe}")
    for item in of_kind(rendered, "HTTPRoute") + of_kind(rendered, "GRPCRoute"):
        for backend in (backend for rule in item["spec"]["rules"] for backend in rule["backendRefs"]):
            need("Service", backend["name"])
            services = [item for item in of_kind(rendered, "Service") if item["metadata"]["name"] == backend["name"]]
            if backend["port"] not in [entry["port"] for item in services for entry in item["spec"]["ports"]]:
                found.append(f"port {backend['port']} of {backend['name']}")
    for item in of_kind(rendered, "ServiceMonitor"):
        matching = [
            service
            for service in of_kind(rendered, "Service")
            if item["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            and item["spec"]["endpoints"][0]["port"] in [entry["name"] for entry in service["spec"]["ports"]]
        ]
        if len(matching) != 1:
            found.append(f"{len(matching)} Services to scrape")
    for item in of_kind(rendered, "ScaledObject") + of_kind(rendered, "HorizontalPodAutoscaler"):
        need("Deployment", item["spec"]["scaleTargetRef"]["name"])
        if "replicas" in deployment(rendered)["spec"]:
            found.append("replicas beside an autoscaler")
    volumes = {}
    for volume in pod["spec"].get("volumes", []):
        volumes[volume["name"]] = volume
        if "secret" in volume:
            need("Secret", volume["secret"]["secretName"])
        if "persistentVolumeClaim" in volume:
            need("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    for container in containers(rendered):
        found += [f"volume {m['name']}" for m in container.get("volumeMounts", []) if m["name"] not in volumes]
        for source in (entry["valueFrom"] for entry in container["env"] if "valueFrom" in entry):
            if "configMapKeyRef" in source:
                need("ConfigMap", source["configMapKeyRef"]["name"])
            if "secretKeyRef" in source:
                need("Secret", source["secretKeyRef"]["name"])
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_every_name_leads_somewhere(rendered, name):
    assert unmatched(rendered(name)) == []


def test_a_name_that_leads_nowhere_is_found(rendered):
    broken = copy.deepcopy(rendered("everything"))
    server = containers(broken)[-1]
    server["ports"] = [port for port in server["ports"] if port["name"] != "metrics"]
    of_kind(broken, "HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"][0]["port"] = 80
    of_kind(broken, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"] = {"app": "clipd"}
    broken = [item for item in broken if item["kind"] != "ConfigMap"]
    found = " ".join(unmatched(broken))
    for word in ["port metrics", "port 80 of clipd", "labels {'app': 'clipd'}", "ConfigMap clipd-model"]:
        assert word in found


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


@pytest.mark.parametrize("name", VARIANTS)
def test_the_server_ends_before_it_is_killed(rendered, name):
    environment = {entry["name"]: entry.get("value") for entry in containers(rendered(name))[-1]["env"]}
    drain, grace = (seconds(environment[f"CLIPD_{flag}"]) for flag in ("DRAIN_DELAY", "SHUTDOWN_GRACE"))
    # The second that clients have to hear of it, and time to start the process's end.
    assert drain < grace
    assert grace + 5 <= deployment(rendered(name))["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]


def test_there_is_one_version():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    for path in [*(DEPLOY / "kubernetes").rglob("*.yaml"), *(DEPLOY / "helm").rglob("*.yaml"), DEPLOY / "README.md"]:
        text = pathlib.Path(path).read_text()
        named = re.findall(r"(?:newTag:|appVersion:|clipd:)\s*\"?(\d+\.\d+\.\d+)", text)
        assert set(named) <= {version}, path


def test_no_secret_is_in_the_manifests(rendered):
    for name in VARIANTS:
        assert of_kind(rendered(name), "Secret") == []
