"""Finds the accounts that give tokens instead of keys: in variables, in credential files of Google, in logins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from keyturn.core import Account, Secret
from keyturn.providers import CATALOG, sendable, writable

from .addresses import base_url
from .logins import read_logins
from .settings import Settings, as_number, choose

TOKEN = re.compile(r"(?P<prefix>[A-Z][A-Z0-9_]*?)(?:_(?P<number>[0-9]{1,9}))?_(?:ACCESS|REFRESH)_TOKEN\Z")
NUMBERED = re.compile(r"(?P<name>[A-Z_]+?)(?:_(?P<number>[0-9]{1,9}))?\Z")
WAYS = {"gemini": ("adc",), "vertex": ("adc",), "azure": ("entra", "managed_identity")}
"""Provider -> what its `<P>_AUTH` may say."""
FOUNDRY = ".services.ai.azure.com"
FOUNDRY_SCOPE = "https://ai.azure.com/.default"
UNSENDABLE = "holds a space, a line break or another character that cannot be sent"
SENT = {
    "ACCESS_TOKEN": sendable,
    "REFRESH_TOKEN": writable,
    "CLIENT_SECRET": writable,
    "CLIENT_ID": writable,
    "PROJECT_ID": sendable,
}
"""Ending of a variable of a login -> whether its text can be sent."""
AUTHORITY = "https://login.microsoftonline.com"


class Signed(NamedTuple):
    """An account as it was found. *number* as of a key variable."""

    number: int
    origin: str
    account: Account


class Accounts(NamedTuple):
    """All accounts by provider, and the credential files that were read."""

    found: dict[str, list[Signed]]
    files: tuple[Path, ...] = ()
    bases: Mapping[str, str] = MappingProxyType({})
    """Provider -> the base URL that its project makes."""

    def of(self, provider: str) -> list[Signed]:
        return self.found.get(provider, [])


def find_accounts(settings: Settings, data: Path, cwd: Path) -> Accounts:
    """Every account that is asked for. What is wrong with one goes into the report."""
    ways = _ways(settings)
    found: dict[str, list[Signed]] = {}
    for provider, signed in _logged_in(data):
        found.setdefault(provider, []).append(signed)
    for provider, signed in _of_variables(settings):
        found.setdefault(provider, []).append(signed)
    files: list[Path] = []
    google = [("vertex", each) for each in _vertex(settings, "vertex" in ways, cwd, files)]
    if "gemini" in ways:
        google += [("gemini", each) for each in _default(settings, "gemini", cwd, files)]
    for provider, signed in google:
        found.setdefault(provider, []).append(signed)
    for signed in _azure(settings, ways.get("azure", "")):
        found.setdefault("azure", []).append(signed)
    return Accounts(found, tuple(dict.fromkeys(files)), _bases(settings, found, files))


def _bases(settings: Settings, found: Mapping[str, list[Signed]], files: list[Path]) -> dict[str, str]:
    """The address of Vertex, which an account needs unless VERTEX_API_BASE says all of it."""
    if _base(settings, "vertex"):
        return {}
    asked = "vertex" in found or settings.is_set("VERTEX_PROJECT")
    if not asked:
        return {}
    from .google_files import vertex_address

    address = vertex_address(settings, tuple(files))
    if not address and "vertex" in found and not settings.report.problems:
        settings.report.problem("VERTEX_PROJECT", "is not set, and the credential file names no project")
    return {"vertex": address} if address else {}


def _ways(settings: Settings) -> dict[str, str]:
    """Provider -> what its `<P>_AUTH` says."""
    ways: dict[str, str] = {}
    for provider, variable in settings.per_provider(after="_AUTH").items():
        said = (settings.text(variable) or "").lower()
        if provider not in WAYS:
            settings.report.problem(variable, f"has no effect: {provider} is asked with API keys; take it out")
        elif said not in WAYS[provider]:
            settings.report.problem(variable, choose(settings.report, said, WAYS[provider]))
        else:
            ways[provider] = said
    return ways


def _logged_in(data: Path) -> Iterator[tuple[str, Signed]]:
    counts: dict[str, int] = {}
    for login in read_logins(data):
        counts[login.provider] = counts.get(login.provider, 0) + 1
        yield login.provider, Signed(counts[login.provider], f"login {login.who}", login.account())


def _of_variables(settings: Settings) -> Iterator[tuple[str, Signed]]:
    """`<P>_ACCESS_TOKEN` with `<P>_REFRESH_TOKEN`, also as `<P>_<n>_…`; numbered ones first."""
    prefixes: dict[tuple[str, str], list[str]] = {}
    for name in settings.values:
        match = TOKEN.match(name)
        if match is not None and settings.is_set(name):
            prefixes.setdefault((match["prefix"], match["number"] or ""), []).append(name)
    for (prefix, number), names in sorted(prefixes.items(), key=lambda item: (not item[0][1], item[0])):
        provider = settings.names.find(prefix)
        row = CATALOG.get(provider) if provider is not None else None
        start = f"{prefix}_{number}" if number else prefix
        if row is None:
            continue
        if "token" not in row.signs_in or row.name == "azure":
            if len(names) == 2:
                settings.report.note(names[0], f"is not used: tokens of a login at {row.name} are not taken")
            continue
        if len(names) == 1:
            missing = f"{start}_{'REFRESH' if names[0].endswith('_ACCESS_TOKEN') else 'ACCESS'}_TOKEN"
            settings.report.note(names[0], f"is not used without {missing}")
            continue
        account = _from_variables(settings, row.name, start)
        if account is not None:
            yield row.name, Signed(int(number or 0), f"{start}_REFRESH_TOKEN", account)


def _from_variables(settings: Settings, provider: str, start: str) -> Account | None:
    row = CATALOG[provider]
    url, where = row.signs_in["token"], settings.text(f"{start}_TOKEN_URI")
    if where is not None:
        try:
            url = base_url(where)
        except ValueError as refusal:
            settings.report.problem(f"{start}_TOKEN_URI", str(refusal))
            return None
    stated = settings.text(f"{start}_EXPIRY_DATE") or "0"
    expires = as_number(stated)
    if expires is None:
        settings.report.problem(f"{start}_EXPIRY_DATE", "is not a number of seconds or milliseconds since 1970")
        return None
    client_id, who = settings.text(f"{start}_CLIENT_ID") or "", settings.text(f"{start}_EMAIL") or start.lower()
    if not client_id:
        settings.report.problem(f"{start}_REFRESH_TOKEN", f"needs {start}_CLIENT_ID: the program that it was given to")
        return None
    project = settings.text(f"{start}_PROJECT_ID")
    wrong = [
        name
        for ending, fine in SENT.items()
        if (text := settings.text(name := f"{start}_{ending}")) is not None and not fine(text)
    ]
    for name in wrong:
        settings.report.problem(name, UNSENDABLE)
    if wrong:
        return None
    return Account(
        "refresh_token",
        who,
        f"{url} {client_id} {who}",
        url,
        row.scopes,
        client_id,
        Secret(settings.text(f"{start}_CLIENT_SECRET") or ""),
        refresh_token=Secret(settings.text(f"{start}_REFRESH_TOKEN") or ""),
        access_token=Secret(settings.text(f"{start}_ACCESS_TOKEN") or ""),
        expires=expires / 1000 if expires > 1e11 else expires,
        headers=(("x-goog-user-project", project),) if project and provider in ("gemini", "vertex") else (),
        rotates=True,
        remedy=f"set {start}_ACCESS_TOKEN and {start}_REFRESH_TOKEN anew",
    )


def numbered(settings: Settings, family: str) -> list[tuple[int, str]]:
    """The set variables `FAMILY` and `FAMILY_<n>`, in natural order."""
    found = []
    for name in settings.values:
        match = NUMBERED.match(name)
        if match is not None and match["name"] == family and settings.is_set(name):
            found.append((int(match["number"] or 0), name))
    return sorted(found)


def _vertex(settings: Settings, asked: bool, cwd: Path, files: list[Path]) -> Iterator[Signed]:
    """The service accounts that are named; Google's default ones when VERTEX_… is set and no key is."""
    named = numbered(settings, "VERTEX_CREDENTIALS")
    for number, variable in named:
        from .google_files import google_account

        path = _path(cwd, settings.text(variable) or "")
        account = google_account(settings, "vertex", variable, path)
        files.append(path)
        if account is not None:
            yield Signed(number, variable, account)
    wanted = settings.is_set("VERTEX_PROJECT") or settings.is_set("VERTEX_LOCATION")
    if asked or (wanted and not named and not numbered(settings, "VERTEX_API_KEY")):
        yield from _default(settings, "vertex", cwd, files)


def _default(settings: Settings, provider: str, cwd: Path, files: list[Path]) -> Iterator[Signed]:
    """Google's application default credentials: the file that is named, gcloud's, the machine's own account."""
    from .google_files import google_account, without_file

    variable = "GOOGLE_APPLICATION_CREDENTIALS"
    named = settings.text(variable)
    path = _path(cwd, named) if named else _well_known(settings)
    if named or (path is not None and path.is_file()):
        assert path is not None
        files.append(path)
        account = google_account(settings, provider, variable if named else str(path), path)
    else:
        account = without_file(settings, provider)
    if account is not None:
        yield Signed(0, variable if named else "application default credentials", account)


def _path(cwd: Path, text: str) -> Path:
    """Where *text* leads from *cwd*; the home of somebody who has none is a folder of that name."""
    try:
        return cwd / Path(text).expanduser()
    except RuntimeError:
        return cwd / text


def _well_known(settings: Settings) -> Path | None:
    """Where gcloud leaves the credentials that programs may use."""
    name = "application_default_credentials.json"
    for variable, below in (("CLOUDSDK_CONFIG", ""), ("APPDATA", "gcloud"), ("HOME", ".config/gcloud")):
        if settings.is_set(variable):
            return Path(settings.values[variable].text.strip()) / below / name
    return None


def _azure(settings: Settings, way: str) -> Iterator[Signed]:
    """Entra: the service principals whose three variables are set; the machine's own identity when asked for."""
    row = CATALOG["azure"]
    scopes = _azure_scopes(settings, row.scopes)
    client_id = settings.text("AZURE_CLIENT_ID") or ""
    if way == "managed_identity":
        who = f"managed identity {client_id}".strip()
        url = row.signs_in["metadata"]
        remedy = "give this machine an identity, and that the role Cognitive Services OpenAI User"
        yield Signed(0, "AZURE_AUTH", Account("azure_metadata", who, who, url, scopes, client_id, remedy=remedy))
        return
    secrets = numbered(settings, "AZURE_CLIENT_SECRET")
    if not secrets and way == "entra":
        settings.report.problem("AZURE_AUTH", "needs AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET")
    if not way and (numbered(settings, "AZURE_API_KEY") or not _base(settings, "azure")):
        return  # these variables are also those of Azure's own tools
    for number, variable in secrets:
        ending = f"_{number}" if number else ""
        account = _principal(settings, variable, ending, scopes)
        if account is not None:
            yield Signed(number, variable, account)


def _principal(settings: Settings, variable: str, ending: str, scopes: tuple[str, ...]) -> Account | None:
    client = settings.text(f"AZURE_CLIENT_ID{ending}")
    tenant = settings.text(f"AZURE_TENANT_ID{ending}") or settings.text("AZURE_TENANT_ID")
    if not client or not tenant:
        lacking = f"AZURE_CLIENT_ID{ending}" if not client else f"AZURE_TENANT_ID{ending}"
        settings.report.problem(variable, f"is not used without {lacking}")
        return None
    if not re.fullmatch(r"[A-Za-z0-9.-]+", tenant):
        settings.report.problem("AZURE_TENANT_ID", "is not a tenant: its id, or a domain such as example.com")
        return None
    if not writable(settings.text(variable) or ""):
        settings.report.problem(variable, UNSENDABLE)
        return None
    try:
        authority = base_url(settings.text("AZURE_AUTHORITY_HOST") or AUTHORITY)
    except ValueError as refusal:
        settings.report.problem("AZURE_AUTHORITY_HOST", str(refusal))
        return None
    url = CATALOG["azure"].signs_in["token"].replace(AUTHORITY, authority).replace("{tenant}", tenant)
    return Account(
        "client_secret",
        f"{client} of {tenant}",
        f"azure {tenant} {client}",
        url,
        scopes,
        client,
        Secret(settings.text(variable) or ""),
        remedy=f"check {variable}: it may have expired",
    )


def _azure_scopes(settings: Settings, usual: tuple[str, ...]) -> tuple[str, ...]:
    if said := settings.words("AZURE_TOKEN_SCOPE"):
        return said
    return (FOUNDRY_SCOPE,) if FOUNDRY in _base(settings, "azure") else usual


def _base(settings: Settings, provider: str) -> str:
    """What `<P>_API_BASE` of *provider* says, in any spelling; empty when it says nothing."""
    row = CATALOG[provider]
    spellings = (*row.variables, *(name.upper() for name in (row.name, *row.aliases)))
    return next((text for name in spellings if (text := settings.text(f"{name}_API_BASE"))), "")
