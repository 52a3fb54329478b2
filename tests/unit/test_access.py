"""Who is let in: tokens, Host headers, and where a server may listen."""

import pytest

from perdure import UsageError
from perdure.runtime.serving.access import Access, Denial, first_token, is_loopback

MISSING = Denial(401, "Missing Authorization header")
INVALID = Denial(401, "Invalid Authorization header")
WRONG = Denial(403, "Invalid token")


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x"}, {"authorization": "nonsense"}])
def test_without_a_token_everybody_is_let_in(headers: dict[str, str]) -> None:
    assert Access.by_token("").denial("/execute", headers) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, MISSING),
        ("", INVALID),
        ("T", INVALID),
        ("Basic T", INVALID),
        ("BearerT", INVALID),
        ("Bearer wrong", WRONG),
        ("Bearer ", WRONG),
        ("Bearer Tt", WRONG),
        ("Bearer t", WRONG),
        ("Bearer \xff", WRONG),
        ("Bearer T", None),
        ("bearer T", None),
        ("BEARER T", None),
    ],
)
def test_a_token_is_asked_for_and_compared(header: str | None, expected: Denial | None) -> None:
    headers = {} if header is None else {"authorization": header}

    assert Access.by_token("T").denial("/execute", headers) == expected


@pytest.mark.parametrize(
    ("path", "is_open"), [("/", True), ("/health", True), ("/tools", False), ("/status", False), ("/healthz", False)]
)
def test_only_the_root_and_the_health_are_open_when_there_is_a_token(path: str, *, is_open: bool) -> None:
    denial = Access.by_token("T").denial(path, {})

    assert (denial is None) is is_open


def test_a_token_is_kept_only_as_a_digest() -> None:
    assert "hunter2" not in repr(Access.by_token("hunter2"))


@pytest.mark.parametrize("token", ["two words", "new\nline", "päss"])
def test_a_token_that_a_header_cannot_carry_is_refused(token: str) -> None:
    with pytest.raises(UsageError, match="printable ASCII"):
        Access.by_token(token)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    assert Access.by_token(None).bound_to(host).token_digest is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "sandbox.example.com", ""])  # noqa: S104
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="set a token, or listen on"):
        Access.by_token(None).bound_to(host)

    assert Access.by_token("T").bound_to(host).hosts is None


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        ("127.0.0.1:9002", True),
        ("localhost", True),
        ("LocalHost:80", True),
        ("[::1]:9002", True),
        ("evil.example.com", False),
        ("evil.example.com:9002", False),
        ("127.0.0.1.evil.example.com", False),
        ("", False),
    ],
)
def test_on_loopback_another_host_in_the_header_is_refused(host: str, *, is_let_in: bool) -> None:
    denial = Access.by_token(None).bound_to("127.0.0.1").denial("/health", {"host": host})

    assert (denial is None) is is_let_in


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [("https://evil.example.com", False), ("null", False), ("http://127.0.0.1:9002", True), (None, True)],
)
def test_on_loopback_a_page_of_another_origin_is_refused(origin: str | None, *, is_let_in: bool) -> None:
    headers = {"host": "127.0.0.1:9002"} | ({} if origin is None else {"origin": origin})

    denial = Access.by_token(None).bound_to("127.0.0.1").denial("/execute", headers)

    assert (denial is None) is is_let_in


@pytest.mark.parametrize(
    ("site", "is_let_in"),
    [("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False), ("", False)],
)
def test_on_loopback_a_picture_on_another_page_is_refused(site: str, *, is_let_in: bool) -> None:
    headers = {"host": "127.0.0.1:9002", "sec-fetch-site": site}

    denial = Access().bound_to("127.0.0.1").denial("/", headers)

    assert denial == (None if is_let_in else Denial(403, "Cross-origin requests are refused"))


def test_the_first_token_that_says_something_counts() -> None:
    assert first_token([None, "", "  \n", " T\n", "other"]) == "T"
    assert first_token([None, " "]) is None
