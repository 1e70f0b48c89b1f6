"""The catalog: one row of data per provider, loaded once from catalog.toml, and rows made for unknown servers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from keyturn.core import Meaning, Rules

DialectName = Literal["openai_chat", "openai_responses", "anthropic", "gemini"]
DIALECT_NAMES: tuple[DialectName, ...] = ("openai_chat", "openai_responses", "anthropic", "gemini")


@dataclass(frozen=True, slots=True)
class Tool:
    """A command line tool that answers as a provider."""

    argv: tuple[str, ...]
    """`${MODEL}` in a word is replaced by the model's name; the word stays one argument."""
    output: str
    """How it prints its answer: codex_jsonl, claude_json, claude_stream_json, gemini_json, gemini_stream_json, text."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """All of the environment that it sees."""
    timeout: float = 300.0
    """Seconds that one run may take."""
    variables: tuple[str, ...] = ()
    """Of the owner's environment, what it may see beside what every program needs; *environ* is made of them."""
    found: bool = True
    """Its program was on the PATH when the configuration was read."""


class Quirk(NamedTuple):
    """What a translated request must heed for the models whose name *match* fits (shell wildcards, small letters)."""

    match: str
    takes: Mapping[str, Any]
    """Members of Target, and `fold_system`: it has no system prompt, so that goes into the first message."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What is special about one upstream. *variables*: prefixes of its variables, the canonical one first."""

    name: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    base_url: str = ""
    """Empty: there is no default, `<P>_API_BASE` must be set."""
    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Base URLs by name, where it has several: then the model decides which one is asked, see `g4f`."""
    base_path: str = ""
    """What completes a base URL that ends with the host, or with the first part of this path."""
    dialect: DialectName = "openai_chat"
    """What it is spoken to in when a call is in none of its dialects."""
    also: frozenset[str] = frozenset()
    """Further dialects that it speaks natively: calls in these are relayed as they are."""
    takes_betas: bool = False
    """It takes the client's `anthropic-beta`; compatible servers refuse flags that they do not know."""
    responses_only: tuple[str, ...] = ()
    """Models (shell wildcards, small letters) that are served as Responses only."""
    compat_path: str = ""
    """A base URL that ends so is its OpenAI-compatible endpoint: it is spoken to in OpenAI Chat there."""
    quirks: tuple[Quirk, ...] = ()
    """What its models differ in; of those that match a name, the first counts."""
    prefill_path: str = ""
    """Where it goes on with an answer that has begun, from the root of its host; empty: where it answers all others."""
    kinds: frozenset[str] = frozenset()
    """What it serves besides chat and embeddings, under the paths of OpenAI: completions, images, audio, moderations,
    rerank."""
    auth_header: str = "authorization"
    auth_prefix: str = "Bearer "
    signs_in: Mapping[str, str] = field(default_factory=dict)
    """Addresses of its authorisation server by what they are for: authorize, keys, device, token, userinfo, metadata.
    A token always goes into `authorization: Bearer`."""
    scopes: tuple[str, ...] = ()
    """What a token is asked to allow."""
    headers: tuple[tuple[str, str], ...] = ()
    chat_path: str = "/chat/completions"
    embeddings_path: str = "/embeddings"
    """Empty: it serves no embeddings."""
    models_path: str = "/models"
    """Empty: it has no list; *models* is one."""
    models_at_root: bool = False
    """*models_path* begins at the host's root, not at the base URL."""
    models_auth_header: str = ""
    """Where the secret goes, bare, when the list wants it elsewhere than the rest."""
    models_headers: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    model_prefix: str = ""
    """What ids in its list carry in front of the name that requests use."""
    rejects: frozenset[str] = frozenset()
    """Top-level members that it answers with an error; dropped with a note."""
    compat_rejects: frozenset[str] = frozenset()
    """The same at its OpenAI-compatible endpoint, where that is not its main one."""
    renames: Mapping[str, str] = field(default_factory=dict)
    tier: int = 4
    last_resort: bool = False
    """Asked only when nobody else can answer, unless its tier is set."""
    chat_model: str = ""
    """What it is asked for when a call names no model; `<P>_CHAT_MODEL` wins over it."""
    chat_sees: bool = True
    """*chat_model* takes images."""
    embedding_model: str = ""
    """The same as *chat_model* for embeddings; `<P>_EMBEDDING_MODEL` wins over it."""
    place: int = 9
    """Among providers of one tier, who comes first when a call names no model: the lowest, then by name."""
    keyless: bool = False
    """It works without a key."""
    counts_output: bool = True
    """Its token limits count output."""
    charges_max_output: bool = False
    """It charges the largest allowed output at admission."""
    states_cost: bool = False
    """`usage.cost` in its answers is what it charged, in USD."""
    usage_in_stream: Literal["option", "always", "never"] = "option"
    windows: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"
    shared_by: str = ""
    """What its limits are counted in, for people."""
    local_app: str = ""
    """Answered by the ASGI application of this name in this process."""
    rules: Rules = field(default_factory=Rules)
    longest_rests: Mapping[str, float] = field(default_factory=dict)
    """Meaning -> seconds that it rests at most after one, whatever it says itself and whatever the cooldown profile;
    `server_error` stands for every fault."""
    tool: Tool | None = None
    """Set for a provider of `kind: cli`: it is run, not called."""


class _Catalog(Mapping[str, Provider]):
    """All known providers by name; catalog.toml is read at the first look."""

    def __getitem__(self, name: str) -> Provider:
        return _rows()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_rows())

    def __len__(self) -> int:
        return len(_rows())


CATALOG: Mapping[str, Provider] = _Catalog()
COMPATIBLE = {"thinking": "budget", "max_output": 8192}
"""What servers take that speak Anthropic's dialect and are not Anthropic (documents of DeepSeek, Z.ai, MiniMax)."""
SERVED_BY_UNKNOWN = frozenset({"completions", "images", "audio", "moderations", "rerank"})
"""What may be asked of a server that the catalog does not know: it says itself what it has not."""


@cache
def _rows() -> dict[str, Provider]:
    text = files(__package__).joinpath("catalog.toml").read_text("utf-8")
    return {name: _row(name, members) for name, members in tomllib.loads(text).items()}


@cache
def _aliases() -> dict[str, Provider]:
    found: dict[str, Provider] = {}
    for row in _rows().values():
        for name in (row.name, *row.aliases):
            found[name] = row
    return found


def _row(name: str, members: dict[str, Any]) -> Provider:
    """A row of the catalog. A member that no field has is a mistake of ours: TypeError."""
    members = dict(members)
    rules = dict(members.pop("rules", {}))
    tool = members.pop("tool", None)
    for member in ("headers", "models_headers"):
        if member in members:
            members[member] = tuple((key.lower(), value) for key, value in members[member].items())
    members = {key: tuple(value) if isinstance(value, list) else value for key, value in members.items()}
    for member in ("rejects", "compat_rejects", "also", "kinds"):
        members[member] = frozenset(members.get(member, ()))
    members["quirks"] = tuple(_quirk(dict(each)) for each in members.get("quirks", ()))
    return Provider(name=name, rules=_rules(name, rules), tool=_tool(tool) if tool else None, **members)


def _quirk(members: dict[str, Any]) -> Quirk:
    return Quirk(members.pop("match"), members)


def _tool(members: dict[str, Any]) -> Tool:
    members = {key: tuple(value) if isinstance(value, list) else value for key, value in members.items()}
    return Tool(**members)


def _rules(name: str, members: dict[str, Any]) -> Rules:
    statuses: dict[int, Meaning] = {int(status): meaning for status, meaning in members.pop("statuses", {}).items()}
    members = {key: tuple(value) if isinstance(value, list) else value for key, value in members.items()}
    return Rules(name=name, statuses=statuses, **members)


def plain_name(name: str) -> str:
    """*name* as the catalog spells names: lower case, underscores for dashes, dots and spaces."""
    plain = name.strip().lower()
    for sign in "-. ":
        plain = plain.replace(sign, "_")
    return plain


def known(name: str) -> Provider | None:
    """The provider of this name or alias, in any spelling; None when there is none."""
    return _aliases().get(plain_name(name))


def custom(name: str, base_url: str, dialect: DialectName = "openai_chat") -> Provider:
    """A row for an unknown server: OpenAI-compatible unless *dialect* says otherwise."""
    plain = plain_name(name)
    row = Provider(
        plain,
        name,
        variables=(plain.upper(),),
        base_url=base_url.rstrip("/"),
        kinds=SERVED_BY_UNKNOWN,
        rules=Rules(name=plain),
    )
    return speaking(row, dialect)


def speaking(provider: Provider, dialect: DialectName) -> Provider:
    """*provider*, spoken to in *dialect*, with what is usual there: where the key goes, what it serves, its quirks."""
    if dialect == provider.dialect:
        return provider
    usual: dict[str, Any] = {"dialect": dialect, "also": provider.also - {dialect}}
    if dialect == "anthropic":
        usual |= {"auth_header": "x-api-key", "auth_prefix": "", "embeddings_path": "", "kinds": frozenset()}
        usual["quirks"] = (*CATALOG["anthropic"].quirks[:-1], Quirk("*", COMPATIBLE))
        usual["models_headers"] = CATALOG["anthropic"].models_headers
    elif dialect == "gemini":
        usual |= {"auth_header": "x-goog-api-key", "auth_prefix": "", "kinds": frozenset(), "model_prefix": "models/"}
        usual["quirks"] = CATALOG["gemini"].quirks
    elif provider.dialect in ("anthropic", "gemini"):
        usual |= {"auth_header": "authorization", "auth_prefix": "Bearer ", "quirks": ()}
        if provider.dialect == "anthropic":  # its list of models stays that of the native API
            usual |= {"models_auth_header": provider.auth_header}
    return replace(provider, **usual)


def at_its_address(provider: Provider) -> Provider:
    """*provider* in the dialect of its base URL: the address of an OpenAI-compatible endpoint says so."""
    if provider.compat_path and provider.base_url.endswith(provider.compat_path):
        return replace(speaking(provider, "openai_chat"), rejects=provider.compat_rejects, models_path="/models")
    return provider


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of *names* that was probably meant; None when nothing is near."""
    spelled = {each.lower(): each for each in names}
    given = name.strip().lower()[:200]
    close = get_close_matches(given, spelled, n=5, cutoff=0.6)
    swapped = [each for each in close if sorted(each) == sorted(given)]  # rmp is rpm, not rps
    return spelled[(swapped or close)[0]] if close else None
