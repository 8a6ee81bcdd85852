"""Tests of comparing a model's files with its MLmodel."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_core.errors import IncompleteTransferError, ObjectNotFoundError
from mlflow_bucketfs_plugin.models import (
    belongs_to_model,
    check_model,
    is_mlmodel,
    mlmodels_inside_out,
)
from mlflow_bucketfs_plugin.transfers import files_below

segments = st.sampled_from(["MLmodel", "a", "b", "xMLmodel", "MLmodel.txt"])
names = st.lists(segments, min_size=1, max_size=4).map("/".join)
name_sets = st.sets(names, max_size=12)

PYFUNC = {"loader_module": "mlflow.pyfunc.model", "env": {"conda": "conda.yaml"}, "code": "code"}
PICKLE = b"\x80\x04N."


@pytest.fixture
def check(local):
    """Check a model that consists of an MLmodel with these flavors, and of these files."""

    def check(files, *flavors, **other):
        content = {"flavors": {str(i): flavor for i, flavor in enumerate(flavors)}, **other}
        model = local.write({"MLmodel": f"{json.dumps(content)}\n".encode(), **files}, "model")
        check_model(model, files_below(model))
        return model

    return check


COMPLETE = {
    "a file": ({"model_path": "m.pkl"}, {"m.pkl": PICKLE}),
    "a folder": ({"data": "data"}, {"data/weights": b"1"}),
    "the start of several names": (
        {"pickled_model": "model"},
        {"model.pdmodel": b"1", "model.pdparams": b"2"},
    ),
    "an artifact": ({"artifacts": {"x": {"path": "artifacts/x"}}}, {"artifacts/x": b""}),
    "an archive": (
        {"artifacts": {"x": {"path": "artifacts/x.tar.gz"}}},
        {"artifacts/x.tar.gz": b"1", "artifacts/x/y": b"1"},
    ),
    "a text that ends like an archive": (
        {"index": "https://h/x.zip", "y": "z.zip"},
        {"z.txt": b""},
    ),
    "no archive to BucketFS": (
        {"data": "x.tar.bz2", "env": {"x": ["x.zipx"]}},
        {"x.tar.bz2": b"1", "x/y": b"1"},
    ),
    "another spelling": ({"data": "./data//weights"}, {"data/weights": b"1"}),
    "a compressed pickle": ({"python_model": "m.pkl.gz"}, {"m.pkl.gz": b"\x1f\x8b"}),
    "elsewhere": ({"data": "/elsewhere", "model_path": "../elsewhere"}, {}),
    "the model's directory": ({"data": "."}, {}),
    "the name without its ending": ({"model_path": "m"}, {"m.pt": b"1"}),
    "code by its last name": (
        {"model_code_path": "/home/me/model.py"},
        {"model.py": b"1"},
    ),
    "a URI": ({"model_data": "hdfs://h/model", "data": {"not": "a path"}}, {}),
    "nothing": ({"data": None, "artifacts": None, "model_path": ""}, {}),
}


@pytest.mark.parametrize(("flavor", "files"), COMPLETE.values(), ids=COMPLETE)
def test_a_complete_model_passes(check, flavor, files):
    """A model with all parts that its flavors load passes, without its code and environment."""
    check(files, {**PYFUNC, **flavor}, flavor)


MISSING = {
    "file": ({"model_path": "m.pkl"}, "m.pkl"),
    "folder": ({"model_data": "sparkml"}, "sparkml"),
    "python model": ({"python_model": "python_model.pkl"}, "python_model.pkl"),
    "artifact": ({"artifacts": {"x": {"path": "artifacts/x"}}}, "artifacts/x"),
    "archive": ({"data": "data.zip"}, "data.zip"),
    "code": ({"model_code_path": "/home/me/model.py"}, "model.py"),
    "file beside one with a similar name": ({"data": "oth"}, "oth"),
}


@pytest.mark.parametrize(("flavor", "part"), MISSING.values(), ids=MISSING)
def test_a_missing_part_is_named(check, local, flavor, part):
    """A missing file or folder that a flavor loads is an error that names it."""
    with pytest.raises(ObjectNotFoundError) as caught:
        check({"other": b"1"}, {**PYFUNC, **flavor})
    assert str(caught.value).startswith(f"{local.root}/model/{part} does not exist")


@pytest.mark.parametrize(("size", "refused"), [(5, False), (6, True)])
def test_an_empty_folder_may_be_missing(check, size, refused):
    """A missing part is accepted as an empty folder only if no bytes are missing."""
    flavor = {"artifacts": {"x": {"path": "artifacts/x"}}, "python_model": "m.pkl"}
    files = {"m.pkl": PICKLE, "b": b"1", "code/added.py": b"later", "MLmodel.bak": b""}
    with pytest.raises(ObjectNotFoundError) if refused else nullcontext():
        check(files, flavor, model_size_bytes=size)


def test_a_missing_pickle_is_no_empty_folder(check):
    """A missing pickle is an error, for any size of the other files."""
    with pytest.raises(ObjectNotFoundError):
        check({"data": b"12345"}, {"pickled_model": "m.pkl"}, model_size_bytes=1)


UNPACKED = {
    "artifact": {"artifacts": {"x": {"path": "artifacts/x.zip", "uri": "/home/me/x.zip"}}},
    "of any flavor": {"own": {"names": ["policy", "./artifacts/x.zip"]}},
    "folder of another name": {"data": "artifacts/x.tgz"},
}


@pytest.mark.parametrize("flavor", UNPACKED.values(), ids=UNPACKED)
def test_an_archive_that_appears_unpacked_is_named(check, local, flavor):
    """An unpacked archive is an error that names it and the reason, for any size of the model."""
    with pytest.raises(ObjectNotFoundError, match="BucketFS unpacks archives") as caught:
        check({"artifacts/x/y": b"123"}, PYFUNC, flavor, model_size_bytes=1)
    assert str(caught.value).startswith(f"{local.root}/model/artifacts/x.")
    assert "EXA_BUCKETFS_MOUNT_FALLBACK=http" in str(caught.value)


DAMAGED = {
    "empty pickle": ("m.pkl", b""),
    "truncated pickle": ("m.pkl", PICKLE[:-1]),
    "no pickle": ("m.pkl", b"PK."),
    "empty zip": ("m.skops", b""),
    "truncated zip": ("m.skops", b"PK\x03\x04..."),
}


@pytest.mark.parametrize(("part", "content"), DAMAGED.values(), ids=DAMAGED)
def test_a_truncated_part_is_named(check, local, part, content):
    """A part without the start and end of its format is an error that names it."""
    with pytest.raises(IncompleteTransferError) as caught:
        check({part: content}, {"pickled_model": part})
    assert str(caught.value).startswith(f"{local.root}/model/{part} is truncated or damaged: it is")


INVALID = {
    "empty": (b"", "it names no flavors"),
    "text": (b"x", "it names no flavors"),
    "no flavors": (b"flavors: 1", "it names no flavors"),
    "truncated": (b"flavors:\n  sklearn:\n    code: null\n    pick", "line "),
    "truncated in a value": (
        b"artifact_path: m\nflavors:\n  sklearn:\n    code: nu",
        "it ends before utc_time_created",
    ),
    "truncated after a line": (
        b"artifact_path: m\nflavors:\n  sklearn:\n    code: null\n",
        "it ends before utc_time_created",
    ),
    "no time": (b"flavors: {}\nutc_time_created: 2024-13-01 00:00:00\n", "month must be"),
    "binary": (b"\x00\xff", "character"),
    "not UTF-8": (b"flavors: \xff\xfe", "invalid"),
}


@pytest.mark.parametrize(("content", "reason"), INVALID.values(), ids=INVALID)
def test_an_invalid_mlmodel_is_named(check, local, content, reason):
    """An invalid MLmodel is an error with its path and the reason."""
    with pytest.raises(IncompleteTransferError, match=reason) as caught:
        check({"MLmodel": content})
    assert str(caught.value).startswith(f"{local.root}/model/MLmodel is truncated or damaged: ")


@pytest.mark.parametrize(("size", "warns"), [(3, False), (4, True), (None, False), ("9", False)])
def test_a_smaller_model_is_logged(check, caplog, size, warns):
    """A model that is smaller than when it was saved is logged."""
    files = {"a": b"1", "d/b": b"23", "conda.yaml": b"added later", "requirements.txt": b"too"}
    with caplog.at_level(logging.WARNING):
        model = check(files, {"data": "d"}, model_size_bytes=size)
    assert [f"The files in {model} have 3 bytes" in text for text in caplog.messages] == [
        True
    ] * warns


@pytest.mark.parametrize(("size", "intact"), [(2, False), (3, True), (4, False), (None, False)])
def test_the_saved_size_is_compared(check, size, intact):
    """A model has the saved size only if the number of bytes is known and equal."""
    model = check({"a": b"1", "d/b": b"23"}, {"data": "d"}, model_size_bytes=size)
    assert check_model(model, files_below(model)).has_saved_size is intact


def test_a_missing_final_line_break_is_logged(check, caplog):
    """An MLmodel without a final line break is logged, but accepted."""
    check({"MLmodel": b"flavors: {}"})
    assert "MLmodel ends within a line. It may be truncated." in caplog.text


@pytest.mark.parametrize("end", ["\n", "\nutc_time_created: '2026-01-01 00:00:00.000000'"])
def test_an_mlmodel_written_by_hand_passes(check, end):
    """An MLmodel that ends with a line break, or with MLflow's last key, is complete."""
    check({"MLmodel": f"flavors: {{}}{end}".encode()})


@given(names)
def test_mlmodel_is_a_complete_name(name):
    """Only a path whose last segment is exactly MLmodel is an MLmodel file."""
    assert is_mlmodel(name) == (PurePosixPath(name).name == "MLmodel")


@given(name_sets)
def test_mlmodels_come_inside_out(files):
    """Every MLmodel is in one group, each group has one depth, and the deepest is first."""
    groups = mlmodels_inside_out(files)
    assert sorted(name for group in groups for name in group) == sorted(filter(is_mlmodel, files))
    depths = [{name.count("/") for name in group} for group in groups]
    assert all(len(depth) == 1 for depth in depths)
    assert [max(depth) for depth in depths] == sorted({d for s in depths for d in s}, reverse=True)


@given(names, names.filter(is_mlmodel))
def test_model_is_its_directory(name, mlmodel):
    """A file belongs to a model if it lies below the directory of its MLmodel."""
    directory = PurePosixPath(mlmodel).parent
    assert belongs_to_model(name, mlmodel) == (directory in PurePosixPath(name).parents)
