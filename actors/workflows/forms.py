"""What a person is asked for: a text, one of several things, yes or no, a form with fields; and reading what they say.

Not here: whether an answer is taken (`asking.py`). Pure. Invariant: of which type a question is follows from its JSON
Schema and its choices, so every question that was ever recorded has one.
"""

import contextlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Generic, Literal, NotRequired, TypeAlias, TypedDict, TypeVar, cast

import msgspec

from perdure.actors.workflows.schema import misfit
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields, checked

T_co = TypeVar("T_co", covariant=True)

QuestionType: TypeAlias = Literal["free_text", "choice", "confirm", "form", "value", "approval", "pause"]
"""`value`: anything else that has a type, such as a number; `approval`: of a call; `pause`: what a run resumes with."""

MAX_FIELDS: Final = 100
"""Of a form."""

_YES: Final = frozenset({"yes", "y", "true"})
_NO: Final = frozenset({"no", "n", "false"})
_Object: TypeAlias = dict[str, Any]


class AnswerForm(Generic[T_co]):
    """Base of what a question may ask for in place of a plain type; `T` is what the workflow gets."""

    __slots__ = ("choices", "of")

    def __init__(self, of: Any, choices: Sequence[Any] | None = None) -> None:
        self.of = of
        """The type of the answer."""
        self.choices = choices
        """The only answers that are taken; None: whatever fits the type."""

    def schema(self) -> _Object:
        """Return the JSON Schema that an answer must fit."""
        return msgspec.json.schema(self.of)


def as_form(of: object) -> AnswerForm[Any] | None:
    """Return what a question asks for, if that is a form and not a plain type."""
    return of if isinstance(of, AnswerForm) else None  # pyright: ignore[reportUnknownVariableType] # of anything


@checked
class FreeText(AnswerForm[str]):
    """A text: `ctx.ask("why?", of=FreeText(max_length=500))`."""

    __slots__ = ()

    def __init__(self, *, min_length: int = 1, max_length: int | None = None, pattern: str | None = None) -> None:
        """Say what a text must be like; an empty one is refused unless *min_length* is 0.

        Raises:
            UsageError: no text could be like that.
        """
        if min_length < 0 or (max_length is not None and max_length < max(min_length, 1)):
            raise UsageError(f"no text has at least {min_length} and at most {max_length} characters")
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise UsageError(f"the pattern of a text is a regular expression, not {pattern!r}: {error}") from error
        super().__init__(Annotated[str, msgspec.Meta(min_length=min_length, max_length=max_length, pattern=pattern)])


@checked
class Choice(AnswerForm[T_co]):
    """One of several JSON values: `ctx.ask("which?", of=Choice("red", "green"))`."""

    __slots__ = ()

    def __init__(self, *options: T_co) -> None:
        """Name the options.

        Raises:
            UsageError: there is none.
        """
        if not options:
            raise UsageError("a choice has at least one option: Choice('red', 'green')")
        super().__init__(Any, options)


@checked
class Confirm(AnswerForm[bool]):
    """Yes or no: `ctx.ask("publish?", of=Confirm())`; `of=bool` is the same."""

    __slots__ = ()

    def __init__(self) -> None:
        """Ask for yes or no."""
        super().__init__(bool)


class FormField(msgspec.Struct, frozen=True):
    """One field of a form."""

    name: str
    of: Any = str
    """The type of its value; `Annotated[int, msgspec.Meta(ge=1)]` says what else must hold of it."""
    label: str = ""
    help: str = ""
    is_required: bool = True
    choices: tuple[str | int, ...] = ()
    """The only values that are taken, in place of a type."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def told(self) -> Any:
        """The type of its value, with what people are told of it."""
        kind: Any = Literal[self.choices] if self.choices else self.of
        if self.label or self.help:
            kind = Annotated[kind, msgspec.Meta(title=self.label or None, description=self.help or None)]
        return kind if self.is_required else NotRequired[kind]


@checked
class Form(AnswerForm[_Object]):
    """Several values by name: `of=Form(FormField("street"), FormField("floor", int, is_required=False))`.

    The workflow gets a dictionary with the values that were given, each of the type of its field.
    """

    __slots__ = ("fields",)

    def __init__(self, *fields: FormField) -> None:
        """Name the fields.

        Raises:
            UsageError: there is none, two have the same name, or one has a type that cannot be read from JSON.
        """
        names = [field.name if isinstance(field, FormField) else "" for field in cast("tuple[object, ...]", fields)]
        if not 1 <= len(names) <= MAX_FIELDS or len({*names}) < len(names) or not all(names):
            raise UsageError(
                f"a form has 1 to {MAX_FIELDS} fields, FormField(…), each with a name of its own, not {names}"
            )
        self.fields = fields
        typed = cast("Any", TypedDict)
        super().__init__(typed("Form", {field.name: field.told for field in fields}))
        try:
            self.schema()
        except TypeError as error:
            raise UsageError(f"a field of a form cannot be read back from JSON: {error}") from error

    def schema(self) -> _Object:
        """Return the JSON Schema: a field that the form does not have is no mistake that passes unseen."""
        schema = super().schema()
        form: _Object = schema["$defs"]["Form"]
        form["properties"] = {field.name: form["properties"][field.name] for field in self.fields}  # in their order
        form["additionalProperties"] = False
        return schema


def question_type(
    schema: _Object, choices: Sequence[Any] | None, *, tool: str = "", is_pause: bool = False
) -> QuestionType:
    """Return of which type a question is, by what it takes for an answer."""
    if tool:
        return "approval"
    if is_pause:
        return "pause"
    if choices is not None:
        return "choice"
    while "$ref" in schema:
        schema = {**schema, **schema["$defs"][schema["$ref"].rpartition("/")[2]]}
        del schema["$ref"]
    if "enum" in schema:
        return "choice"
    kinds: dict[str, QuestionType] = {"string": "free_text", "boolean": "confirm", "object": "form"}
    kind: Any = schema.get("type")
    return kinds.get(kind, "value") if isinstance(kind, str) else "value"


def read_answer(text: str, schema: _Object, choices: Sequence[Any] | None) -> Any:
    """Return the answer that a person means by what they wrote: JSON where that fits, otherwise the text itself.

    `yes` and `no`, and their first letters, answer what asks for one of them. What fits nothing is returned as it is,
    for the question to refuse.
    """
    for meant in _meanings(text):
        if choices is None and not misfit(meant, schema):
            return meant
        if choices is not None and any(_same(meant, choice) for choice in choices):
            return meant
    return next(iter(_meanings(text)))


def _meanings(text: str) -> list[Any]:
    found: list[Any] = []
    with contextlib.suppress(msgspec.DecodeError):
        found.append(msgspec.json.decode(text))
    found.append(text)
    word = text.strip().lower()
    if word in _YES | _NO:
        found.append(word in _YES)
    return found


def _same(one: Any, other: Any) -> bool:
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
