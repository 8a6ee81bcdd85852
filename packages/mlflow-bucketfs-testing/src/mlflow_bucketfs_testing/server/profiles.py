"""Settings for behaviour that differs between BucketFS installations or is unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FileInTheWay = Literal["lose", "hang", "error"]
"""The effect of a PUT of ``d/x`` while ``d`` is an object, see `.BucketFSServer`."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Delays and locks.

    Attributes:
        put_floor_s: minimum duration of a PUT, in seconds.
        put_bytes_per_s: replication rate in bytes per second, whose time is added to the minimum;
            None: no time is added.
        lock_after_delete_s: how long a deleted key cannot be written again, in seconds.
    """

    put_floor_s: float = 0.0
    put_bytes_per_s: float | None = None
    lock_after_delete_s: float = 0.0

    def put_duration_s(self, size_bytes: int) -> float:
        """Return the minimum time from the start of a PUT to its response, in seconds."""
        transfer_s = size_bytes / self.put_bytes_per_s if self.put_bytes_per_s else 0.0
        return self.put_floor_s + transfer_s


# docker-db: floor and rate as measured by Polo3cat/syncfs on 2026.1.1 with two nodes, the lock
# as reported in exasol-testcontainers issue #74.
PROFILES = {
    "instant": Profile(),
    "docker-db": Profile(put_floor_s=1.0, put_bytes_per_s=100e6, lock_after_delete_s=10.0),
}


def resolve_profile(profile: str | Profile) -> Profile:
    """Return the profile with this name; return a `Profile` unchanged.

    Raises:
        ValueError: no profile has that name.
    """
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise ValueError(f"no profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[profile]


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The options of the protocol, as documented at `BucketFSServer`."""

    content_length: bool = True
    shuffle_listing: bool = False
    file_in_the_way: FileInTheWay = "lose"
    archive_visible_on_mount: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown choice.

        Raises:
            ValueError: ``file_in_the_way`` is none of the three.
        """
        if self.file_in_the_way not in get_args(FileInTheWay):
            raise ValueError(
                f"file_in_the_way={self.file_in_the_way!r}: "
                f"choose one of {', '.join(get_args(FileInTheWay))}"
            )
