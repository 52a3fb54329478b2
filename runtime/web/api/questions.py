"""The endpoints of people: the open questions, and their answers. Each asks the runtime and decides nothing itself."""

from perdure.runtime.web.api import shapes
from perdure.runtime.web.api.endpoint import Answer, Call, Endpoint
from perdure.runtime.web.api.runs import handle_of
from perdure.runtime.web.api.speaking import speaker

_NOBODY = "api"
"""Who approves or rejects where neither the request nor a token says it: an approval has somebody's name."""


async def _list(call: Call) -> Answer:
    query: shapes.QuestionsQuery = call.query
    found = await call.rt.questions()
    wanted = (one for one in found if query.run in (None, one.run) and (query.to is None or query.to in one.to))
    return Answer(shapes.Questions([shapes.question_of(one) for one in wanted]))


async def _answer(call: Call) -> Answer:
    body: shapes.AnswerBody = call.body
    said = speaker(call.caller, body.who)
    await handle_of(call).answer(call.path["question"], body.value, who=said.who, on_behalf=said.on_behalf)
    return Answer(shapes.Done())


async def _approve(call: Call) -> Answer:
    body: shapes.ApproveBody = call.body
    said = speaker(call.caller, body.who)
    await handle_of(call).approve(
        call.path["question"],
        who=said.who or _NOBODY,
        arguments=body.arguments,
        digest=body.digest,
        on_behalf=said.on_behalf,
    )
    return Answer(shapes.Done())


async def _reject(call: Call) -> Answer:
    body: shapes.RejectBody = call.body
    said = speaker(call.caller, body.who)
    await handle_of(call).reject(call.path["question"], body.reason, who=said.who or _NOBODY, on_behalf=said.on_behalf)
    return Answer(shapes.Done())


_QUESTION = "/v1/runs/{run}/questions/{question}"

QUESTIONS = (
    Endpoint(
        method="GET", path="/v1/questions", id="listQuestions", does=_list, role="read",
        summary="List the open questions and approvals of all runs, oldest first.",
        query=shapes.QuestionsQuery, answers={200: shapes.Questions},
    ),
    Endpoint(
        method="POST", path=f"{_QUESTION}/answer", id="answerQuestion", does=_answer, role="operate",
        summary="Answer a question.",
        body=shapes.AnswerBody, answers={200: shapes.Done}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path=f"{_QUESTION}/approve", id="approveCall", does=_approve, role="operate",
        summary="Approve the call that a run asks for.",
        body=shapes.ApproveBody, answers={200: shapes.Done}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path=f"{_QUESTION}/reject", id="rejectCall", does=_reject, role="operate",
        summary="Reject the call that a run asks for: it is not made.",
        body=shapes.RejectBody, answers={200: shapes.Done}, refusals=(404, 409),
    ),
)  # fmt: skip
