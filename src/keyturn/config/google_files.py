"""Reads Google's credential files, when they are asked for: service accounts and users of gcloud."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from keyturn.core import Account, Secret, fingerprint
from keyturn.providers import CATALOG, sendable, vertex_url, writable

from .addresses import base_url
from .settings import Settings

LARGEST = 1024 * 1024
LOGIN = "gcloud auth application-default login"
FIT = {
    **dict.fromkeys(("client_email", "client_id", "private_key_id", "account"), str.isprintable),
    **dict.fromkeys(("client_secret", "refresh_token"), writable),
    "private_key": str.isascii,
}
"""Member of a file -> whether its text can be what it is meant to be."""


def google_account(settings: Settings, provider: str, place: str, path: Path) -> Account | None:
    """The account in the file at *path*; None, and a problem of *place*, when there is none."""
    try:
        content = path.read_bytes()
        members: Any = json.loads(content) if len(content) <= LARGEST else None
    except OSError as error:
        settings.report.problem(place, f"cannot be read: {error.strerror}")
        return None
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        settings.report.problem(place, "is not a credential file of Google: those are JSON")
        return None
    texts = {name: value for name, value in members.items() if isinstance(value, str)}
    for name in ("private_key", "client_secret", "refresh_token"):
        if texts.get(name):
            settings.report.hide(texts[name])
    kind = texts.get("type", "")
    if kind not in READERS:
        known = " and ".join(READERS)
        said = f"is a file of type {settings.report.quote(kind)}, which is not supported; supported are {known}"
        settings.report.problem(place, said)
        return None
    wanted, read = READERS[kind]
    if missing := [name for name in wanted if not texts.get(name)]:
        settings.report.problem(place, f"is a file of type {kind} without {', '.join(missing)}")
        return None
    if odd := [name for name in FIT if not FIT[name](texts.get(name) or "-")]:
        settings.report.problem(place, f"holds a character in {', '.join(odd)} that does not belong there")
        return None
    try:
        url = base_url(texts.get("token_uri") or CATALOG[provider].signs_in["token"])
    except ValueError as refusal:
        settings.report.problem(place, f"token_uri {refusal}")
        return None
    if kind == "service_account" and importlib.util.find_spec("cryptography") is None:
        settings.report.problem(place, "a service account needs the extra oauth: pip install 'keyturn[oauth]'")
        return None
    return read(texts, CATALOG[provider].scopes, url)


def _service_account(texts: dict[str, str], scopes: tuple[str, ...], url: str) -> Account:
    email, key_id = texts["client_email"], texts.get("private_key_id", "")
    return Account(
        "service_account",
        email,
        f"google {email} {key_id}",
        url,
        scopes,
        email,
        private_key=Secret(texts["private_key"]),
        key_id=key_id,
        headers=_payer(texts),
        remedy="make a new key of the service account, and see that it is enabled",
    )


def _user(texts: dict[str, str], scopes: tuple[str, ...], url: str) -> Account:
    who = texts.get("account") or "user of gcloud"
    told_apart_by = texts.get("account") or fingerprint("google", texts["refresh_token"])
    return Account(
        "refresh_token",
        who,
        # Google never replaces a refresh token, so one without a name is told apart by it, as a key is.
        f"google {texts['client_id']} {told_apart_by}",
        url,
        scopes,
        texts["client_id"],
        Secret(texts["client_secret"]),
        refresh_token=Secret(texts["refresh_token"]),
        headers=_payer(texts),
        remedy=LOGIN,
    )


def _payer(texts: dict[str, str]) -> tuple[tuple[str, str], ...]:
    project = texts.get("quota_project_id", "")
    return (("x-goog-user-project", project),) if sendable(project) else ()


READERS = {
    "service_account": (("client_email", "private_key"), _service_account),
    "authorized_user": (("client_id", "client_secret", "refresh_token"), _user),
}
"""Type of a file -> the members that it must have, and what makes an account of it."""


def without_file(settings: Settings, provider: str) -> Account | None:
    """The account of the machine itself, where it is one of Google's."""
    row = CATALOG[provider]
    url, host = row.signs_in["metadata"], settings.text("GCE_METADATA_HOST")
    if host:
        try:
            url = base_url(f"http://{host}") + url[url.index("/", 8) :]
        except ValueError as refusal:
            settings.report.problem("GCE_METADATA_HOST", str(refusal))
            return None
    remedy = f"set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or run `{LOGIN}`"
    return Account("google_metadata", "this machine's account", "google metadata", url, row.scopes, remedy=remedy)


def vertex_address(settings: Settings, files: tuple[Path, ...]) -> str:
    """The base URL that VERTEX_PROJECT and VERTEX_LOCATION make; empty when there is no project."""
    named = next((name for name in ("VERTEX_PROJECT", "GOOGLE_CLOUD_PROJECT") if settings.is_set(name)), "")
    project = settings.text(named) if named else None
    for path in files if project is None else ():
        try:
            project = project or json.loads(path.read_bytes()).get("project_id")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue  # told of where it is read as an account
    if not isinstance(project, str) or not project:
        return ""
    location = settings.text("VERTEX_LOCATION") or "global"
    try:
        return vertex_url(project.strip(), location.lower())
    except ValueError as refusal:
        settings.report.problem(named or "VERTEX_LOCATION", str(refusal))
        return ""
