"""Between event types and bytes: tags, versions, upcasters, large values.

A class name never reaches the disk: the tag, spelled by hand, does, so a class may be renamed or moved. Not here: what
a payload may contain (the actors check that before). Invariant: `decode(encode(event)) == event`.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import msgspec

from perdure.store.errors import (
    PayloadTooLargeError,
    UndecodableEventError,
    UnencodableError,
    UnknownTagError,
    UsageError,
)
from perdure.store.records import Blob, NewEvent, Recorded

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Lifts the data of one version to the next."""

BLOB_THRESHOLD_BYTES = 64 * 1024
"""A payload field over this goes to the blobs: rows stay small enough to be scanned."""

EVENT_LIMIT_BYTES = 16 * 1024 * 1024
"""The hard limit of one event with its blobs; what is larger belongs in a file whose path is recorded."""

OptionalPayload: TypeAlias = msgspec.Raw | msgspec.UnsetType
"""A payload that is for readers only: no state rests on it. Left out when unset; a load leaves its blob where it is."""

_NULL = msgspec.Raw(b"null")
_NO_BLOBS: Mapping[str, bytes] = MappingProxyType({})
_hash_map = msgspec.json.Decoder(dict[str, str])


class Event(msgspec.Struct, frozen=True):
    """A fact. Subclasses are frozen, named in the past tense, and spell their tag: `tag="circuit-opened"`."""

    type_version: ClassVar[int] = 1
    upcasters: ClassVar[Mapping[int, Upcaster]] = MappingProxyType({})
    """From version n to n + 1, for every n below `type_version`."""


class _Entry:
    """What the codec knows of one event type."""

    __slots__ = ("decode", "kind", "optional_fields", "payload_fields", "start", "tag", "version")

    def __init__(self, kind: type[Event], tag: str, version: int) -> None:
        self.kind = kind
        self.tag = tag
        self.version = version
        self.decode = msgspec.json.Decoder(kind).decode
        self.start = len(f'{{"type":"{tag}",')
        fields = msgspec.structs.fields(kind)
        self.optional_fields = frozenset(f.name for f in fields if f.type == OptionalPayload)
        self.payload_fields = tuple(f.name for f in fields if f.type is msgspec.Raw or f.type == OptionalPayload)


_entry_of = lru_cache(maxsize=1_024)(_Entry)
"""Reading the fields of a type takes longer than all else of opening an empty log; they do not change."""


class Codec:
    """Encodes and decodes the registered event types."""

    def __init__(
        self,
        types: Iterable[type[Event]],
        *,
        blob_threshold_bytes: int = BLOB_THRESHOLD_BYTES,
        limit_bytes: int = EVENT_LIMIT_BYTES,
    ) -> None:
        """Register *types*.

        Raises:
            UsageError: two types share a tag, a tag is missing, or an upcaster is missing for an old version.
        """
        self._encoder = msgspec.json.Encoder()
        self._threshold = blob_threshold_bytes
        self._limit = limit_bytes
        self._by_tag: dict[str, _Entry] = {}
        self._by_type: dict[type[Event], _Entry] = {}
        for kind in types:
            self._register(kind)

    def _register(self, kind: type[Event]) -> None:
        tag = kind.__struct_config__.tag
        if not isinstance(tag, str):
            raise UsageError(f'{kind.__name__} has no tag: write class {kind.__name__}(Event, frozen=True, tag="…")')
        missing = [n for n in range(1, kind.type_version) if n not in kind.upcasters]
        if missing:
            raise UsageError(f"{tag} is at version {kind.type_version} and has no upcaster from version {missing[0]}")
        entry = _entry_of(kind, tag, kind.type_version)
        if self._by_tag.setdefault(tag, entry).kind is not kind:
            raise UsageError(f"the tag {tag!r} belongs to {self._by_tag[tag].kind.__name__} already")
        self._by_type[kind] = self._by_tag[tag]

    @property
    def tags(self) -> frozenset[str]:
        """The registered tags."""
        return frozenset(self._by_tag)

    def encode(self, event: Event) -> tuple[NewEvent, tuple[Blob, ...]]:
        """Return *event* ready for the log, and the blobs that it refers to.

        Raises:
            UsageError: the type is not registered.
            UnencodableError: a value is not JSON (a lone surrogate, an unsupported type), or not of its field's type.
            PayloadTooLargeError: the event is over the limit.
        """
        entry = self._by_type.get(type(event))
        if entry is None:
            raise UsageError(f"{type(event).__name__} is not a registered event type")
        try:
            data = self._encoder.encode(event)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise UnencodableError(where=f"event {entry.tag}", detail=str(error)) from error
        if len(data) > self._threshold:
            return self._encode_large(event, entry, len(data))
        return NewEvent(entry.tag, entry.version, _stored(data, entry)), ()

    def _encode_large(self, event: Event, entry: _Entry, size: int) -> tuple[NewEvent, tuple[Blob, ...]]:
        if size > self._limit:
            raise PayloadTooLargeError(where=f"event {entry.tag}", size=size, limit=self._limit)
        blobs: dict[str, Blob] = {}
        for name in entry.payload_fields:
            given = getattr(event, name)
            value = b"" if given is msgspec.UNSET else bytes(given)
            if len(value) > self._threshold:
                blobs[name] = Blob(sha256=hashlib.sha256(value).hexdigest(), data=value)
        small = msgspec.structs.replace(event, **dict.fromkeys(blobs, _NULL))
        data = _stored(self._encoder.encode(small), entry)
        hashes = self._encoder.encode({name: blob.sha256 for name, blob in blobs.items()}) if blobs else None
        return NewEvent(entry.tag, entry.version, data, hashes), tuple(blobs.values())

    def decode(self, recorded: Recorded, blobs: Mapping[str, bytes] = _NO_BLOBS) -> Event:
        """Return the event; *blobs* holds the contents that `blob_hashes(recorded)` names.

        An optional payload whose blob is not among them is unset; `needed_blobs` leaves those out.

        Raises:
            UnknownTagError: no registered type has the tag, or the version is newer than the type's.
            UndecodableEventError: the data do not fit the type, or were erased.
        """
        entry = self._by_tag.get(recorded.type)
        if entry is None or recorded.type_version > entry.version:
            raise UnknownTagError(tag=recorded.type, position=recorded.position, stream=recorded.stream)
        if recorded.data is None:
            raise _undecodable(recorded, "its payload was erased")
        try:
            if recorded.type_version < entry.version:
                event: Event = msgspec.convert(_lift(recorded, recorded.data, entry.kind), entry.kind)
            else:
                event = entry.decode(recorded.data)
            if recorded.blobs is not None:
                event = msgspec.structs.replace(event, **_large(recorded.blobs, entry, blobs))
        except Exception as error:  # whatever an upcaster raises, its stream is blocked and no other
            raise _undecodable(recorded, str(error)) from error
        return event

    def needed_blobs(self, recorded: Iterable[Recorded]) -> set[str]:
        """Return the hashes of the blobs without which the events cannot be decoded."""
        needed: set[str] = set()
        for event in recorded:
            if event.blobs is not None:
                entry = self._by_tag.get(event.type)
                optional = frozenset[str]() if entry is None else entry.optional_fields
                needed.update(h for name, h in _hash_map.decode(event.blobs).items() if name not in optional)
        return needed


def blob_hashes(recorded: Iterable[Recorded]) -> set[str]:
    """Return the hashes of all blobs that the events refer to."""
    return {h for event in recorded if event.blobs is not None for h in _hash_map.decode(event.blobs).values()}


def _large(hashes: str, entry: _Entry, blobs: Mapping[str, bytes]) -> dict[str, OptionalPayload]:
    return {
        name: msgspec.UNSET if name in entry.optional_fields and sha256 not in blobs else msgspec.Raw(blobs[sha256])
        for name, sha256 in _hash_map.decode(hashes).items()
    }


def _stored(encoded: bytes, entry: _Entry) -> bytes:
    """Return what is written of an encoded event: the tag, which msgspec writes first, has a column of its own.

    Raises:
        UnencodableError: it cannot be read back.
    """
    rest = encoded[entry.start :]
    data = b"{" + rest if rest else b"{}"
    # A struct does not check its fields. One event that cannot be read back would keep its whole stream from ever
    # being loaded again, so it is refused while somebody is there to be told.
    try:
        entry.decode(data)
    except msgspec.MsgspecError as error:
        raise UnencodableError(where=f"event {entry.tag}", detail=str(error)) from error
    return data


def _lift(recorded: Recorded, text: str, kind: type[Event]) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(text)
    for version in range(recorded.type_version, kind.type_version):
        data = kind.upcasters[version](data)
    raws = {f.encode_name for f in msgspec.structs.fields(kind) if f.type is msgspec.Raw or f.type == OptionalPayload}
    return {k: msgspec.Raw(msgspec.json.encode(v)) if k in raws else v for k, v in data.items()}


def _undecodable(recorded: Recorded, detail: str) -> UndecodableEventError:
    return UndecodableEventError(
        tag=recorded.type,
        version=recorded.type_version,
        position=recorded.position,
        stream=recorded.stream,
        detail=detail,
    )
