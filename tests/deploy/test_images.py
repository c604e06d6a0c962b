"""The Dockerfiles, as far as no registry of images is needed: a linter; what they name is sent to the builder."""

import re
import subprocess

import pytest

from rendering import DEPLOY, ROOT, TOOLS, run

DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))
# Versions of Debian's packages come with the base image; a stage's `cd` is for one command.
ACCEPTED = ["--ignore=DL3008", "--ignore=DL3003"]


def lint(dockerfile):
    """What hadolint says, and shellcheck within it about each RUN."""
    command = [TOOLS / "venv/bin/hadolint", "--no-color", *ACCEPTED, "-"]
    return subprocess.run(command, input=dockerfile, stdout=subprocess.PIPE, text=True, timeout=60).stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_finds_nothing(path):
    assert lint(path.read_text()) == ""
    planted = lint(path.read_text() + "RUN rm $(ls /tmp)\nFROM debian:latest\n")
    assert "SC2046" in planted and "DL3007" in planted


def sent(files, patterns):
    """What .dockerignore leaves of the files: the last pattern that fits a file, or a folder it is in, decides."""

    def ignored(file):
        decided = False
        for pattern in patterns:
            name = pattern.removeprefix("!")
            if name == "*" or file == name or file.startswith(f"{name}/"):
                decided = not pattern.startswith("!")
        return decided

    return {file for file in files if not ignored(file)}


def named(dockerfile, files):
    """Files of the repository that its instructions name."""
    lines = [line for line in dockerfile.splitlines() if not line.startswith("#")]
    return files & set(re.findall(r"[\w./-]+", "\n".join(lines)))


def test_what_is_named_is_sent_to_the_builder():
    files = set(run("git", "ls-files", cwd=ROOT).split())
    patterns = (ROOT / ".dockerignore").read_text().split()
    assert all(re.fullmatch(r"\*|!?[\w./-]+", pattern) for pattern in patterns), "patterns that `sent` does not know"
    have = sent(files, patterns)
    for path in DOCKERFILES:
        assert {"LICENSE"} <= named(path.read_text(), files) <= have, path.name
    assert "deploy/onnxruntime-gpu.txt" in named((DEPLOY / "Dockerfile.cuda").read_text(), files)
    assert "deploy/onnxruntime-gpu.txt" not in sent(files, [p for p in patterns if "onnxruntime" not in p])
    # What the compiler reads: sources, and the files that they include.
    sources = [ROOT / file for file in files if re.match(r"src/.*(?<!tests)\.rs$", file)]
    included = {
        (source.parent / path).resolve().relative_to(ROOT).as_posix()
        for source in sources
        for path in re.findall(r"include_(?:str|bytes)!\(\s*\"([^\"]+)\"", source.read_text())
    }
    assert included and included <= have
