"""The result of a check, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import click
from mlflow_bucketfs_core.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

Result = Literal["ok", "warning", "failed", "skipped"]

_COLORS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": None}
_WIDTH = len("skipped")
_INDENT = " " * (_WIDTH + 2)


@dataclass(frozen=True)
class Finding:
    """The result of one step, with its explanation.

    Attributes:
        summary: one sentence.
        result: ``ok``, ``warning``, ``failed`` or ``skipped``.
        remedy: advice to the user, with the names of variables; ``None`` if there is none.
        details: JSON values by stable names.
    """

    summary: str
    result: Result = "ok"
    remedy: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class StepFailedError(Exception):
    """The failure of a step that has no result for later steps.

    Args:
        finding: the finding to report.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.summary)
        self.finding = finding


@dataclass(frozen=True)
class Step:
    """One step of a check.

    Attributes:
        name: stable name.
        result: see :class:`Finding`.
        seconds: duration in seconds.
        summary: see :class:`Finding`.
        remedy: see :class:`Finding`.
        details: see :class:`Finding`.
    """

    name: str
    result: Result
    seconds: float
    summary: str
    remedy: str | None
    details: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, seconds: float, finding: Finding) -> Step:
        """Return a step with a finding."""
        return cls(
            name, finding.result, seconds, finding.summary, finding.remedy, dict(finding.details)
        )


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        uri: the checked URI, with its port; ``None`` if it is not a BucketFS URI, because it may
            contain a password.
        read_only: whether the steps that write were skipped on purpose.
        steps: the steps in the order in which they ran.
    """

    uri: str | None
    read_only: bool
    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return not self._failed

    @property
    def _failed(self) -> list[str]:
        return [step.name for step in self.steps if step.result == "failed"]

    def to_json(self) -> str:
        """Return one JSON object; its keys are described in the user guide."""
        document = {
            "uri": self.uri,
            "ok": self.ok,
            "read_only": self.read_only,
            "steps": [asdict(step) for step in self.steps],
        }
        return json.dumps(document, indent=2)

    def to_text(self) -> str:
        """Return one line per step, followed by its details and remedy if it did not succeed.

        Names, such as those in a certificate, are untrusted text: terminal escape sequences in
        them are made visible and have no effect.
        """
        name_width = max(len(step.name) for step in self.steps)
        lines = []
        for step in self.steps:
            mark = step.result.upper() if step.result == "failed" else step.result
            lines.append(
                click.style(mark.ljust(_WIDTH), fg=_COLORS[step.result])
                + f"  {step.name.ljust(name_width)}  {step.seconds:5.2f} s  "
                + printable(step.summary)
            )
            if step.result in {"failed", "warning"}:
                lines += [
                    f"{_INDENT}  {key}: {_shown(value)}"
                    for key, value in step.details.items()
                    if value not in (None, "", [])
                ]
            if step.remedy:
                lines += [f"{_INDENT}> {printable(line)}" for line in step.remedy.split("\n")]
        return "\n".join((*lines, "", printable(self._verdict())))

    def _verdict(self) -> str:
        uri = self.uri or "the URI"
        if failed := self._failed:
            return f"{len(failed)} of {len(self.steps)} steps failed for {uri}: " + ", ".join(
                failed
            )
        return f"Everything needed works for {uri}" + (" (read-only)." if self.read_only else ".")


def _shown(value: Any) -> str:
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
