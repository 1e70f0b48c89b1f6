"""Which base URLs are accepted: https anywhere, plain http on loopback and private addresses only."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

PlainHttp = Literal["loopback", "private", "anywhere"]
"""Where plain http may lead: to this machine, to private networks too, or wherever it likes."""
PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
    )
)
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?\.?\Z")
NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]%:]+)(:[0-9]*)?\Z")
"""An address of version 6 stands in brackets, and nothing but a port after them: parsers differ over what may."""
SINGLE_LABEL = re.compile(r"(?!0[xX])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_-]+\Z")
"""A name without dots, as containers have them; a number in disguise (`0x7f000001`, `2130706433`) is none."""


def base_url(text: str, plain_http: PlainHttp = "private") -> str:
    """*text* as a base URL without a slash at its end. *plain_http*: where it may begin with http://.

    Raises ValueError saying why not and what to write instead; it never quotes the URL, which may hold a secret.
    """
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("holds a space or another character that a URL cannot hold")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError("is not a URL; write https://host/v1") from error
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise ValueError("must start with https:// (or http:// for this machine and private networks)")
    if "@" in parts.netloc:
        raise ValueError(
            "holds a user name or password before the host; take them out, a key goes into the _API_KEY variable"
        )
    if "?" in text or "#" in text:
        raise ValueError("holds a query or a fragment; end it with the path, a key goes into the _API_KEY variable")
    if port == 0 or not NETLOC.match(parts.netloc) or not (_address(host) or HOST.match(host)):
        raise ValueError("has no valid host and port; write https://host/v1")
    if parts.scheme == "http" and plain_http == "private" and not is_private(host):
        raise ValueError("must start with https://: plain http is for this machine and private networks only")
    if parts.scheme == "http" and plain_http == "loopback" and not is_loopback(host):
        said = "plain http is for this machine only, unless G4F_ALLOW_INSECURE_HTTP=true allows it everywhere"
        raise ValueError(f"must start with https://: {said}")
    path = parts.path.rstrip("/")
    if path.endswith("/chat/completions"):
        raise ValueError("ends in /chat/completions; write the base URL, without that")
    return f"{parts.scheme}://{parts.netloc}{path}"


def completed(url: str, base_path: str) -> str:
    """*url* with the rest of *base_path*, when it ends with the host or with the first parts of that path."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    given, whole = path.split("/") if path else [], base_path.strip("/").split("/")
    return f"{scheme}://{host}{base_path}" if base_path and given == whole[: len(given)] else url


def is_private(host: str) -> bool:
    """Whether *host* is this machine or a private network, as far as its name tells."""
    address = _address(host)
    if address is not None:
        return any(address in network for network in PRIVATE_NETWORKS if network.version == address.version)
    name = host.lower().rstrip(".")
    return bool(SINGLE_LABEL.match(name)) or name.endswith(PRIVATE_SUFFIXES)


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
