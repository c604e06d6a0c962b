"""The variants of the manifests, and what kubectl and Helm make of each."""

import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / "target/deploy"

COMPONENTS = {
    **{path.name: path for path in sorted((DEPLOY / "kubernetes/components").iterdir())},
    "monitoring": DEPLOY / "monitoring",
}

# Each component by itself, with what its file says it needs, and all together.
VARIANTS = {
    "base": [],
    "http": ["http"],
    "cuda": ["cuda"],
    "keys": ["keys"],
    "tls": ["tls"],
    "hub-model": ["hub-model"],
    "gateway": ["http", "gateway"],
    "monitoring": ["monitoring"],
    "hpa": ["monitoring", "autoscaling-hpa"],
    "keda": ["monitoring", "autoscaling-keda"],
    "everything": ["http", "keys", "tls", "hub-model", "cuda", "gateway", "monitoring", "autoscaling-keda"],
}


def run(*command, **how):
    """What it printed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120, **how).stdout


def objects(text):
    return [document for document in yaml.safe_load_all(text) if document]


def kustomize(directory):
    return objects(run(TOOLS / "venv/bin/kubectl", "kustomize", directory))


def variant(name, folder):
    """The objects of one of VARIANTS, as an overlay in `folder` would get them."""
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(DEPLOY / "kubernetes/base", folder)],
        "components": [os.path.relpath(COMPONENTS[part], folder) for part in VARIANTS[name]],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return kustomize(folder)


def of_kind(rendered, kind):
    return [item for item in rendered if item["kind"] == kind]


def deployment(rendered):
    (only,) = of_kind(rendered, "Deployment")
    return only


def containers(rendered):
    """Those of the Deployment, the server's own last."""
    pod = deployment(rendered)["spec"]["template"]["spec"]
    return pod.get("initContainers", []) + pod["containers"]


def helm(name, *arguments):
    """What the chart makes of one of VARIANTS; a Helm that `go install` built thinks of an old Kubernetes."""
    on = [f"--set=components.{part}=true" for part in VARIANTS[name]]
    command = [TOOLS / "bin/helm", "template", "clipd", DEPLOY / "helm/clipd", "--kube-version=1.37.0", *on, *arguments]
    return objects(run(*command, stderr=subprocess.DEVNULL))
