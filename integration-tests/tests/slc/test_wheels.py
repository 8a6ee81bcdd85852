"""The selection of the container's packages from ``uv.lock``."""

from __future__ import annotations

import pytest
from slc_build import wheels
from slc_build.commands import SlcBuildError

EXPORTED = r"""
annotated==0.6 ; python_full_version < '3.11' \
    --hash=sha256:aa
numpy==1.26.4 ; python_full_version == '3.12.*' \
    --hash=sha256:bb \
    --hash=sha256:cc
numpy==2.4.6 ; python_full_version == '3.11.*' \
    --hash=sha256:dd
colorama==0.4 ; sys_platform == 'win32' \
    --hash=sha256:ee
arm==1 ; platform_machine == 'aarch64' \
    --hash=sha256:ff
"""


def test_markers_are_those_of_the_container():
    """Markers are evaluated for the container's Python and platform, not for those of the test."""
    assert [package.line() for package in wheels.parse(EXPORTED)] == [
        "numpy==1.26.4 --hash=sha256:bb --hash=sha256:cc"
    ]


@pytest.mark.parametrize(
    "line",
    ["numpy==1.26.4", "numpy>=1 --hash=sha256:aa", "a==1 --hash=sha256:b\na==1 --hash=sha256:b"],
)
def test_requirements_must_be_pinned_once_by_hash(line):
    """A requirement without version or hash, or a second one of the same name, is refused."""
    with pytest.raises(SlcBuildError, match=r"uv\.lock: expected one version with hashes"):
        wheels.parse(line)


def test_the_lock_keeps_numpy_for_the_container():
    """The lock has numpy 1.26, against which Exasol's pyextdataframe.so is compiled."""
    pinned = {package.name: package.version for package in wheels.pinned_packages()}
    assert pinned["numpy"] == "1.26.4"
    assert pinned["pandas"].startswith("2.")
    assert "mlflow" not in pinned
