"""Measurements, and the targets that they are compared with."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB = 1 << 20


@dataclass(frozen=True)
class Traffic:
    """The requests of one client process, counted by the server.

    Attributes:
        requests: all requests, the listings included.
        listings: listings of the complete bucket.
        connections: TCP connections.
    """

    requests: int
    listings: int
    connections: int


@dataclass(frozen=True)
class Sample:
    """One run of one client.

    Attributes:
        seconds: duration of the operation.
        memory_bytes: growth of the resident set during the operation, at its peak; in *scoring*
            the complete resident set; ``None`` if the system does not report it.
        peak_bytes: largest resident set until then; ``None`` if it was not measured.
        traffic: requests; ``None`` if they were not counted.
    """

    seconds: float
    memory_bytes: int | None = None
    peak_bytes: int | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True)
class Measurement:
    """Several runs of one client.

    Attributes:
        samples: at least one.
    """

    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> float:
        """Median of the runs."""
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def memory_bytes(self) -> int | None:
        """Maximum of all runs."""
        return _largest(sample.memory_bytes for sample in self.samples)

    @property
    def peak_bytes(self) -> int | None:
        """Maximum of all runs."""
        return _largest(sample.peak_bytes for sample in self.samples)

    @property
    def traffic(self) -> Traffic | None:
        """Maximum of all runs, for each count."""
        seen = [sample.traffic for sample in self.samples if sample.traffic is not None]
        if not seen:
            return None
        return Traffic(
            max(traffic.requests for traffic in seen),
            max(traffic.listings for traffic in seen),
            max(traffic.connections for traffic in seen),
        )


def _largest(numbers: Iterable[int | None]) -> int | None:
    return max((number for number in numbers if number is not None), default=None)


@dataclass(frozen=True)
class Target:
    """Limits to reach; ``None`` means no limit.

    Attributes:
        least_ratio: the counterpart's time divided by ours.
        most_seconds: our time.
        most_requests: requests, listings among them.
        most_listings: listings.
        most_connections: connections.
        memory_below_bytes: growth of memory.
        most_memory_ratio: our memory divided by the counterpart's.
        most_peak_ratio: the same for the memory at its peak.
    """

    least_ratio: float | None = None
    most_seconds: float | None = None
    most_requests: int | None = None
    most_listings: int | None = None
    most_connections: int | None = None
    memory_below_bytes: int | None = None
    most_memory_ratio: float | None = None
    most_peak_ratio: float | None = None

    def __str__(self) -> str:
        """Format the limits."""
        demands = (
            (self.least_ratio, "ratio ≥ {:.3g}"),
            (self.most_seconds and self.most_seconds * 1000, "time < {:g} ms"),
            (self.most_requests, "requests ≤ {}"),
            (self.most_listings, "listings ≤ {}"),
            (self.most_connections, "connections ≤ {}"),
            (self.memory_below_bytes and self.memory_below_bytes // MIB, "memory < {} MiB"),
            (self.most_memory_ratio, "memory ≤ {:g}x"),
            (self.most_peak_ratio, "peak ≤ {:g}x"),
        )
        return ", ".join(text.format(limit) for limit, text in demands if limit is not None)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        title: the operation.
        counterpart: name of the client or case that ours is compared with.
        ours: our runs.
        theirs: the counterpart's runs.
        target: limits for ours.
    """

    title: str
    counterpart: str
    ours: Measurement
    theirs: Measurement
    target: Target

    @property
    def ratio(self) -> float:
        """The counterpart's time divided by ours."""
        return self.theirs.seconds / self.ours.seconds

    def shortfalls(self) -> list[str]:
        """Return the names of the limits that were missed."""
        target, traffic = self.target, self.ours.traffic
        ours, theirs = self.ours.memory_bytes, self.theirs.memory_bytes
        our_peak, their_peak = self.ours.peak_bytes, self.theirs.peak_bytes
        checks = (
            ("ratio", target.least_ratio, self.ratio),
            ("seconds", self.ours.seconds, target.most_seconds),
            ("requests", traffic.requests if traffic else None, target.most_requests),
            ("listings", traffic.listings if traffic else None, target.most_listings),
            ("connections", traffic.connections if traffic else None, target.most_connections),
            ("memory", ours, target.memory_below_bytes),
            ("memory", ours and theirs and ours / theirs, target.most_memory_ratio),
            ("peak", our_peak and their_peak and our_peak / their_peak, target.most_peak_ratio),
        )
        return [
            name
            for name, lower, upper in checks
            if lower is not None and upper is not None and lower > upper
        ]


@dataclass(frozen=True)
class Cost:
    """One line of a table without a counterpart.

    Attributes:
        title: the operation.
        whose: the owner of its code.
        measured: the runs.
        target: limit for its time.
    """

    title: str
    whose: str
    measured: Measurement
    target: Target

    def shortfalls(self) -> list[str]:
        """Return the names of the limits that were missed."""
        limit = self.target.most_seconds
        return ["seconds"] if limit is not None and self.measured.seconds > limit else []
