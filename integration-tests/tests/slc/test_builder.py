"""``SlcBuilder``: it works with pytest-exasol-slc, and its exports are reproducible."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from mlflow_bucketfs_testing import SlcBuilder
from slc_build import commands, paths, wheels

# exaslct's scheduler forks, and its dependencies warn about themselves
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def flavor_path(exported) -> Path:
    """The flavor that was exported, with its wheels."""
    pytest.importorskip("exasol.slc.api", reason="exaslct is missing: uv run --group slc pytest")
    commands.choose_engine()
    if commands.image(paths.base_image()) is None or not paths.FLAVOR_PREPARED.is_dir():
        pytest.skip(
            f"nothing was exported to {exported} with this engine: uv run nox -s slc:export"
        )
    return paths.FLAVOR_PREPARED


def test_the_builder_is_what_pytest_exasol_slc_expects(slc_builder, slc_archive, flavor_path):
    """The result has the file under ``flavor_path``; an unchanged container is not rebuilt."""
    assert slc_builder.flavor_path == flavor_path
    builder = SlcBuilder(slc_builder.flavor_path, output_directory=paths.EXASLCT_OUTPUT)
    result = builder.export()
    release = result.export_infos[str(slc_builder.flavor_path)]["release"]
    assert Path(release.cache_file).stat().st_size == slc_archive.stat().st_size


def test_the_same_source_gives_the_same_wheels(tmp_path, build_info):
    """Own wheels are built bit-identical; the wheels of the lock are the exported ones."""
    pytest.importorskip("pip", reason="pip is missing: uv run --group slc pytest")
    built = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        wheels.build_own(folder)
        built.append(wheels.hashes_of(folder))
    assert built[0] == built[1]
    assert len(built[0]) == len(paths.OWN_PACKAGES)
    wheels.download(wheels.pinned_packages(), tmp_path / "locked")
    downloaded = wheels.hashes_of(tmp_path / "locked" / "wheels")
    assert downloaded.items() <= build_info["wheels"].items()


def test_a_second_export_installs_the_same(flavor_path, exported, tmp_path):
    """A container that is rebuilt completely has the same packages."""
    builder = SlcBuilder(
        flavor_path, output_directory=tmp_path, force_rebuild=True, compressed=False
    )
    release = builder.export().export_infos[str(flavor_path)]["release"]
    wanted = f"{paths.LISTS_IN_CONTAINER}/packages.json"
    with tarfile.open(release.cache_file) as archive:
        members = {member.name.removeprefix("./"): member for member in archive}
        content = archive.extractfile(members[wanted])
        assert content is not None
        again = json.load(content)
    Path(release.cache_file).unlink()
    first = json.loads((exported / "packages.json").read_text(encoding="utf-8"))
    assert again == first


def test_a_folder_that_is_no_flavor_is_refused(tmp_path):
    """The error names the folder and the missing file; `prepare` is called before the check."""
    pytest.importorskip("exasol.slc.api", reason="exaslct is missing: uv run --group slc pytest")
    called = []
    builder = SlcBuilder(tmp_path / "none", prepare=lambda: called.append("prepared"))
    with pytest.raises(FileNotFoundError, match=r"none is not a flavor: .*build_steps"):
        builder.export()
    assert called == ["prepared"]
