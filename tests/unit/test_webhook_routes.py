"""What can be a route of the webhooks, and what is told to who writes another."""

from datetime import timedelta
from typing import Any

import pytest

from perdure import Secret, UsageError, Webhook, WebhookRoute
from perdure.runtime.web.webhooks.delivery import query_params, recorded_headers

SOUND: dict[str, Any] = {"source": "github", "path": "/github"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"source": ""}, "the source of a webhook is 1 to 60"),
        ({"source": "a b"}, "the source of a webhook is 1 to 60"),
        ({"source": 7}, "the source of a webhook is 1 to 60"),
        ({"path": "github"}, "begins with /"),
        ({"path": "/a b"}, "begins with /"),
        ({"path": "/t/{id"}, "a parameter in the path of a webhook is such as '/t/{id}', not '/t/{id'"),
        ({"path": "/t/{}"}, "a parameter in the path"),
        ({"methods": ()}, "the methods of webhook /github"),
        ({"methods": "POST"}, "WebhookRoute: methods is"),
        ({"methods": ("P OST",)}, "the methods of webhook /github"),
        ({"scheme": "md5"}, "WebhookRoute: scheme is one of .github., .standard., .stripe., .slack., .bearer."),
        ({"tolerance": timedelta(0)}, "the tolerance of webhook /github"),
        ({"max_bytes": 0}, "max_bytes of webhook /github"),
        ({"max_bytes": 9 * 1024 * 1024}, "max_bytes of webhook /github"),
        ({"delivery_header": "a b"}, "the name of a header"),
        ({"secret": ()}, "is empty"),
        ({"secret": 7}, "WebhookRoute: secret is a Secret, a text"),
    ],
)
def test_what_cannot_be_a_route_is_refused_when_it_is_made(change: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        WebhookRoute(**{**SOUND, **change})


def test_methods_are_written_in_capitals_and_each_once() -> None:
    route = WebhookRoute(source="a", path="/a", methods=("post", "PUT", "POST"))

    assert route.methods == ("POST", "PUT")


def test_no_secret_is_shown() -> None:
    routes = [
        WebhookRoute(source="a", path="/a", secret="hunter2"),
        WebhookRoute(source="a", path="/a", secret=(Secret("NEW"), "hunter2"), scheme="stripe"),
        WebhookRoute(source="a", path="/a"),
    ]

    assert [repr(route) for route in routes] == [
        "<WebhookRoute a POST /a github>",
        "<WebhookRoute a POST /a stripe>",
        "<WebhookRoute a POST /a open>",
    ]


def test_a_route_is_read_from_the_words_of_its_specification() -> None:
    spec = {"source_id": "github", "path": "/github", "methods": ["POST", "PUT"], "secret": "hunter2"}

    route = WebhookRoute.from_spec(spec)

    assert route == WebhookRoute(source="github", path="/github", methods=("POST", "PUT"), secret="hunter2")
    assert WebhookRoute.from_spec({"source_id": "a", "path": "/a"}) == WebhookRoute(source="a", path="/a")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"path": "/a"}, "has no source_id"),
        ({"source_id": "a"}, "has no path"),
        ({"source_id": "a", "path": "/a", "colour": 1}, "has an unknown 'colour'"),
        ({"source_id": "a", "path": "/a", "methods": "POST"}, "WebhookRoute: methods is"),
        ({"source_id": "a", "path": "/a", "secret": ""}, "is empty"),
    ],
)
def test_a_specification_with_other_words_is_refused(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        WebhookRoute.from_spec(spec)


def test_the_route_of_an_entry_point_is_called_after_it() -> None:
    route = WebhookRoute.of_entry("orders", Webhook("/orders", secret="hunter2", tolerance=timedelta(seconds=9)))

    assert (route.source, route.path, route.scheme, route.tolerance.seconds) == ("orders", "/orders", "github", 9)


def test_a_header_that_came_twice_is_one_with_a_comma_unless_it_tells() -> None:
    found = recorded_headers([("Via", "a"), ("via", "b"), ("X-Signature", "s"), ("X-Signature", "t")])

    assert found == {"via": "a, b", "x-signature": "[redacted]"}


@pytest.mark.parametrize(
    "name",
    ["Authorization", "X-Auth", "X-Auth-Key", "X-Shopify-Hmac-Sha256", "X-Access-Key", "X-Amz-Credential", "Cookie"],
)
def test_a_header_that_proves_or_lets_in_is_not_written_down(name: str) -> None:
    assert recorded_headers([(name, "hunter2")]) == {name.lower(): "[redacted]"}


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("", {}),
        ("a=1&a=2&b=", {"a": ["1", "2"], "b": ""}),
        ("a=%F0%9F%98%80&b=%ff&c", {"a": "\N{GRINNING FACE}", "b": "\N{REPLACEMENT CHARACTER}", "c": ""}),
    ],
)
def test_a_query_is_kept_as_it_was_meant(query: str, params: dict[str, Any]) -> None:
    assert query_params(query) == params
