"""Tests of finding local files, and of names that are both file and folder."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_plugin.transfers import _split_shadowed, files_below

segments = st.sampled_from(["MLmodel", "a", "b", "xMLmodel", "MLmodel.txt"])
names = st.lists(segments, min_size=1, max_size=4).map("/".join)
name_sets = st.sets(names, max_size=12)


@given(name_sets)
def test_shadowed_names_are_the_folders_of_others(files):
    """Names are split without loss into names of files only and names that are also folders."""
    kept, shadowed = _split_shadowed(files)
    assert sorted([*kept, *shadowed]) == sorted(files)
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    assert not set(kept) & folders
    assert set(shadowed) <= folders


@given(data=st.dictionaries(st.integers(0, 5), st.integers(0, 3), max_size=6))
def test_all_files_below_a_directory(tmp_path_factory, data):
    """All files below a directory, at any depth, are found in sorted order."""
    root = tmp_path_factory.mktemp("tree")
    expected = {}
    for number, depth in data.items():
        path = root.joinpath(*(f".d{number}" for _ in range(depth)), f"f{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        expected[path.relative_to(root).as_posix()] = path
    assert files_below(root) == expected
    assert list(files_below(root)) == sorted(expected)


def test_two_links_to_one_directory_are_no_cycle(tmp_path):
    """A directory with two links to it is found through each of them."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").touch()
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to("real")
    assert list(files_below(tmp_path)) == ["one/f", "real/f", "two/f"]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_cycle_is_an_error(tmp_path, target):
    """A link to any parent directory is refused."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "loop").symlink_to(target)
    with pytest.raises(OSError, match=f"{os.sep}loop leads back to"):
        files_below(tmp_path)


def test_link_to_itself_is_an_error(tmp_path):
    """A link that leads to itself is refused by name."""
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(OSError, match=f"{os.sep}self"):
        files_below(tmp_path)
