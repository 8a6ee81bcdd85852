"""The workflows and the contributor's guide name existing tasks and packages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
INSTALLERS = [
    file
    for file in (*WORKFLOWS, ROOT / ".ci" / "run", ROOT / ".readthedocs.yaml")
    if "pip install" in file.read_text(encoding="utf-8")
]
COMMANDS = [*WORKFLOWS, ROOT / ".ci" / "run", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
# `nox -s` with its sessions, up to `--`, a comment, or the end of code or line
SESSIONS = re.compile(r"nox -s((?: +\"?[\w:$]+\"?)+)")


@pytest.fixture(scope="module")
def sessions():
    """Return the names of all nox sessions."""
    command = [sys.executable, "-m", "nox", "--list"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"^[*-] (\S+) ->", listed.stdout, re.MULTILINE))


def named_in(file):
    """Return all words in a file that follow ``nox -s``."""
    found = SESSIONS.findall(file.read_text(encoding="utf-8"))
    return {word for words in found for word in words.split()}


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: file.name)
def test_sessions(file, sessions):
    """Each named session exists; variables in place of sessions are ignored."""
    assert {name for name in named_in(file) if "$" not in name} <= sessions


def test_contributors_find_the_sessions():
    """The guide names the sessions that a change and a release need."""
    needed = {"lint:code", "test:unit", "package:check", "package:lowest", "release:check"}
    assert needed <= named_in(ROOT / "CONTRIBUTING.md")


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_least_permissions(file):
    """A workflow has no permissions; each of its jobs has permissions and a timeout."""
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"]
        assert job["timeout-minutes"]


@pytest.mark.parametrize("file", INSTALLERS, ids=lambda file: file.name)
def test_uv_is_pinned(file):
    """Everything that pip installs in the CI is pinned by version and hash."""
    installs = re.findall(r"pip install.*", file.read_text(encoding="utf-8"))
    assert [each for each in installs if "--require-hashes -r .ci/uv.txt" not in each] == []


@pytest.mark.parametrize(
    ("file", "tool"), [(".ci/uv.txt", "uv"), ("release/build-constraints.txt", "uv-build")]
)
def test_pins_have_hashes(file, tool):
    """A file of pins has one tool in one version with its hashes, and nothing else."""
    lines = [line for line in (ROOT / file).read_text("utf-8").splitlines() if line[0] != "#"]
    assert re.fullmatch(rf"{tool}==\d+\.\d+\.\d+ \\", lines[0])
    assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:])
    assert len(lines) > 1


def test_the_container_is_released_with_an_attestation():
    """A container is attested before it is attached to a release, in a protected environment."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/slc.yml").read_text("utf-8"))["jobs"]
    assert jobs["build"]["permissions"] == {"contents": "read"}
    assert jobs["release"]["environment"] == "slc"
    steps = [step.get("uses") or step["run"] for step in jobs["release"]["steps"]]
    attested = next(i for i, step in enumerate(steps) if step.startswith("actions/attest-"))
    uploads = [i for i, step in enumerate(steps) if "gh release upload" in step]
    assert uploads
    assert attested < min(uploads)


def test_only_publishing_has_credentials():
    """The job with permission to publish runs no script and builds nothing."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    trusted = [name for name, job in jobs.items() if "id-token" in job["permissions"]]
    assert trusted == ["publish"]
    assert not [step for step in jobs["publish"]["steps"] if "run" in step]
    assert jobs["build"]["permissions"] == {"contents": "read"}


def test_a_package_is_published_after_what_it_requires():
    """The index is checked for the requirements, once, before the upload for publishing."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    steps = [step.get("uses") or step["run"] for step in jobs["build"]["steps"]]
    (checked,) = (i for i, step in enumerate(steps) if step.startswith("uv pip compile"))
    assert "--no-sources" in steps[checked]
    assert checked < next(i for i, step in enumerate(steps) if step.startswith("actions/upload-"))
    assert jobs["publish"]["needs"] == "build"


def test_every_package_can_be_released():
    """The release workflow runs for a tag of each package, and can rehearse each."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    packages = {file.parent.name for file in ROOT.glob("packages/*/pyproject.toml")}
    tags = {tag.partition("-v[")[0] for tag in workflow["on"]["push"]["tags"]}
    rehearsed = workflow["on"]["workflow_dispatch"]["inputs"]["package"]["options"]
    assert tags == set(rehearsed) == packages
