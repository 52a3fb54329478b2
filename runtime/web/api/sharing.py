"""The endpoints of what runs share: state, goals, conversations, and what people say. Each asks the runtime."""

from perdure.actors.state.goal_progress import GoalProgress
from perdure.actors.state.view import StateView
from perdure.runtime.conversations import Conversation, ConversationView
from perdure.runtime.people import inject_input
from perdure.runtime.web.api import shapes
from perdure.runtime.web.api import way_shapes as ways
from perdure.runtime.web.api.endpoint import Answer, Call, Endpoint
from perdure.runtime.web.api.problems import Refused
from perdure.runtime.web.api.reading import check_names_no_secret, read_text
from perdure.runtime.web.api.runs import started
from perdure.runtime.web.api.speaking import speaker


def _view(call: Call) -> StateView:
    query: ways.StateQuery = call.query
    return call.rt.state.view(run=query.run, stream=query.stream, conversation=query.conversation, who=call.caller.name)


async def _state(call: Call) -> Answer:
    return Answer(ways.StateValues(await _view(call).read_all()))


async def _write(call: Call) -> Answer:
    body: ways.WriteBody = call.body
    await _view(call).write_batch(body.values, scope=body.scope)
    return Answer(shapes.Done())


async def _delete(call: Call) -> Answer:
    query: ways.DeleteQuery = call.query
    return Answer(shapes.Changed(await _view(call).delete(call.path["key"], scope=query.scope)))


async def _changes(call: Call) -> Answer:
    query: ways.LimitQuery = call.query
    return Answer(ways.ChangeLines([ways.change_of(one) for one in await call.rt.state.recent_changes(query.limit)]))


async def _goals(call: Call) -> Answer:
    return Answer(ways.GoalLines([ways.goal_of(one) for one in await call.rt.goals.list()]))


async def _goal(call: Call) -> Answer:
    return Answer(await call.rt.goals.progress(call.path["goal"]))


async def _conversations(call: Call) -> Answer:
    return Answer(ways.ConversationLines(await call.rt.conversations.list()))


async def _conversation(call: Call) -> Answer:
    return Answer((await _known(call))[1])


async def _known(call: Call) -> tuple[Conversation, ConversationView]:
    found = call.rt.conversation(call.path["conversation"])
    view = await found.status()
    if view.updated_at is None:
        raise Refused(404, "UnknownConversationError", f"nothing has happened in a conversation {found.id}")
    return found, view


async def _conversation_runs(call: Call) -> Answer:
    found, _ = await _known(call)
    return Answer(ways.ConversationRuns(await found.history()))


async def _take_up(call: Call) -> Answer:
    body: ways.TakeUpBody = call.body
    found, _ = await _known(call)
    return started((await found.resume(body.answer, who=call.caller.name)).id)


async def _input(call: Call) -> Answer:
    body: ways.InputBody = call.body
    said = speaker(call.caller, body.who)
    if not call.caller.may("admin"):
        check_names_no_secret(read_text(body.content))
    outcome = await inject_input(call.rt, body.target, body.content, said.who, said.on_behalf)
    if outcome is False:
        raise Refused(404, "UnknownTargetError", "there is no run and no question of that id")
    return Answer(ways.InputTaken(outcome))


_CONVERSATION = "/v1/conversations/{conversation}"

SHARING = (
    Endpoint(
        method="GET", path="/v1/state/values", id="readState", does=_state, role="read",
        summary="Read the shared state as somebody sees it.",
        query=ways.StateQuery, answers={200: ways.StateValues}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path="/v1/state/values", id="writeState", does=_write, role="admin",
        summary="Set values of the shared state, all of them or none.",
        query=ways.StateQuery, body=ways.WriteBody, answers={200: shapes.Done}, refusals=(404, 409),
    ),
    Endpoint(
        method="DELETE", path="/v1/state/values/{key}", id="deleteState", does=_delete, role="admin",
        summary="Take a value of the shared state away; false: it was not there.",
        query=ways.DeleteQuery, answers={200: shapes.Changed}, refusals=(404, 409),
    ),
    Endpoint(
        method="GET", path="/v1/state/changes", id="listStateChanges", does=_changes, role="read",
        summary="List the newest changes of the shared state, the newest first.",
        query=ways.LimitQuery, answers={200: ways.ChangeLines},
    ),
    Endpoint(
        method="GET", path="/v1/goals", id="listGoals", does=_goals, role="read",
        summary="List the goals.",
        answers={200: ways.GoalLines},
    ),
    Endpoint(
        method="GET", path="/v1/goals/{goal}", id="getGoal", does=_goal, role="read",
        summary="Say how far a goal is, with the outcomes that this rests on.",
        answers={200: GoalProgress}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path="/v1/conversations", id="listConversations", does=_conversations, role="read",
        summary="List the conversations.",
        answers={200: ways.ConversationLines},
    ),
    Endpoint(
        method="GET", path=_CONVERSATION, id="getConversation", does=_conversation, role="read",
        summary="Say how a conversation stands.",
        answers={200: ConversationView}, refusals=(404,),
    ),
    Endpoint(
        method="GET", path=f"{_CONVERSATION}/runs", id="listConversationRuns", does=_conversation_runs, role="read",
        summary="List the runs of a conversation.",
        answers={200: ways.ConversationRuns}, refusals=(404,),
    ),
    Endpoint(
        method="POST", path=f"{_CONVERSATION}/resume", id="resumeConversation", does=_take_up, role="operate",
        summary="Have the newest run of a conversation go on that stands still.",
        body=ways.TakeUpBody, answers={202: shapes.Started}, refusals=(404, 409),
    ),
    Endpoint(
        method="POST", path="/v1/inputs", id="injectInput", does=_input, role="operate",
        summary="Give a run what somebody says: by the id of a question, or of a run that asks only one.",
        body=ways.InputBody, answers={200: ways.InputTaken}, refusals=(404, 409),
    ),
)  # fmt: skip
