"""Whether a delivery is signed, and what it is called: pure, with the official package as the sender."""

import base64
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Official
from standardwebhooks import WebhookVerificationError

from perdure import UsageError
from perdure.actors.triggers.kinds import SignatureScheme
from perdure.runtime.web.webhooks.signatures import Delivered, Verifier, challenge, delivery_id
from tests.support.webhooks import SECRET, STANDARD_SECRET, github, slack, standard, stripe

NOW = 1_700_000_000
MICROS = 1_000_000
TOLERANCE = 300 * MICROS
BODY = b'{"id": "evt_1", "event_id": "Ev1"}'


def delivered(headers: Mapping[str, str], body: bytes = BODY) -> Delivered:
    return Delivered({name.lower(): value for name, value in headers.items()}, body)


def fault(
    scheme: SignatureScheme, headers: Mapping[str, str], body: bytes = BODY, *, secret: str = SECRET
) -> str | None:
    return Verifier(scheme, [secret], TOLERANCE).fault(delivered(headers, body), NOW * MICROS)


@pytest.mark.parametrize(
    ("scheme", "headers", "secret"),
    [
        ("github", github(BODY), SECRET),
        ("standard", standard(BODY, "msg_1", at=NOW), STANDARD_SECRET),
        ("stripe", stripe(BODY, at=NOW), SECRET),
        ("slack", slack(BODY, at=NOW), SECRET),
        ("bearer", {"Authorization": f"Bearer {SECRET}"}, SECRET),
    ],
)
class TestEveryScheme:
    def test_a_delivery_that_is_signed_is_accepted(
        self, scheme: SignatureScheme, headers: dict[str, str], secret: str
    ) -> None:
        assert fault(scheme, headers, secret=secret) is None

    def test_a_delivery_that_is_signed_with_another_secret_is_refused(
        self, scheme: SignatureScheme, headers: dict[str, str], secret: str
    ) -> None:
        assert fault(scheme, headers, secret=secret.replace("it is", "it was").replace("MfKQ", "NfKQ")) is not None

    def test_a_delivery_without_a_signature_is_refused(
        self, scheme: SignatureScheme, headers: dict[str, str], secret: str
    ) -> None:
        assert fault(scheme, {}, secret=secret) is not None

    def test_no_header_that_is_left_out_or_spoiled_is_an_error(
        self, scheme: SignatureScheme, headers: dict[str, str], secret: str
    ) -> None:
        for name in headers:
            for value in ("", "\xe4\xf6", ",", "=", "v1,", "sha256=", "v0=", "t=,v1=", "9" * 30, "-1", "nan", "Bearer"):
                assert fault(scheme, {**headers, name: value}, secret=secret) is not None

    def test_each_of_several_secrets_will_do(
        self, scheme: SignatureScheme, headers: dict[str, str], secret: str
    ) -> None:
        both = Verifier(scheme, ["c29tZXRoaW5nIGVsc2U=", secret], TOLERANCE)

        assert both.fault(delivered(headers), NOW * MICROS) is None


@pytest.mark.parametrize(
    ("scheme", "headers", "secret"),
    [
        ("github", github(BODY), SECRET),
        ("standard", standard(BODY, "msg_1", at=NOW), STANDARD_SECRET),
        ("stripe", stripe(BODY, at=NOW), SECRET),
        ("slack", slack(BODY, at=NOW), SECRET),
    ],
)
def test_another_body_is_refused(scheme: SignatureScheme, headers: dict[str, str], secret: str) -> None:
    assert fault(scheme, headers, BODY + b" ", secret=secret) == "Invalid signature"


@pytest.mark.parametrize("off", [-301, 301])
@pytest.mark.parametrize(
    ("scheme", "sign", "secret"),
    [
        ("standard", lambda at: standard(BODY, "msg_1", at=at), STANDARD_SECRET),
        ("stripe", lambda at: stripe(BODY, at=at), SECRET),
        ("slack", lambda at: slack(BODY, at=at), SECRET),
    ],
)
def test_a_delivery_of_another_time_is_refused(scheme: SignatureScheme, sign: Any, secret: str, off: int) -> None:
    assert fault(scheme, sign(NOW + off), secret=secret) == "Timestamp outside of the tolerance"
    assert fault(scheme, sign(NOW + off // 301 * 300), secret=secret) is None


@pytest.mark.row("A3-88")
def test_a_signature_in_capital_letters_is_the_same_signature() -> None:
    signature = github(BODY)["X-Hub-Signature-256"].removeprefix("sha256=")

    assert fault("github", {"X-Hub-Signature-256": f"sha256={signature.upper()}"}) is None


def test_the_example_in_githubs_documentation_is_accepted() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"X-Hub-Signature-256": f"sha256={digest}"}

    assert fault("github", headers, b"Hello, World!", secret="It's a Secret to Everybody") is None


def test_the_example_in_slacks_documentation_is_accepted() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    verifier = Verifier("slack", ["8f742231b10e8888abcd99yyyzzz85a5"], TOLERANCE)

    assert verifier.fault(Delivered(headers, body), 1531420618 * MICROS) is None


IDS = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(
    IDS, st.text(max_size=40), st.binary(min_size=1, max_size=40), st.booleans(), st.integers(-1, 100), st.booleans()
)
def test_what_the_official_package_accepts_is_accepted_and_nothing_else(
    id: str, text: str, key: bytes, is_old: bool, spoiled: int, is_other: bool
) -> None:
    at = int(time.time()) - (1000 if is_old else 0)
    body = text.encode("utf-8", "replace")
    secret = base64.b64encode(key).decode()
    headers = standard(body, id, at=at, secret=secret)
    if 0 <= spoiled < len(body):
        body = body[:spoiled] + bytes([body[spoiled] ^ 1]) + body[spoiled + 1 :]
    if is_other:
        headers["webhook-id"] += "x"
    try:
        Official(secret).verify(body, headers, json_parse=False)
        is_accepted = True
    except (WebhookVerificationError, UnicodeDecodeError):
        is_accepted = False

    found = Verifier("standard", [secret], TOLERANCE).fault(Delivered(headers, body), int(time.time()) * MICROS)

    assert (found is None) == is_accepted


@pytest.mark.parametrize("secret", ["whsec_", "not base64!", "ä", "===="])
def test_a_secret_that_is_no_base64_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(UsageError, match="base64") as caught:
        Verifier("standard", [secret], TOLERANCE)

    assert secret == "whsec_" or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "headers", "id"),
    [
        (
            "github",
            {"X-GitHub-Delivery": "72d3162e-cc78-11e3"},
            "72d3162e-cc78-11e3",
        ),
        ("standard", {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek"}, "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("standard", {"X-GitHub-Delivery": "unsigned"}, None),
        ("stripe", {"Stripe-Signature": "t=1,v1=2"}, "evt_1"),
        ("slack", {"X-Slack-Signature": "v0=1"}, "Ev1"),
        ("bearer", {"Idempotency-Key": "k-1"}, "k-1"),
        (None, {"X-Delivery-Id": "d-1"}, "d-1"),
        (None, {}, None),
    ],
)
def test_a_delivery_is_called_what_its_sender_calls_it(
    scheme: SignatureScheme | None, headers: dict[str, str], id: str | None
) -> None:
    payload = {"id": "evt_1", "event_id": "Ev1"}

    assert delivery_id(scheme, delivered(headers), payload, None) == id


def test_a_header_of_the_routes_own_says_what_a_delivery_is_called() -> None:
    found = delivery_id("stripe", delivered({"X-My-Id": "7", "Stripe-Signature": "t=1"}), {"id": "evt_1"}, "X-My-ID")

    assert found == "7"


def test_a_slash_command_that_is_sent_once_more_is_the_same_delivery() -> None:
    first = delivered(slack(b"command=/x", at=NOW), b"command=/x")
    later = delivered(slack(b"command=/x", at=NOW + 1), b"command=/x")

    ids = [delivery_id("slack", one, {"raw_body": "command=/x"}, None) for one in (first, first, later)]

    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("id", ["x" * 65, "x" * 1_001, "a b", "@7", "#7", "\xe9"])
def test_an_id_of_odd_characters_is_taken_by_its_digest(id: str) -> None:
    found = delivery_id(None, delivered({"X-Delivery-Id": id}), {}, None)

    assert found is not None
    assert len(found) == 32


def test_a_delivery_without_an_id_is_the_same_however_its_signature_is_written() -> None:
    body = b'{"no": "id"}'
    of_slack, of_stripe = slack(body, at=NOW), stripe(body, at=NOW)
    digest = of_slack["X-Slack-Signature"].removeprefix("v0=")
    again = [of_slack | {"X-Slack-Signature": text} for text in (digest, f"v0={digest.upper()}")]
    signature = of_stripe["Stripe-Signature"]
    once_more = [{"Stripe-Signature": text} for text in (f"{signature},v0=1", f" {signature} , {signature}")]

    for scheme, first, others in (("slack", of_slack, again), ("stripe", of_stripe, once_more)):
        kind = cast("SignatureScheme", scheme)
        ids = [delivery_id(kind, delivered(one, body), {"no": "id"}, None) for one in (first, *others)]

        assert all(fault(kind, one, body) is None for one in (first, *others))
        assert len({*ids}) == 1


def test_only_slack_is_given_its_challenge_back() -> None:
    asked = {"type": "url_verification", "challenge": "3eZbrw1a"}

    assert [challenge(scheme, asked) for scheme in ("slack", "github", None)] == ["3eZbrw1a", None, None]
    others: list[Any] = [{"challenge": "x"}, [], {"type": "url_verification"}]
    assert [challenge("slack", one) for one in others] == [None] * 3
