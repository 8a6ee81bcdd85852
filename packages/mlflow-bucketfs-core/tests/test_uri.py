"""``BucketFSUri``: valid and invalid URIs, and errors without passwords."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow_bucketfs_core import Bucket, BucketFSUri
from mlflow_bucketfs_core.errors import BucketFSError, InvalidKeyError, InvalidUriError
from mlflow_bucketfs_core.uri import default_port, is_bucketfs_uri

SEGMENTS = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/?#@"), min_size=1
).filter(lambda text: text not in {".", ".."})
PATHS = st.lists(SEGMENTS | st.just(""), max_size=5).map("/".join)
HOSTS = st.one_of(
    st.from_regex(
        r"[A-Za-z0-9_]{1,10}(\.[A-Za-z0-9]([A-Za-z0-9-]{0,10}[a-z])?){0,3}\.?", fullmatch=True
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
URIS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["exa+bfs", "exa+bfss", "exabfs", "exabfss", "EXA+BFS", "exaBFSs"]),
    HOSTS,
    st.just("") | st.integers(1, 65535).map(":{}".format),
    st.just("") | PATHS.map("/{}".format),
)


@given(URIS)
def test_formatting_and_parsing_again_changes_nothing(text):
    """A parsed URI is formatted to a text that parses to an equal value."""
    uri = BucketFSUri.parse(text)
    assert BucketFSUri.parse(str(uri)) == uri
    assert str(BucketFSUri.parse(str(uri))) == str(uri)


@given(URIS, PATHS, PATHS)
def test_joining_is_associative(text, first, second):
    """Joining two paths in turn is the same as joining both at once."""
    uri = BucketFSUri.parse(text)
    assert uri.joinpath(first).joinpath(second) == uri.joinpath(f"{first}/{second}")


@given(st.text() | st.builds("exa+bfs://{}".format, st.text()) | st.builds("{}/..".format, URIS))
def test_any_text_parses_or_is_an_invalid_uri(text):
    """The parser raises only its own error, for any text."""
    try:
        uri = BucketFSUri.parse(text)
    except InvalidUriError:
        return
    assert BucketFSUri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    "template",
    [
        "exa+bfs://w:{}@host/s/b",
        "exa+bfs://{}@host/s/b/model",
        "exa+bfss://w:{}@host:2581/s/b",
        "exa+bfs://w:{}@[::1]/s/b",
        "exa+bfs://[w:{}@host]/s/b",
        "exa+bfs://w:{}@host/s/../b",
        "exa+bfs://w:{}@host/s/b\x00",
        "exa+bfs://w:{}@host/s/b?x=1",
        "exa+bfs://w:{}@host:99999/s/b#x",
        "exa+bfs://host/s/b?user=w&password={}",
        "exa+bfs://host/s/b?user=me@corp&password={}",
        "exa+bfs://host/s/b#{}",
        "EXA+BFS://w:{}@host/s/b",
        "exa+bfs:/w:{}@host/s/b",
        "exa+bfs:w:{}@host/s/b",
        "https://w:{}@host/s/b",
        "w:{}@host/s/b",
        "w:{}://x@host/s/b",
    ],
)
@given(between=st.text("/#?@\\:%+[] \n.é", max_size=3))
def test_a_password_in_the_uri_is_refused_and_never_repeated(template, between):
    """A URI with a password is refused, and the error does not contain the password."""
    text = template.format(f"Geheim1{between}Geheim2")
    with pytest.raises(InvalidUriError) as caught:
        Bucket(text)
    assert "Geheim" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("exa+bfs://h/s/b", ("exa+bfs", "h", 2580, "s", "b", ""), id="http"),
        pytest.param("exa+bfss://h/s/b", ("exa+bfss", "h", 2581, "s", "b", ""), id="https"),
        pytest.param("exabfs://h/s/b", ("exabfs", "h", 2580, "s", "b", ""), id="http-no-plus"),
        pytest.param("exabfss://h/s/b", ("exabfss", "h", 2581, "s", "b", ""), id="https-no-plus"),
        pytest.param("ExA+bFs://HoSt/S/B", ("exa+bfs", "host", 2580, "S", "B", ""), id="case"),
        pytest.param("exa+bfs://h:1/s/b", ("exa+bfs", "h", 1, "s", "b", ""), id="port-1"),
        pytest.param("exa+bfs://h:65535/s", ("exa+bfs", "h", 65535, "s", "", ""), id="port-max"),
        pytest.param("exa+bfs://h:02580/s", ("exa+bfs", "h", 2580, "s", "", ""), id="port-zeros"),
        pytest.param("exa+bfs://h", ("exa+bfs", "h", 2580, "", "", ""), id="host-only"),
        pytest.param("exa+bfs://h/", ("exa+bfs", "h", 2580, "", "", ""), id="host-slash"),
        pytest.param("exa+bfs://h/s/", ("exa+bfs", "h", 2580, "s", "", ""), id="service-only"),
        pytest.param("exa+bfs://h/s/b/p/", ("exa+bfs", "h", 2580, "s", "b", "p"), id="slash-end"),
        pytest.param("exa+bfs://h//s//b//p//q", ("exa+bfs", "h", 2580, "s", "b", "p/q"), id="//"),
        pytest.param("exa+bfs://h/s/b/%41", ("exa+bfs", "h", 2580, "s", "b", "%41"), id="percent"),
        pytest.param("exa+bfs://h/s/b/a b", ("exa+bfs", "h", 2580, "s", "b", "a b"), id="blank"),
        pytest.param("exa+bfs://h/s/b/a@b", ("exa+bfs", "h", 2580, "s", "b", "a@b"), id="at"),
        pytest.param("exa+bfs://h/s/b/a\\b", ("exa+bfs", "h", 2580, "s", "b", "a\\b"), id="\\"),
        pytest.param("exa+bfs://h/s/b/...", ("exa+bfs", "h", 2580, "s", "b", "..."), id="dots"),
        pytest.param(
            "exa+bfs://h/s/b/ü/模", ("exa+bfs", "h", 2580, "s", "b", "ü/模"), id="unicode"
        ),
        pytest.param("exa+bfs://h.x./s/b", ("exa+bfs", "h.x.", 2580, "s", "b", ""), id="dot-end"),
        pytest.param("exa+bfs://a_b-c.d/s", ("exa+bfs", "a_b-c.d", 2580, "s", "", ""), id="_-"),
        pytest.param("exa+bfs://10.0.0.1/s", ("exa+bfs", "10.0.0.1", 2580, "s", "", ""), id="v4"),
        pytest.param("exa+bfs://[::1]/s/b", ("exa+bfs", "::1", 2580, "s", "b", ""), id="v6"),
        pytest.param("exa+bfs://[::1]:7/s/b", ("exa+bfs", "::1", 7, "s", "b", ""), id="v6-port"),
        pytest.param(
            "exa+bfs://[2001:DB8:0:0::1]/s/b",
            ("exa+bfs", "2001:db8::1", 2580, "s", "b", ""),
            id="v6-canonical",
        ),
    ],
)
def test_valid_uris(text, expected):
    """Each part is unchanged in its attribute, except for the case of scheme and host."""
    uri = BucketFSUri.parse(text)
    assert (uri.scheme, uri.host, uri.port, uri.service, uri.bucket, uri.path) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "not a BucketFS URI", id="empty"),
        pytest.param("/local/path", "not a BucketFS URI", id="path"),
        pytest.param("s3://bucket/x", "not a BucketFS URI", id="other-scheme"),
        pytest.param("exa bfs://h/s/b", "not a BucketFS URI", id="plus-lost"),
        pytest.param(" exa+bfs://h/s/b", "not a BucketFS URI", id="blank-first"),
        pytest.param("exa+bfs:/h/s/b", "not a BucketFS URI", id="one-slash"),
        pytest.param("exa+bfs:///s/b", "no valid host", id="no-host"),
        pytest.param("exa+bfs://:2580/s/b", "no valid host", id="port-without-host"),
        pytest.param("exa+bfs://w@h/s/b", "user or password", id="user"),
        pytest.param("exa+bfs://w:p@h/s/b", "user or password", id="password"),
        pytest.param("exa+bfs://@h/s/b", "user or password", id="empty-user"),
        pytest.param("exa+bfs://good\\@evil/s/b", "user or password", id="backslash-at"),
        pytest.param("exa+bfs://evil#@good/s/b", "user or password", id="fragment-at"),
        pytest.param("exa+bfs://evil\\good/s/b", "no valid host", id="backslash"),
        pytest.param("exa+bfs://h%2Fx/s/b", "no valid host", id="percent-host"),
        pytest.param("exa+bfs://h x/s/b", "no valid host", id="blank-host"),
        pytest.param("exa+bfs://h\n/s/b", "no valid host", id="newline-host"),
        pytest.param("exa+bfs://bücher/s/b", "punycode", id="international"),
        pytest.param("exa+bfs://a..b/s/b", "no valid host", id="empty-label"),
        pytest.param("exa+bfs://.a/s/b", "no valid host", id="leading-dot"),
        pytest.param("exa+bfs://-a/s/b", "no valid host", id="leading-dash"),
        pytest.param(f"exa+bfs://{'a' * 64}/s/b", "no valid host", id="long-label"),
        pytest.param(f"exa+bfs://{'a.' * 127}a/s/b", "no valid host", id="long-host"),
        pytest.param("exa+bfs://::1/s/b", "IPv6 addresses in brackets", id="v6-bare"),
        pytest.param("exa+bfs://[::1/s/b", "not a valid IPv6", id="v6-open"),
        pytest.param("exa+bfs://[::1]x/s/b", "not a valid IPv6", id="v6-tail"),
        pytest.param("exa+bfs://[1.2.3.4]/s/b", "not a valid IPv6", id="v6-is-v4"),
        pytest.param("exa+bfs://[fe80::1%eth0]/s/b", "Zones", id="v6-zone"),
        pytest.param("exa+bfs://h:/s/b", "is not a number", id="port-empty"),
        pytest.param("exa+bfs://h:0/s/b", "is not a number", id="port-0"),
        pytest.param("exa+bfs://h:65536/s/b", "is not a number", id="port-above"),
        pytest.param("exa+bfs://h:0255800/s/b", "is not a number", id="port-above-with-zero"),
        pytest.param("exa+bfs://h:%s/s/b" % ("1" * 5000), "is not a number", id="port-endless"),
        pytest.param("exa+bfs://h:+1/s/b", "is not a number", id="port-sign"),
        pytest.param("exa+bfs://h:1_0/s/b", "is not a number", id="port-underscore"),
        pytest.param("exa+bfs://h:٣/s/b", "is not a number", id="port-arabic"),
        pytest.param(f"exa+bfs://h:{'9' * 5000}/s/b", "is not a number", id="port-huge"),
        pytest.param("exa+bfs://h/s/b?x", "query", id="query"),
        pytest.param("exa+bfs://h?x", "query", id="query-host"),
        pytest.param("exa+bfs://h/s/b/a#b", "fragment", id="fragment"),
        pytest.param("exa+bfs://h/s/b/../c", "'..'", id="dotdot"),
        pytest.param("exa+bfs://h/..", "'..'", id="dotdot-service"),
        pytest.param("exa+bfs://h/s/b/./c", "'.'", id="dot"),
        pytest.param("exa+bfs://h/s/b/a\nb", "U+000A", id="newline"),
        pytest.param("exa+bfs://h/s/b/a\x00", "U+0000", id="nul"),
        pytest.param("exa+bfs://h/s/b/\x85", "U+0085", id="c1-control"),
        pytest.param("exa+bfs://h/s/b/\udc80", "UTF-8", id="surrogate"),
    ],
)
def test_invalid_uris(text, reason):
    """A malformed or ambiguous URI is refused, with the reason."""
    with pytest.raises(InvalidUriError, match=re.escape(reason)):
        BucketFSUri.parse(text)


@pytest.mark.parametrize(
    ("text", "missing"),
    [("exa+bfs://h", "service and bucket"), ("exa+bfs://h/s", "bucket")],
)
def test_a_missing_bucket_is_an_error_when_it_is_needed(text, missing):
    """A URI without a bucket parses, and ``require_bucket`` raises with the expected form."""
    uri = BucketFSUri.parse(text)
    with pytest.raises(InvalidUriError, match=f"names no {missing}.*bfsdefault/default"):
        uri.require_bucket()


def test_a_path_supplies_service_and_bucket():
    """A joined path supplies the service and the bucket that a URI does not have."""
    root = BucketFSUri.parse("exa+bfs://h")
    assert root.joinpath("s/b/p") == BucketFSUri.parse("exa+bfs://h/s/b/p")
    assert root.joinpath("s/b").require_bucket().bucket == "b"


def test_joining_never_leads_out():
    """Joining a path with ``..`` is refused."""
    with pytest.raises(InvalidKeyError, match=r"'\.\.'"):
        BucketFSUri.parse("exa+bfs://h/s/b/p").joinpath("../q")


def test_endpoint_and_authority():
    """The endpoint is the root URL of requests, without the service's name."""
    assert BucketFSUri.parse("exa+bfss://[::1]/s/b").endpoint == "https://[::1]:2581"
    assert BucketFSUri.parse("exabfs://h/s/b").endpoint == "http://h:2580"
    assert (default_port(tls=False), default_port(tls=True)) == (2580, 2581)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exa+bfs://h/s/b", True),
        ("EXABFSS://h", True),
        ("exa+bfs:/one-slash", True),
        ("exabfs", False),
        ("exabfs/model", False),
        ("s3://exa+bfs://h", False),
        ("", False),
    ],
)
def test_is_bucketfs_uri(text, expected):
    """A text with a scheme of BucketFS is one even if the rest is malformed."""
    assert is_bucketfs_uri(text) is expected


def test_errors_derive_from_built_in_exceptions():
    """``InvalidUriError`` is also a ``ValueError``."""
    assert issubclass(InvalidUriError, ValueError)
    assert issubclass(InvalidUriError, BucketFSError)
