"""Compare the package versions of a model with those of a script-language container.

A script-language container has fixed versions, listed in the ``constraints.txt`` that comes with
it. MLflow writes the versions of the training environment into a model's ``requirements.txt``,
but omits packages that another one requires; above all, it never names numpy. So a model's pickles
are searched for a name that only numpy 2 writes.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE
from mlflow_bucketfs_core.errors import printable
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_logger = logging.getLogger(__name__)

_PICKLES = (".pkl", ".pickle", ".cloudpickle")
# numpy 1.26 and older write numpy.core; a pickle contains it at its first array
_OF_NUMPY_2 = b"numpy._core"
# numpy 1 pickles the name of a generator's class after this function, numpy 2 the class itself
_GENERATOR_OF_NUMPY_2 = re.compile(rb"__bit_generator_ctor.{1,12}numpy\.random\._", re.DOTALL)
_HEAD_BYTES = 1024 * 1024
_REMEDY = (
    "train the model with the versions of the script-language container "
    "(pip install -c constraints.txt …, the file that comes with the container)."
)
# A model requires mlflow even if only the smaller package is installed, as in a container
_SAME = {"mlflow": "mlflow-skinny"}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A package whose version in the container does not match the model, or that is missing there.

    Attributes:
        name: the package.
        model: the model's requirement, such as ``==1.8.0``.
        container: the container's version; ``None`` if it does not have the package.
    """

    name: str
    model: str
    container: str | None

    def __str__(self) -> str:
        there = self.container or "not there"
        return printable(f"{self.name}: {self.model} in the model, {there} in the container")


def compare(requirements: str, constraints: str) -> list[Difference]:
    """Compare a model's requirements with a container's versions.

    Args:
        requirements: content of a model's ``requirements.txt``. Lines that do not name a package
            (URLs of files, options) are skipped.
        constraints: content of a ``constraints.txt``: ``name==version`` lines.

    Returns:
        The differences, in the order of the requirements.
    """
    there = _versions(constraints)
    found = []
    for requirement in _parsed(requirements):
        name = canonicalize_name(requirement.name)
        installed = there.get(name) or there.get(_SAME.get(name, ""))
        if requirement.marker and not requirement.marker.evaluate():
            continue
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            wanted = str(requirement.specifier) or "any version"
            found.append(Difference(name=name, model=wanted, container=installed))
    return found


def compare_model(model: Path, constraints: str) -> list[Difference]:
    """Compare a model with a container's versions.

    Args:
        model: a model's directory, or a ``requirements.txt``.
        constraints: content of a ``constraints.txt``.

    Returns:
        The differences. For a directory, they include numpy, according to its pickles.

    Raises:
        FileNotFoundError: there is no ``requirements.txt``.
    """
    if model.is_file():
        return compare(model.read_text(encoding="utf-8"), constraints)
    found = compare((model / "requirements.txt").read_text(encoding="utf-8"), constraints)
    numpy = _versions(constraints).get("numpy", "")
    named = any(difference.name == "numpy" for difference in found)
    if _is_old(numpy) and not named:
        paths = filter(Path.is_file, model.rglob("*"))
        files = {path.relative_to(model).as_posix(): path for path in paths}
        for name, start in _pickles(files):
            if _OF_NUMPY_2 in start:
                wanted = f"2 or later ({name})"
                return [*found, Difference(name="numpy", model=wanted, container=numpy)]
    return found


def check_numpy(files: Mapping[str, Path], loaded: Collection[str]) -> None:
    """Raise or warn if numpy 2 wrote a pickle of a model and numpy 1 is installed.

    numpy 1 loads arrays of numpy 2, but not its random generators: loading the model would fail
    with ``MT19937 is not a known BitGenerator module``.

    Args:
        files: a model's files, by their relative names.
        loaded: names of the files that MLflow deserializes.

    Raises:
        MlflowException: numpy 1 cannot load one of these files.
    """
    suspects: list[Path] = []
    try:
        installed = version("numpy")
        if not _is_old(installed):
            return
        for name, start in _pickles(files):
            if name in loaded and _GENERATOR_OF_NUMPY_2.search(start):
                raise MlflowException(
                    f"{_by_numpy_2(files[name], installed)} It contains a random generator, which "
                    f"numpy {installed} cannot load: {_REMEDY}",
                    error_code=INVALID_STATE,
                )
            if _OF_NUMPY_2 in start:
                suspects.append(files[name])
    except (PackageNotFoundError, OSError):
        return  # loading the model will raise the error
    if suspects:
        text = _by_numpy_2(suspects[0], installed)
        _logger.warning("%s If loading it fails, this is the cause: %s", text, _REMEDY)


def _pickles(files: Mapping[str, Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the first MiB of each pickle, sorted by name."""
    for name in sorted(files):
        if name.endswith(_PICKLES):
            with files[name].open("rb") as file:
                yield name, file.read(_HEAD_BYTES)


def _by_numpy_2(pickle: Path, installed: str) -> str:
    return printable(
        f"{pickle} was written with numpy 2 or later, but numpy {installed} is installed."
    )


def _versions(constraints: str) -> dict[str, str]:
    exact = {}
    for requirement in _parsed(constraints):
        for specifier in requirement.specifier:
            if specifier.operator == "==":
                exact[str(canonicalize_name(requirement.name))] = specifier.version
    return exact


def _parsed(text: str) -> list[Requirement]:
    requirements = []
    for line in text.splitlines():
        wanted = re.sub(r"(^|\s)#.*", "", line).strip()
        try:
            requirements.append(Requirement(wanted))
        except InvalidRequirement:
            if wanted:
                _logger.info("Not compared: %s", printable(wanted))
    return requirements


def _is_old(numpy: str) -> bool:
    return numpy.startswith("1.")
