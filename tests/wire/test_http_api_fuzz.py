"""The HTTP API against its own description: whatever is sent, each answer is one that stands there, and none is a 500.

The examples are the same in every run; PERDURE_FUZZ=N tries N of each endpoint, at random.
"""

import os
from collections.abc import Generator, Iterator
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from perdure.runtime.web.api.endpoint import EVENT_STREAM
from perdure.runtime.web.api.table import TABLE
from tests.support.api import ADMIN, BY_HAND, OFTEN, RICH, TOKENS, bearer, on_a_socket

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, negative_data_rejection, unsupported_method, ignored_auth,
]  # fmt: skip
WANTED = os.environ.get("PERDURE_FUZZ")
FUZZ = settings(
    max_examples=int(WANTED or 10),
    derandomize=WANTED is None,
    phases=[Phase.generate],  # a request that fails is small enough as it is
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with on_a_socket(
        tmp_path_factory.mktemp("fuzz") / "fuzz.db", TOKENS, entry_points=[OFTEN, BY_HAND], goals=[RICH]
    ) as found:
        with httpx2.Client(base_url=found, headers=bearer(ADMIN), trust_env=False) as client:
            for name in NAMES:
                client.post("/v1/runs", json={"workflow": name, "id": name}).raise_for_status()
            client.post("/v1/runs", json={"workflow": "double", "conversation": "c1"}).raise_for_status()
            client.get("/v1/runs/double/result?wait=60").raise_for_status()
        yield found


def operations() -> Iterator[tuple[str, str]]:
    for one in TABLE:
        if one.media_type != EVENT_STREAM:  # it has no end: test_http_api_streams.py
            yield one.method, one.path
    yield from (("GET", "/health"), ("GET", "/ready"))


THERE = {"tool": "look", "entry": "often", "goal": "rich", "conversation": "c1", "key": "k"}
NAMES = ("double", "fails", "asks", "buys", "listens", "naps")


@st.composite
def cases(draw: st.DrawFn, operation: Any) -> Any:
    """Requests that fit the description, and others; every second one names what is there."""
    mode = draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    case = draw(operation.as_strategy(generation_mode=mode))
    if isinstance(case.query.get("wait"), int):
        case.query["wait"] = 0  # a run that waits for somebody would have each example take a minute
    name = draw(st.sampled_from((*NAMES, None)))
    if name is not None and mode is GenerationMode.POSITIVE:  # a name that does not fit is to stay one
        known = {"run": name, "workflow": name, "question": f"{name}:ask#1", **THERE}
        case.path_parameters.update({place: known[place] for place in case.path_parameters if place in known})
        if isinstance(case.body, dict) and isinstance(case.body.get("workflow"), str):
            case.body["workflow"] = name
    return case


@pytest.mark.parametrize(("method", "path"), list(operations()))
def test_no_answer_is_outside_of_the_description(url: str, method: str, path: str) -> None:
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path][method]

    @FUZZ
    @given(case=cases(operation))
    def fuzz(case: Any) -> None:
        # A list that became a number is, in a query, a list of one text again: nothing there is to be refused.
        is_text_again = not isinstance(case.query.get("types", []), list)
        checks = [check for check in CHECKS if check is not negative_data_rejection or not is_text_again]
        case.call_and_validate(headers=bearer(ADMIN), checks=checks, timeout=30)

    fuzz()
