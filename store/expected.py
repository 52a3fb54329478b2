"""What callers give, checked against what the signature says: at the doors of the library, and once for all of them.

For callers without a type checker: a wrong type is a `UsageError` that names the parameter and says what is expected,
before anything is done. Not here: what a value of the right type may be, such as how long a name. The invariant: what
fits the annotation is let through; of what holds others only lists and tuples are looked into. The path of a step
does not lead through a door.
"""

# Annotations and values of any kind are data here, which no checker can know more of.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownParameterType=false, reportGeneralTypeIssues=false

import inspect
import os
import sys
import types
import typing
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Final, Literal, NamedTuple, ParamSpec, TypeVar, get_args, get_origin

import msgspec

from perdure.store.errors import UsageError
from perdure.store.wording import shown

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")

_SEVERAL: Final = (Iterable, Collection, Sequence, AbstractSet)
_WORDS: Final[dict[object, str]] = {
    str: "a text", int: "a whole number", float: "a number", bool: "True or False", bytes: "bytes",
    timedelta: "a timedelta such as timedelta(minutes=5)", datetime: "a datetime", Mapping: "a mapping such as a dict",
    dict: "a dict", list: "a list", tuple: "a tuple or a list", Iterable: "a list", Sequence: "a list",
    Collection: "a list", AbstractSet: "a set", Callable: "a function", os.PathLike: "a Path", type(None): "None",
}  # fmt: skip


class _Expected(NamedTuple):
    """What a parameter takes: whether a value is such a one, and how that is called."""

    fits: Callable[[Any], bool]
    words: str


class _Doorkeeper:
    """Looks at the arguments of one function; finds out what they are to be when it is called first."""

    def __init__(self, function: Callable[..., Any], name: str, *, is_method: bool) -> None:
        self._function, self._name, self._skipped = function, name, int(is_method)
        self._by_name: dict[str, _Expected] | None = None
        self._by_place: list[tuple[str, _Expected | None]] = []

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check the arguments of one call.

        Raises:
            UsageError: one of them is of another type than the function takes.
        """
        by_name = self._learn() if self._by_name is None else self._by_name
        for (name, expected), value in zip(self._by_place, args[self._skipped :], strict=False):
            if expected is not None and not expected.fits(value):
                raise _refused(self._told(args), name, expected, value)
        for name, value in kwargs.items():
            expected = by_name.get(name)
            if expected is not None and not expected.fits(value):
                raise _refused(self._told(args), name, expected, value)

    def _told(self, args: tuple[Any, ...]) -> str:
        """Return what the function is called where it was called: not by the class that it is inherited from."""
        if not self._skipped or not args:
            return self._name
        owner: type = args[0] if isinstance(args[0], type) else type(args[0])
        return owner.__name__ if self._name == "__init__" else f"{owner.__name__}.{self._name}"

    def _learn(self) -> dict[str, _Expected]:
        found: dict[str, _Expected] = {}
        parameters = list(inspect.signature(self._function).parameters.values())[self._skipped :]
        others = any(one.kind is one.VAR_KEYWORD for one in parameters)
        for one in parameters:
            expected = None
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                expected = _expected(_resolved(one.annotation, self._function), one.default)
                if expected is not None and not (others and one.kind is one.POSITIONAL_ONLY):  # by name it is another
                    found[one.name] = expected
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
                self._by_place.append((one.name, expected))
        self._by_name = found
        return found


_of_structs: Final[dict[type, tuple[tuple[str, _Expected], ...]]] = {}
"""What the fields of each type are to be: found out once, and the same for ever."""


def check_fields(one: msgspec.Struct) -> None:
    """Check the fields of what an application makes, in its `__post_init__`.

    Raises:
        UsageError: one of them is of another type than it takes.
    """
    kind = type(one)
    expected = _of_structs.get(kind)
    if expected is None:
        expected = _of_structs[kind] = _fields_of(kind)
    for name, what in expected:
        value = getattr(one, name)
        if not what.fits(value):
            raise _refused(kind.__name__, name, what, value)


def _fields_of(kind: type[msgspec.Struct]) -> tuple[tuple[str, _Expected], ...]:
    """Return what the library's fields are to be: those that an application adds, or changes, are its own."""
    found: dict[str, _Expected | None] = {}
    for base in reversed(kind.__mro__):
        is_checked = _is_ours(base) or not any("__post_init__" in vars(above) for above in base.__mro__[1:])
        names = vars(sys.modules.get(base.__module__, typing))
        for name, hint in inspect.get_annotations(base).items():
            found[name] = _meaning(_evaluated(hint, names)) if is_checked else None
    return tuple((name, what) for name in kind.__struct_fields__ if (what := found.get(name)) is not None)


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("perdure.")


def checked_but(*besides: str) -> Callable[[type[C]], type[C]]:
    """Have the public methods of a class, and its making, check what they are given, but for some that do it better.

    Inherited ones too, which in the class that they come from stay as they are. Those without parameters that could be
    wrong are left as they are, and so is `get` of a mapping, whose answer for what cannot be in it is None.
    """

    def guarded(cls: type[C]) -> type[C]:
        own = [base for base in reversed(cls.__mro__) if base is cls or _is_ours(base)]
        for name, value in {name: value for base in own for name, value in vars(base).items()}.items():
            is_public = name == "__init__" or not name.startswith("_")
            if is_public and name not in besides and not (name == "get" and issubclass(cls, Mapping)):
                _guard(cls, name, value)
        return cls

    return guarded


def checked(cls: type[C]) -> type[C]:
    """Have all public methods of a class, and its making, check what they are given. See `checked_but`."""
    return checked_but()(cls)


def _guard(cls: type, name: str, value: Any) -> None:
    if isinstance(value, (classmethod, staticmethod)):
        kind: Any = type(value)
        inner: Any = value.__func__
        if _may_be_wrong(inner):
            setattr(cls, name, kind(_guarded(inner, name, is_method=kind is classmethod)))
    elif inspect.isfunction(value) and not hasattr(value, "__wrapped__") and _may_be_wrong(value):
        setattr(cls, name, _guarded(value, name, is_method=True))


def checked_function(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function check what it is given."""
    guarded: Callable[P, R] = _guarded(function, getattr(function, "__name__", "it"), is_method=False)
    return guarded


def _guarded(function: Callable[..., Any], name: str, *, is_method: bool) -> Any:
    keeper = _Doorkeeper(function, name, is_method=is_method)
    if inspect.iscoroutinefunction(function):
        awaited: Callable[..., Awaitable[Any]] = function

        @wraps(function)
        async def later(*args: Any, **kwargs: Any) -> Any:
            keeper.check(args, kwargs)
            return await awaited(*args, **kwargs)

        return later

    @wraps(function)
    def at_once(*args: Any, **kwargs: Any) -> Any:
        keeper.check(args, kwargs)
        return function(*args, **kwargs)

    return at_once


def _may_be_wrong(function: Any) -> bool:
    hints = inspect.get_annotations(function)
    return any(name != "return" and hint not in (Any, object, "object") for name, hint in hints.items())


def _refused(where: str, name: str, expected: _Expected, value: object) -> UsageError:
    is_secret = any(word in name for word in ("secret", "token"))
    told = f"something of the type {type(value).__name__}" if is_secret else shown(value)
    return UsageError(f"{where}: {name} is {expected.words}, not {told}")


def _resolved(hint: Any, function: Any) -> Any:
    return _evaluated(hint, getattr(function, "__globals__", {}))


def _evaluated(hint: Any, names: Mapping[str, Any]) -> Any:
    """Return an annotation that may be written as text; Any where its names are only known to a type checker."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, dict(names))  # noqa: S307 - the library's own source
    except NameError:
        return Any


def _expected(hint: Any, default: object) -> _Expected | None:
    """Return what an annotation means; None: anything goes. A default is always as good as any."""
    found = _meaning(hint)
    if found is None or default is inspect.Parameter.empty:
        return found
    return _Expected(lambda value: value is default or found.fits(value), found.words)


def _meaning(hint: Any) -> _Expected | None:
    if hint is None:
        hint = type(None)
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _any_of([_meaning(arm) for arm in get_args(hint)])
    if origin is Literal:
        words = get_args(hint)
        return _Expected(
            lambda value: any(_is_word(value, word) for word in words),
            f"one of {', '.join(map(repr, words))}" if len(words) > 1 else repr(words[0]),
        )
    if origin is typing.Annotated:
        return _meaning(get_args(hint)[0])
    if isinstance(hint, TypeVar):
        arms = hint.__constraints__ or (hint.__bound__ or Any,)
        return _any_of([_meaning(arm) for arm in arms])
    if supertype := getattr(hint, "__supertype__", None):
        return _meaning(supertype)
    if origin is type:
        return _a_class(get_args(hint)[0])
    kind: Any = hint if origin is None else origin
    if kind is typing.Callable or kind is Callable:
        return _Expected(callable, _WORDS[Callable])
    if not isinstance(kind, type) or kind in (Any, object, type):
        return None  # or forms of types: nothing to look at
    items = get_args(hint)
    is_alike = kind is list or (kind is tuple and items[1:] == (...,))  # a pair's two are of two types
    return _each(_of_class(kind), items[0]) if is_alike and items else _of_class(kind)


def _a_class(of: Any) -> _Expected | None:
    if not isinstance(of, type) or of in (Any, object):
        return None  # a form of type, such as `list[int]`, is as good
    return _Expected(lambda value: isinstance(value, type) and issubclass(value, of), f"a class of {of.__name__}")


def _each(several: _Expected, hint: Any) -> _Expected:
    item = _meaning(hint)
    if item is None:
        return several
    words = f"{several.words}, each of it {item.words}"
    return _Expected(lambda value: several.fits(value) and all(map(item.fits, value)), words)


def _any_of(arms: Sequence[_Expected | None]) -> _Expected | None:
    known = [arm for arm in arms if arm is not None]
    if len(known) < len(arms):
        return None
    *words, last = dict.fromkeys(arm.words for arm in known)
    told = f"{', '.join(words)} or {last}" if words else last
    tests = [arm.fits for arm in known]
    return _Expected(lambda value: any(fits(value) for fits in tests), told)


def _of_class(kind: type) -> _Expected:
    words = _WORDS.get(kind) or f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
    if kind is int:
        return _Expected(lambda value: isinstance(value, int) and not isinstance(value, bool), words)
    if kind is float:
        return _Expected(lambda value: isinstance(value, (int, float)) and not isinstance(value, bool), words)
    if kind is tuple:  # a set, where no order is meant
        return _Expected(lambda value: isinstance(value, (list, tuple, AbstractSet)), words)
    if kind is list:
        return _Expected(lambda value: isinstance(value, (list, tuple)), words)
    if kind in _SEVERAL:  # a text is several characters, and meant as one thing
        return _Expected(lambda value: isinstance(value, kind) and not isinstance(value, (str, bytes)), words)
    if kind is dict:
        return _Expected(lambda value: isinstance(value, Mapping), words)
    if getattr(kind, "_is_protocol", False):
        members = _members(kind)
        return _Expected(lambda value: all(_has(value, member) for member in members), words)
    return _Expected(lambda value: isinstance(value, kind), words)


def _is_word(value: object, word: object) -> bool:
    """Return whether a value is one of the words of a literal, such as a member of an application's own `StrEnum`."""
    return isinstance(value, type(word)) and isinstance(value, bool) == isinstance(word, bool) and value == word


def _has(value: object, member: str) -> bool:
    """Return whether something has an attribute, without asking it: a property may run code, and raise.

    What stands for something else, such as a `Mock`, has to be asked: only it knows what that has.
    """
    if inspect.getattr_static(value, member, _Expected) is not _Expected:
        return True
    return hasattr(type(value), "__getattr__") and hasattr(value, member)


def _members(protocol: type) -> frozenset[str]:
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False) and base is not typing.Protocol]
    names = {name for base in bases for name in (*vars(base), *inspect.get_annotations(base))}
    return frozenset(name for name in names if not name.startswith("_") or name == "__call__")
