"""What of ``uv.lock`` goes into the container."""

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
    """Whatever Python and platform run this, the container's decide."""
    assert [package.line() for package in wheels.parse(EXPORTED)] == [
        "numpy==1.26.4 --hash=sha256:bb --hash=sha256:cc"
    ]


@pytest.mark.parametrize(
    "line",
    ["numpy==1.26.4", "numpy>=1 --hash=sha256:aa", "a==1 --hash=sha256:b\na==1 --hash=sha256:b"],
)
def test_what_is_not_pinned_once_by_hash_is_refused(line):
    """A requirement without version or hash, or a second one of the same name."""
    with pytest.raises(SlcBuildError, match=r"uv\.lock: expected one version with hashes"):
        wheels.parse(line)


def test_the_lock_keeps_numpy_for_the_container():
    """Exasol's pyextdataframe.so is compiled against numpy 1.26; the lock must not outrun it."""
    pinned = {package.name: package.version for package in wheels.pinned_packages()}
    assert pinned["numpy"] == "1.26.4"
    assert pinned["pandas"].startswith("2.")
    assert "mlflow" not in pinned
