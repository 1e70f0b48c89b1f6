"""What calls return: JSON objects with attribute and item access, and what is known of the call behind them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from keyturn.dispatch import Reply

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

ABSENT = frozenset(
    {
        "annotations",
        "audio",
        "content",
        "finish_reason",
        "function_call",
        "logprobs",
        "reasoning",
        "reasoning_content",
        "refusal",
        "role",
        "service_tier",
        "stop_reason",
        "stop_sequence",
        "system_fingerprint",
        "tool_calls",
        "usage",
    }
)
"""Members that providers leave out when there is nothing to say: read as attributes they are None then."""
_NESTED = frozenset({dict, list})
_decode = msgspec.json.Decoder().decode


class Told(NamedTuple):
    """What is known of a call beside its answer."""

    call: str
    """Its id, which the log line of the call and `x-keyturn-call` carry too."""
    provider: str | None
    model: str | None
    key: str | None
    """The shown form of the key that answered, `groq-2:9f3a1c`."""
    attempts: int
    fallback: str | None
    """The provider that answered, when it was not the one asked first."""

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Told:
        """What the headers of an answer say."""
        found = {name: value.decode("latin-1") for name, value in headers if name.startswith((b"x-key", b"x-fall"))}
        return cls(
            found.get(b"x-keyturn-call", ""),
            found.get(b"x-keyturn-provider"),
            found.get(b"x-keyturn-model"),
            found.get(b"x-keyturn-key"),
            int(found.get(b"x-keyturn-attempts", "0")),
            found.get(b"x-fallback-provider"),
        )


class Value(dict[str, Any]):
    """A JSON object: a dict whose members are attributes too, at every depth.

    A member that has the name of a method of dict (`items`, `keys`, `values`, …) is reached as an item only. An
    attribute that is not there raises AttributeError, which names those that are; a few that providers leave out when
    they are empty (`content`, `tool_calls`, `usage` …) are None.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            pass
        if name in ABSENT:
            return None
        raise AttributeError(f"there is no {name!r} here; there is {', '.join(map(str, self)) or 'nothing'}", name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r} here", name=name) from None

    def __getitem__(self, name: str) -> Any:
        found = dict.__getitem__(self, name)
        kind = type(found)
        if kind is dict:
            found = Value(found)
            dict.__setitem__(self, name, found)
        elif kind is list:
            _dress(found)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        found = dict.get(self, name, default)
        return self[name] if type(found) in (dict, list) and name in self else found

    def pop(self, name: str, *default: Any) -> Any:
        if name in self:
            self[name]
        return dict.pop(self, name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        dict.setdefault(self, name, default)
        return self[name]

    def values(self) -> dict_values[str, Any]:
        self._dress_all()
        return dict.values(self)

    def items(self) -> dict_items[str, Any]:
        self._dress_all()
        return dict.items(self)

    def copy(self) -> Value:
        return Value(self)

    def to_dict(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """The same as plain dicts and lists, a copy. *exclude_none* leaves out members that are null."""
        return {
            name: _undressed(value, exclude_none)
            for name, value in dict.items(self)
            if not (exclude_none and value is None)
        }

    def model_dump(self, *, exclude_none: bool = False, **_: Any) -> dict[str, Any]:
        """`to_dict`, under the name that OpenAI's SDK has for it; its other options have no effect."""
        return self.to_dict(exclude_none=exclude_none)

    def model_dump_json(self, *, indent: int | None = None, exclude_none: bool = False, **_: Any) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(exclude_none=exclude_none), indent=indent, ensure_ascii=False)

    to_json = model_dump_json

    def __dir__(self) -> Iterator[str]:
        yield from (name for name in self if name.isidentifier())
        yield from dict.__dir__(self)
        yield from ("to_dict", "model_dump", "model_dump_json")

    def __reduce__(self) -> tuple[Any, ...]:
        """For `copy` and `pickle`."""
        return type(self), (dict(self),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_dict()!r})"

    def _dress_all(self) -> None:
        for name in self:
            self[name]


class Answer(Value):
    """A whole answer: the object that the provider sent, in the form of the method that asked."""

    __slots__ = ("_headers",)
    _headers: Iterable[tuple[bytes, bytes]]

    @staticmethod
    def of(reply: Reply) -> Answer:
        """The answer in *reply*. Raises msgspec.DecodeError for what is no JSON object."""
        found = _decode(reply.body)
        if not isinstance(found, dict):
            raise msgspec.DecodeError("the answer is no JSON object")
        return _answer(found, reply.headers)

    def with_members(self, **members: Any) -> Answer:
        """The same answer with other *members*."""
        return _answer({**self, **members}, getattr(self, "_headers", ()))

    def copy(self) -> Answer:
        return self.with_members()

    def __reduce__(self) -> tuple[Any, ...]:
        return _answer, (dict(self), tuple(getattr(self, "_headers", ())))

    @property
    def keyturn(self) -> Told:
        """What is known of the call: its id, the provider, model and key that answered, how many were asked."""
        return Told.of(getattr(self, "_headers", ()))

    @property
    def output_text(self) -> str:
        """Of an answer of `responses`: all its text. Of any other, nothing."""
        parts = [part for item in self.get("output") or () for part in item.get("content") or ()]
        return "".join(part["text"] for part in parts if part.get("type") == "output_text")


def _answer(members: dict[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> Answer:
    answer = Answer(members)
    object.__setattr__(answer, "_headers", headers)
    return answer


def _dress(items: list[Any]) -> None:
    """Have the objects in a list be Values too, in place."""
    if _NESTED.isdisjoint(map(type, items)):  # a vector, say: looked through fast
        return
    for index, item in enumerate(items):
        kind = type(item)
        if kind is dict:
            items[index] = Value(item)
        elif kind is list:
            _dress(item)


def _undressed(value: Any, exclude_none: bool) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _undressed(each, exclude_none) for name, each in value.items() if not (exclude_none and each is None)
        }
    if isinstance(value, list):
        return [_undressed(each, exclude_none) for each in value]
    return value
