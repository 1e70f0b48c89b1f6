"""Hosts, origins, caller keys and the admin key."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.core import Secret
from keyturn.errors import InvalidCallerKey, RouteNotAllowed, WrongHost
from keyturn.server import Access

KEY = b"kt-the-callers-key"
ADMIN = b"the-admin-key"
LOCAL = ("127.0.0.1", 50000)
REMOTE = ("203.0.113.7", 50000)


def access(**options: Any) -> Access:
    defaults: dict[str, Any] = {
        "bound_host": "192.0.2.10",
        "allowed_hosts": ("gw.example", "api.example:8443"),
        "caller_key": Secret(KEY.decode()),
        "admin_key": Secret(ADMIN.decode()),
    }
    return Access(**{**defaults, **options})


@pytest.mark.parametrize(
    "host",
    [
        b"localhost", b"LOCALHOST:8000", b"127.0.0.1", b"127.0.0.1:1", b"127.8.9.10:8000", b"[::1]", b"[::1]:8000",
        b"192.0.2.10", b"192.0.2.10:8000", b"gw.example", b"GW.example:443", b"api.example:8443",
    ],
)  # fmt: skip
def test_hosts_that_are_answered_for(host: bytes) -> None:
    gate = access()
    gate.check_host({b"host": host})
    gate.check_host({b"host": host})  # again: this time it is remembered


@pytest.mark.parametrize(
    "host",
    [
        b"", b"evil.example", b"localhost.evil.example", b"evil.example:8000", b"127.0.0.1.evil.example",
        b"api.example", b"api.example:8444", b"localhost:", b"localhost:80:80", b"localhost/?", b"localhost#",
        b"a@localhost", b"localhost@evil.example", b" localhost", b"localhost:99999999", b"[::1", b"::1",
        b"[fe80::1]", b"0.0.0.0",
        b"2130706433", b"127.1", b"0x7f.1", b"localhost\x00", b"\xff", b"local\xc3\xb6host", b"192.0.2.11",
    ],
)  # fmt: skip
def test_every_other_host_is_refused(host: bytes) -> None:
    with pytest.raises(WrongHost):
        access().check_host({b"host": host})


def test_a_missing_host_is_refused() -> None:
    with pytest.raises(WrongHost):
        access().check_host({})


def test_an_ipv6_bind_address_is_answered_for() -> None:
    access(bound_host="2001:db8::5").check_host({b"host": b"[2001:DB8::5]:8000"})


def test_what_is_remembered_of_hosts_is_bounded() -> None:
    gate = access()
    for port in range(1000):
        gate.check_host({b"host": b"localhost:%d" % port})
    assert len(gate._good_hosts) <= 64


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"origin": b"http://127.0.0.1:8000"},
        {b"origin": b"https://gw.example"},
        {b"sec-fetch-site": b"same-origin"},
        {b"sec-fetch-site": b"none"},
    ],
)
def test_programs_and_pages_of_our_own_are_let_in(headers: dict[bytes, bytes]) -> None:
    access().check_origin({b"host": b"127.0.0.1:8000", **headers})


@pytest.mark.parametrize(
    "headers",
    [
        {b"origin": b"https://evil.example"},
        {b"origin": b"null"},
        {b"origin": b""},
        {b"origin": b"http://127.0.0.1:3000"},
        {b"origin": b"app://obsidian.md"},
        {b"origin": b"http://127.0.0.1:8000.evil.example"},
        {b"origin": b"http://127.0.0.1:8000/"},
        {b"sec-fetch-site": b"cross-site"},
    ],
)
def test_pages_of_other_origins_are_refused(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(RouteNotAllowed):
        access().check_origin({b"host": b"127.0.0.1:8000", **headers})


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer " + KEY},
        {b"authorization": b"bearer  " + KEY + b" "},
        {b"x-api-key": KEY},
        {b"x-goog-api-key": KEY},
        {b"authorization": b"Bearer something-else", b"x-api-key": KEY},
    ],
)
def test_the_caller_key_is_taken_from_each_place(headers: dict[bytes, bytes]) -> None:
    assert access().identify(REMOTE, headers).name == "default"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": KEY},
        {b"authorization": b"Basic " + KEY},
        {b"authorization": b"Bearer "},
        {b"authorization": b"Bearer " + KEY[:-1]},
        {b"authorization": b"Bearer " + KEY + b"x"},
        {b"authorization": b"Bearer " + KEY.upper()},
        {b"x-api-key": ADMIN},
        {b"x-keyturn-admin": ADMIN},
        {b"authorization": b"Bearer \xff\xfe"},
    ],
)
def test_without_the_caller_key_nobody_passes(headers: dict[bytes, bytes]) -> None:
    for peer in (LOCAL, REMOTE, None):
        with pytest.raises(InvalidCallerKey) as caught:
            access().identify(peer, headers)
        assert KEY.decode() not in caught.value.message


def test_without_a_key_to_compare_with_nobody_passes() -> None:
    with pytest.raises(InvalidCallerKey):
        access(caller_key=None).identify(LOCAL, {b"x-api-key": b""})
    with pytest.raises(InvalidCallerKey):
        access(admin_key=None).admit("admin", LOCAL, {b"x-keyturn-admin": b""})


def test_trust_local_lets_local_peers_in_without_a_key_or_with_a_made_up_one() -> None:
    gate = access(trust_local=True)
    for peer in (LOCAL, ("::1", 1), ("::ffff:127.0.0.1", 1)):
        gate.identify(peer, {})
        gate.identify(peer, {b"authorization": b"Bearer unused"})


@pytest.mark.parametrize("peer", [REMOTE, ("::ffff:203.0.113.7", 1), ("10.0.0.1", 1), None])
def test_trust_local_lets_nobody_else_in(peer: tuple[str, int] | None) -> None:
    with pytest.raises(InvalidCallerKey):
        access(trust_local=True).identify(peer, {})


@pytest.mark.parametrize("header", [b"x-forwarded-for", b"forwarded", b"x-real-ip"])
def test_what_a_local_proxy_passes_on_is_not_local(header: bytes) -> None:
    with pytest.raises(InvalidCallerKey):
        access(trust_local=True).identify(LOCAL, {header: b"203.0.113.7"})
    with pytest.raises(RouteNotAllowed):
        access().admit("admin", LOCAL, {header: b"203.0.113.7", b"x-keyturn-admin": ADMIN})


def test_metrics_are_for_this_machine_or_the_caller_key() -> None:
    gate = access()
    gate.admit("local_or_caller", LOCAL, {})
    gate.admit("local_or_caller", REMOTE, {b"x-api-key": KEY})
    with pytest.raises(InvalidCallerKey):
        gate.admit("local_or_caller", REMOTE, {})


def test_admin_needs_a_local_peer_and_the_admin_key() -> None:
    gate = access(trust_local=True)
    gate.admit("admin", LOCAL, {b"x-keyturn-admin": ADMIN})
    with pytest.raises(RouteNotAllowed):
        gate.admit("admin", REMOTE, {b"x-keyturn-admin": ADMIN})
    for headers in ({}, {b"x-keyturn-admin": KEY}, {b"authorization": b"Bearer " + ADMIN}, {b"x-api-key": KEY}):
        with pytest.raises(InvalidCallerKey):
            gate.admit("admin", LOCAL, headers)
