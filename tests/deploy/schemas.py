"""Kubernetes' schemas and those of the custom resources, strictly: a field that they do not have is an error."""

import functools

import jsonschema
import kubernetes_validate
import yaml

from rendering import TOOLS

# The oldest that the manifests are for, and the newest that the package has.
VERSIONS = ["1.29", "1.37"]

# Custom resource definitions, from the modules that `run` downloads.
DEFINITIONS = [
    "gateway-api/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    "gateway-api/config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
    "keda/config/crd/bases/keda.sh_scaledobjects.yaml",
    "prometheus-operator/example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    "prometheus-operator/example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
]


def strict(schema):
    """An API server drops fields that a structural schema does not have; here they are refused."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


@functools.cache
def custom():
    """Strict schemas by apiVersion and kind."""
    found = {}
    for path in DEFINITIONS:
        spec = yaml.safe_load((TOOLS / "modules" / path).read_text())["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            # Every object has these; `metadata` is for the API server to check.
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = strict(schema)
    return found


def problem(item, version):
    """What is wrong with an object, or None."""
    schema = custom().get((item["apiVersion"], item["kind"]))
    if schema:
        error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(item))
        return error and f"{error.json_path}: {error.message}"
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{error.path}: {error.message}"
    return None
