"""Lists of hosts: which URIs an entry matches, and which entries are refused."""

from __future__ import annotations

import traceback

import pytest
from mlflow_bucketfs_core import Bucket, BucketFSUri, ConnectionSettings
from mlflow_bucketfs_core.errors import ConfigurationError, HostNotAllowedError
from mlflow_bucketfs_core.hosts import check_host_allowed, parse_host_list


@pytest.mark.parametrize(
    ("rules", "uri", "expected"),
    [
        pytest.param("db", "exa+bfs://db:2580/s/b", True, id="default-http"),
        pytest.param("db", "exa+bfss://db:2581/s/b", True, id="default-https"),
        pytest.param("exa+bfs://db", "exa+bfss://db/s/b", True, id="scheme"),
        pytest.param("db", "exa+bfs://db:2581/s/b", False, id="https-port-by-http"),
        pytest.param("db", "exa+bfs://db:80/s/b", False, id="other-port"),
        pytest.param("db:80", "exa+bfs://db:80/s/b", True, id="port"),
        pytest.param("db:2580", "exa+bfs://db/s/b", True, id="explicit-default"),
        pytest.param("db:2580", "exa+bfss://db/s/b", False, id="explicit-http-for-https"),
        pytest.param("DB.Example", "exa+bfs://db.EXAMPLE/s/b", True, id="case"),
        pytest.param("db", "exa+bfs://db.example/s/b", False, id="longer-name"),
        pytest.param("b.example", "exa+bfs://db.example/s/b", False, id="suffix"),
        pytest.param("a, db ,c", "exa+bfs://db/s/b", True, id="list"),
        pytest.param("[::1]", "exa+bfs://[0:0::1]/s/b", True, id="v6"),
        pytest.param("[::1]:7", "exa+bfs://[::1]:7/s/b", True, id="v6-port"),
        pytest.param("[::1]", "exa+bfs://[::1]:7/s/b", False, id="v6-other-port"),
        pytest.param("127.0.0.1", "exa+bfs://localhost/s/b", False, id="no-lookup"),
        pytest.param(",", "exa+bfs://db/s/b", False, id="empty-list"),
    ],
)
def test_host_and_port_must_match(rules, uri, expected):
    """An entry matches URIs with its host and port; without a port, BucketFS's default."""
    parsed = parse_host_list(rules, variable="V")
    assert any(rule.matches(BucketFSUri.parse(uri)) for rule in parsed) is expected


@pytest.mark.parametrize(
    ("rules", "uri", "expected"),
    [
        pytest.param("db:80", "exa+bfss://db:80/s/b", True, id="https"),
        pytest.param("db:80", "exabfss://db:80/s/b", True, id="https-alias"),
        pytest.param("db:80", "exa+bfs://db:80/s/b", False, id="http"),
        pytest.param("db:80", "exabfs://db:80/s/b", False, id="http-alias"),
        pytest.param("db", "exa+bfs://db/s/b", False, id="default-port"),
        pytest.param("exa+bfss://db:80", "exa+bfss://db:80/s/b", True, id="https-entry"),
        pytest.param("exabfss://db:80", "exa+bfs://db:80/s/b", False, id="https-entry-for-http"),
        pytest.param("exa+bfs://db:80", "exa+bfs://db:80/s/b", True, id="http-entry"),
        pytest.param("exa+bfs://db:80", "exabfs://db:80/s/b", True, id="http-entry-for-alias"),
        pytest.param("exabfs://DB:80/", "exa+bfs://db:80/s/b", True, id="alias-entry"),
        pytest.param("exa+bfs://db:80", "exa+bfss://db:80/s/b", True, id="http-entry-for-https"),
        pytest.param("exa+bfs://db", "exa+bfs://db:2580/s/b", True, id="http-default-port"),
        pytest.param("exa+bfs://db", "exa+bfss://db:2581/s/b", True, id="https-default-port"),
        pytest.param("exa+bfs://db", "exa+bfs://db:2581/s/b", False, id="port-of-https"),
        pytest.param("exa+bfs://[::1]:7", "exa+bfs://[::1]:7/s/b", True, id="v6"),
        pytest.param("db, exa+bfs://db", "exa+bfs://db/s/b", True, id="both"),
    ],
)
def test_plain_http_needs_an_entry_with_its_scheme(rules, uri, expected):
    """An entry allows HTTPS; only one with ``exa+bfs://`` allows plain HTTP too."""
    parsed = parse_host_list(rules, variable="V")
    assert any(rule.allows(BucketFSUri.parse(uri)) for rule in parsed) is expected


@pytest.mark.parametrize(
    "text", ["db", "db:80", "[::1]", "[2001:db8::1]:80", "exa+bfs://db", "exa+bfs://[::1]:80"]
)
def test_rules_are_formatted_as_written(text):
    """A rule is formatted as in the list."""
    assert [str(rule) for rule in parse_host_list(text, variable="V")] == [text]


@pytest.mark.parametrize(
    "entry",
    [
        *("http://db", "exa+saas://db", "exa+bfs://", "exa+bfs://db/s", "exa+bfs://exa+bfs://db"),
        *("db/s", "db:x", "db:0", "*", "*.example", "[::1", "::1", "d b", "db?x", "db#x"),
    ],
)
def test_bad_entries_name_the_variable(entry):
    """The error of an invalid entry has its number, the variable and the expected form."""
    with pytest.raises(ConfigurationError, match=r"EXA_X: entry 2 .*host\[:port\]"):
        parse_host_list(f"good,{entry}", variable="EXA_X")


@pytest.mark.parametrize(
    "entry",
    ["w:Geheim@db", "exa+bfs://w:Geheim@db:2580", "db/s?p=Geheim", "w:1/Geheim@db", "Geheim!"],
)
def test_a_password_in_an_entry_is_not_repeated(entry):
    """Neither the error nor its causes contain a password from the list."""
    with pytest.raises(ConfigurationError) as caught:
        parse_host_list(entry, variable="EXA_X")
    assert "Geheim" not in "".join(traceback.format_exception(caught.value))


def test_without_a_list_all_hosts_are_allowed():
    """All hosts are allowed without a list, and no hosts with an empty one."""
    uri = BucketFSUri.parse("exa+bfss://db/s/b")
    check_host_allowed(None, uri)
    check_host_allowed(parse_host_list("other,db", variable="V"), uri)
    with pytest.raises(HostNotAllowedError):
        check_host_allowed((), uri)


def test_a_bucket_on_another_host_is_refused_before_any_connection(own_server):
    """Creating a bucket on a host that is not listed raises an error with the remedy."""
    settings = ConnectionSettings.from_env(
        {"EXA_BUCKETFS_ALLOWED_HOSTS": "127.0.0.1:1", "EXA_BUCKETFS_PASSWORD": "write"}
    )
    with pytest.raises(HostNotAllowedError, match=f"add exa.bfs://127.0.0.1:{own_server.port} to"):
        Bucket(own_server.uri(), settings)
    assert own_server.requests.connections == 0


@pytest.mark.parametrize("scheme", ["exa+bfs", "exabfs", "exa+bfss", "exabfss"])
@pytest.mark.parametrize("listed", ["other", "db:7"])
def test_a_refusal_has_the_entry_that_would_allow_the_uri(scheme, listed):
    """The entry in the message of a refusal allows the refused URI."""
    uri = BucketFSUri.parse(f"{scheme}://db:7/s/b")
    rules = parse_host_list(listed, variable="V")
    if (listed, uri.tls) == ("db:7", True):
        check_host_allowed(rules, uri)
        return
    with pytest.raises(HostNotAllowedError) as caught:
        check_host_allowed(rules, uri)
    text = str(caught.value)
    entry = text.partition(", add ")[2].partition(" to EXA_BUCKETFS_ALLOWED_HOSTS")[0]
    check_host_allowed(parse_host_list(entry, variable="V"), uri)
    assert ("over HTTPS only" in text) is (listed == "db:7")
