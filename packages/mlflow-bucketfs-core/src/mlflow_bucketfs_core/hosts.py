"""Lists of hosts, and the rules by which a URI's host matches them."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_bucketfs_core.errors import ConfigurationError, HostNotAllowedError, InvalidUriError
from mlflow_bucketfs_core.uri import BucketFSUri, default_port


@dataclass(frozen=True)
class HostRule:
    """One entry of a host list.

    Attributes:
        host: name or address in lower case, IPv6 without brackets.
        port: the port; ``None`` means BucketFS's default, 2580 for HTTP and 2581 for HTTPS.
        plain_http: whether the password may be sent over plain HTTP as well as over HTTPS.
    """

    host: str
    port: int | None = None
    plain_http: bool = False

    @classmethod
    def of(cls, uri: BucketFSUri) -> HostRule:
        """Return the rule for a URI's host and port; plain HTTP only if the URI uses it."""
        return cls(uri.host, uri.port, plain_http=not uri.tls)

    def matches(self, uri: BucketFSUri) -> bool:
        """Return whether the URI has this host and port, with HTTP or HTTPS."""
        port = default_port(tls=uri.tls) if self.port is None else self.port
        return (self.host, port) == (uri.host, uri.port)

    def allows(self, uri: BucketFSUri) -> bool:
        """Return whether the password may be sent to the URI's host."""
        return self.matches(uri) and (uri.tls or self.plain_http)

    def __str__(self) -> str:
        """Format the entry as it is written in the list."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        authority = host if self.port is None else f"{host}:{self.port}"
        return f"exa+bfs://{authority}" if self.plain_http else authority


def parse_host_list(text: str, *, variable: str) -> tuple[HostRule, ...]:
    """Parse a comma-separated list of ``host[:port]`` and ``exa+bfs://host[:port]``.

    Every scheme of BucketFS is accepted; the default is ``exa+bfss://``.

    Args:
        text: the list; blanks around the entries are ignored.
        variable: name of the environment variable, for the error.

    Raises:
        ConfigurationError: an entry has another form.
    """
    return tuple(
        _parse_rule(entry.strip(), f"{variable}: entry {number}")
        for number, entry in enumerate(text.split(","), 1)
        if entry.strip()
    )


def _parse_rule(entry: str, name: str) -> HostRule:
    _, scheme_end, authority = entry.rpartition("://")
    try:
        # The parser for URIs, so that rules and URIs have the same hosts.
        uri = BucketFSUri.parse(entry if scheme_end else f"exa+bfss://{entry}")
    except InvalidUriError:
        # without the entry, because it may be a misplaced password
        raise ConfigurationError(
            f"{name} is neither host[:port] nor exa+bfs://host[:port]. Separate entries by "
            "commas, for example: db.example.com:2581,exa+bfs://10.0.0.11:2580"
        ) from None
    if uri.service:
        raise ConfigurationError(
            f"{name} has a path. It takes host[:port] or exa+bfs://host[:port], without a path."
        )
    has_port = authority.rpartition("]")[2].rpartition(":")[1] == ":"
    return HostRule(uri.host, uri.port if has_port else None, plain_http=not uri.tls)


def any_rule_matches(rules: tuple[HostRule, ...], uri: BucketFSUri) -> bool:
    """Return whether one of the rules has the URI's host and port, with HTTP or HTTPS."""
    return any(rule.matches(uri) for rule in rules)


def check_host_allowed(rules: tuple[HostRule, ...] | None, uri: BucketFSUri) -> None:
    """Raise unless the URI's host may receive the password.

    Args:
        rules: the allowed hosts; ``None`` allows all.
        uri: a URI on the host to check.

    Raises:
        HostNotAllowedError: no rule allows it; the message has the entry to add.
    """
    if rules is None or any(rule.allows(uri) for rule in rules):
        return
    if any_rule_matches(rules, uri):
        raise HostNotAllowedError(
            f"Refused to connect to {uri.authority} over plain HTTP: it may receive the password "
            "over HTTPS only. Use an exa+bfss:// URI. If the password may be sent there "
            f"unencrypted, add {HostRule.of(uri)} to EXA_BUCKETFS_ALLOWED_HOSTS."
        )
    raise HostNotAllowedError(
        f"Refused to connect to {uri.authority}: it is not one of the hosts that may receive "
        f"the password. If it should be, add {HostRule.of(uri)} to EXA_BUCKETFS_ALLOWED_HOSTS."
    )
