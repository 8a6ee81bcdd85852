"""The parts of the page ``docs/user/production.md``: commands, units, other files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

_FILE = Path(__file__).parents[3] / "docs" / "user" / "production.md"
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)

# The page's examples of values that differ for every reader. Nothing else may be replaced.
DATABASE = "localhost/mlflow"
LOCATION = "exa+bfss://db.example.com:2581/bfsdefault/default/mlflow"
SERVER_PORT = "5000"
WORKERS = "--workers 4"
AGE = "--older-than 30d "
ENVIRONMENT_FILE = "/etc/mlflow/environment"


def block(language: str, containing: str, stand_ins: Mapping[str, str] | None = None) -> str:
    """Return the only block of the page with this language that contains a text."""
    text = _FILE.read_text(encoding="utf-8")
    (found,) = (
        each["source"]
        for each in _BLOCK.finditer(text)
        if each["language"] == language and containing in each["source"]
    )
    # the longest first, because one is the beginning of another
    for printed in sorted(stand_ins or {}, key=len, reverse=True):
        found = found.replace(printed, (stand_ins or {})[printed])
    return found


def commands(containing: str, stand_ins: Mapping[str, str]) -> list[list[str]]:
    """Return the commands of a block, split into arguments, without ``sudo -u …``."""
    lines = block("bash", containing, stand_ins).replace("\\\n", " ").splitlines()
    return [shlex.split(re.sub(r"^sudo (-u \w+ )?", "", line)) for line in lines]


def environment_file(values: Mapping[str, str]) -> str:
    """Return the environment file with these values."""
    lines = block("ini", "PGPASSWORD=").splitlines()
    names = [line.partition("='")[0] for line in lines]
    return "".join(f"{name}='{values[name]}'\n" for name in names)


def service(description: str, stand_ins: Mapping[str, str]) -> list[str]:
    """Return the program and arguments that a unit executes."""
    unit = block("ini", f"Description={description}", stand_ins).replace("\\\n", " ")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return shlex.split(line)
