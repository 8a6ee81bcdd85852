"""Scoring with SQL: make scripts for Exasol that score rows with a model.

The artifact store does not import this package. Its names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_bucketfs_plugin.scoring.copying import Copied, copy_model
    from mlflow_bucketfs_plugin.scoring.script import (
        ScoringScript,
        ScriptColumn,
        ScriptOptions,
        scoring_script,
    )

__all__ = [
    "Copied",
    "ScoringScript",
    "ScriptColumn",
    "ScriptError",
    "ScriptOptions",
    "copy_model",
    "scoring_script",
]

_MODULES = {
    "Copied": "copying",
    "ScoringScript": "script",
    "ScriptColumn": "script",
    "ScriptOptions": "script",
    "copy_model": "copying",
    "scoring_script": "script",
}


class ScriptError(ValueError):
    """Error for a model, an option or a row that cannot be used, with cause and remedy."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
