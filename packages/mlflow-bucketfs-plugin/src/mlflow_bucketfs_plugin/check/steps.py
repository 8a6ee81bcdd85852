"""Taking steps: time them, catch what fails, skip those that need what is not there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

from mlflow_bucketfs_core.errors import BucketFSError

from mlflow_bucketfs_plugin.check.report import Finding, Step

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")


class StepFailedError(Exception):
    """A step ends without anything for later steps to use.

    Args:
        finding: what to report.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.summary)
        self.finding = finding


class _NotAvailableError(Exception):
    """A step needs the outcome of another that has none."""


class Outcome(Generic[_Value]):
    """What a step leaves to later ones, ``None`` if nothing.

    Args:
        step: the step.
        value: what it leaves.
    """

    def __init__(self, step: Step, value: _Value | None) -> None:
        self._step = step
        self.value = value

    def get(self) -> _Value:
        """Return the value; a step that asks in vain is skipped."""
        if self._step.result == "failed":
            raise _NotAvailableError(self._needed())
        return self.get_even_if_failed()

    def get_even_if_failed(self) -> _Value:
        """Return the value if there is one at all; a step that asks in vain is skipped."""
        if self.value is None:
            # the step that failed is what counts, however many were skipped since
            is_skipped = self._step.result == "skipped"
            raise _NotAvailableError(self._step.summary if is_skipped else self._needed())
        return self.value

    def _needed(self) -> str:
        return f"needs the step '{self._step.name}', which failed"


class Steps:
    """The steps taken so far, in :attr:`taken`."""

    def __init__(self) -> None:
        self.taken: list[Step] = []

    def take(self, name: str, check: Callable[[], tuple[_Value, Finding]]) -> Outcome[_Value]:
        """Take one step.

        Args:
            name: its stable name.
            check: returns a value for later steps and what was found.

        Returns:
            The value, which later steps ask for inside of their own ``check``.
        """
        value: _Value | None = None
        started = time.monotonic()
        try:
            value, finding = check()
        except _NotAvailableError as reason:
            finding = Finding(str(reason), "skipped")
        except StepFailedError as failure:
            finding = failure.finding
        except (BucketFSError, OSError) as error:
            finding = Finding(str(error), "failed")
        seconds = round(time.monotonic() - started, 3)
        step = Step(
            name, finding.result, seconds, finding.summary, finding.remedy, dict(finding.details)
        )
        self.taken.append(step)
        return Outcome(step, value)
