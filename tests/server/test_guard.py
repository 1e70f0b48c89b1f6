"""Connections that are counted and refused, calls that are shed, memory that is short: on real sockets and on none."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from keyturn.dispatch import Strain
from keyturn.server.guard import LEAST_IDLE, RESERVE, TOLD_EVERY, Guard, network_of
from keyturn.server.listener import HEARING, LINGER
from keyturn.server.memory import Resident, give_back, memory_limit
from tests.support import virtual

from .fakes import ADMIN_KEY, CHAT, Client, FakeGateway, ask, hello, make_app
from .test_listener import MovedClock, Peer, post, run

LARGE = b"x" * (64 * 1024 + 1)


def batch(gateway: FakeGateway, level: int) -> None:
    gateway.strain.level, gateway.strain.on = level, True


def test_calls_are_shed_by_class_before_their_body_is_read() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        app = make_app(gateway)
        batch(gateway, 1)
        client = Client(app, headers={"x-keyturn-class": "batch"})
        await client.start()
        answer = client.answer
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "overloaded", "3")
        assert client.received == 0
        assert (await ask(app)).status == 200
        batch(gateway, 2)
        assert (await ask(app)).code == "overloaded"
        assert (await ask(app, "/v1/models", "GET", body=b"")).status == 200
        assert (await ask(app, "/healthz", "GET", key=None, body=b"")).status == 200
        assert gateway.strain.shed == {("batch", "lag"): 1, ("normal", "lag"): 1}
        assert [each.trail.code for each in gateway.ended] == ["overloaded", "overloaded"]

    virtual.run(main)


def test_a_refusal_is_told_in_the_dialect_of_who_asks() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        batch(gateway, 2)
        body = b'{"model": "groq/x", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}'
        answer = await ask(make_app(gateway), "/v1/messages", body=body)
        assert answer.json["type"] == "error"
        assert answer.headers["retry-after-ms"] == "3000"

    virtual.run(main)


def test_a_large_body_is_refused_when_memory_is_short_whether_its_length_is_stated_or_not() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        gateway.strain.memory_limit = 100
        gateway.strain.weighed(90)
        app = make_app(gateway)
        stated = Client(app, body=LARGE, headers={"content-length": str(len(LARGE))})
        await stated.start()
        assert (stated.answer.code, stated.answer.headers["connection"], stated.received) == ("overloaded", "close", 0)
        unstated = Client(app, body=[LARGE[:40_000]] * 3, headers={"transfer-encoding": "chunked"})
        await unstated.start()
        assert (unstated.answer.code, unstated.received) == ("overloaded", 2)
        assert (await ask(app, headers={"content-length": str(len(CHAT))})).status == 200
        gateway.strain.weighed(10)
        assert (await ask(app, body=LARGE, headers={"content-length": str(len(LARGE))})).status == 400

    virtual.run(main)


@pytest.mark.parametrize(
    ("ip", "place"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("2001:db8::1", "20010db800000000"),
        ("2001:db8::ffff:1", "20010db800000000"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_addresses_of_one_site_count_together(ip: str, place: str) -> None:
    assert network_of(ip) == place


def test_connections_are_counted_by_address_and_forgotten() -> None:
    strain = Strain()
    guard = Guard(virtual.VirtualClock(), strain, 3, 2)
    assert [guard.admit("192.0.2.1"), guard.admit("192.0.2.1"), guard.admit("192.0.2.1")] == ["", "", "per_ip"]
    assert [guard.admit("192.0.2.2"), guard.admit("192.0.2.3")] == ["", "total"]
    assert (strain.connections, strain.refused) == (3, {}), "who is not admitted may still be heard"
    for ip in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        guard.release(ip)
    assert (strain.connections, guard._by_ip) == (0, {})


def test_the_limit_of_memory_is_the_least_of_the_control_groups(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (groups / "system" / "keyturn").mkdir(parents=True)
    (groups / "memory" / "old").mkdir(parents=True)
    proc.mkdir()
    (proc / "cgroup").write_text("0::/system/keyturn\n")
    (groups / "system" / "keyturn" / "memory.max").write_text("max\n")
    (groups / "system" / "memory.max").write_text("1000000\n")
    assert memory_limit(proc, groups) == 1_000_000
    (groups / "system" / "keyturn" / "memory.max").write_text("500000\n")
    assert memory_limit(proc, groups) == 500_000
    (proc / "cgroup").write_text("0::/somewhere/of/the/host\n")
    (groups / "memory.max").write_text("700000\n")
    assert memory_limit(proc, groups) == 700_000
    (proc / "cgroup").write_text("5:cpu:/old\n9:hugetlb,memory:/old\n")
    (groups / "memory" / "old" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (groups / "memory" / "memory.limit_in_bytes").write_text("300000\n")
    assert memory_limit(proc, groups) == 300_000


def test_resident_memory_is_read_and_where_nobody_says_it_is_0(tmp_path: Path) -> None:
    statm = tmp_path / "statm"
    statm.write_text("5000 77 3 1 0 9 0\n")
    read = Resident(statm)
    assert read.read() % 77 == 0
    assert read.read() > 77
    read.close()
    read.close()
    assert read.read() == 0
    assert Resident(tmp_path / "nothing").read() == 0


def test_while_memory_is_short_what_is_free_is_given_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyturn.server import guard as guarding

    given_back: list[float] = []

    async def main() -> None:
        clock, strain = virtual.VirtualClock(), Strain()
        monkeypatch.setattr(guarding, "give_back", lambda: given_back.append(clock.mono()))
        guard = Guard(clock, strain, 10, limit=1)
        guard.start()
        began = clock.mono()
        await clock.sleep_until(began + 25.0)
        guard.stop()
        given_back[:] = [at - began for at in given_back]

    virtual.run(main)
    assert given_back == [pytest.approx(at, abs=0.2) for at in (1.0, 11.0, 21.0)]


def test_a_look_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    async def main() -> None:
        clock, strain = virtual.VirtualClock(), Strain()
        guard = Guard(clock, strain, 1)

        def measured(now: float, stretch: float, late: float) -> None:
            seen.append(now)
            if len(seen) == 1:
                raise MemoryError

        monkeypatch.setattr(strain, "measured", measured)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        guard.start()
        await clock.sleep_until(clock.mono() + 1.0)
        guard.stop()

    virtual.run(main)
    assert len(seen) >= 9


def test_giving_back_works_here() -> None:
    give_back()


# --- on real sockets ------------------------------------------------------------------------------------------------


async def sends(peer: Peer, times: int) -> None:
    for _ in range(times):
        await peer.send(b"x" * 1000)


async def until_gone(gateway: FakeGateway, left: int = 0) -> None:
    while gateway.strain.connections > left:  # noqa: ASYNC110 - nothing tells of it but the count itself
        await asyncio.sleep(0.005)


@pytest.mark.realtime
@pytest.mark.parametrize("bound", [{"max_connections": 2}, {"max_connections_per_ip": 2}])
def test_one_connection_more_is_told_and_closed(bound: dict[str, Any]) -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        first, second = await connect(), await connect()
        for peer in (first, second):
            await peer.send(post(CHAT))
            assert (await peer.answer())[0] == 200
        third = await connect()
        await third.send(post(CHAT))
        status, body = await third.answer()
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        assert next(iter(bound)) in json.loads(body)["error"]["message"]
        assert await third.is_closed()
        assert len(gateway.calls) == 2
        first.close()
        await until_gone(gateway, 1)
        fourth = await connect()
        await fourth.send(post(CHAT))
        assert (await fourth.answer())[0] == 200
        assert sum(gateway.strain.refused.values()) == 1

    run(test, **bound)


@pytest.mark.realtime
def test_a_refused_client_that_does_not_leave_is_cut_off() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        await connect()
        peer = await connect()
        await peer.send(post(CHAT))
        assert (await peer.answer())[0] == 503
        await sends(peer, 3)
        clock.forward(LINGER + 0.1)
        with pytest.raises(ConnectionError):
            await sends(peer, 3)
        assert gateway.strain.connections == 1

    run(test, max_connections=1)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


WATCHING = (
    get("/healthz"),
    get("/readyz"),
    get("/metrics"),
    get("/admin/status", f"x-keyturn-admin: {ADMIN_KEY}"),
)


@pytest.mark.realtime
def test_who_looks_after_the_gateway_is_answered_beyond_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def held(call: Any) -> Any:
        await release.wait()
        return await hello(call)

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        busy = await connect()
        await busy.send(post(CHAT))
        silent = [await connect() for _ in range(2 * RESERVE)]  # a flood that says nothing
        for asked in WATCHING:
            peer = await connect()
            await peer.send(asked[:9])
            await peer.send(asked[9:])
            assert (await peer.answer())[0] == 200, asked
            assert await peer.is_closed()
        assert gateway.strain.refused == {"total": RESERVE + 1}, "the oldest made room for those that came after"
        assert (await silent[0].answer())[0] == 503
        for asked in (get("/v1/models"), get("/admin/status", "x-forwarded-for: 192.0.2.1"), post(CHAT) + post(CHAT)):
            peer = await connect()
            await peer.send(asked)
            status, told = await peer.answer()
            assert (status, json.loads(told)["error"]["code"]) == (503, "overloaded"), asked
            assert await peer.is_closed()
        release.set()
        assert (await busy.answer())[0] == 200
        assert (len(gateway.calls), gateway.strain.connections) == (1, 1)

    run(test, held, max_connections=1)
    assert len(caplog.messages) == 1, "told once a minute"
    assert caplog.messages[0].startswith("connections are refused, 1 so far: ")


@pytest.mark.realtime
def test_the_connection_that_is_idle_for_longest_makes_room() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        async def is_served(peer: Peer) -> bool:
            await peer.send(post(CHAT))
            return (await peer.answer())[0] == 200

        unused = await connect()
        clock.forward(LEAST_IDLE / 4)
        first, second = await connect(), await connect()
        assert await is_served(first)
        assert await is_served(second)
        clock.forward(LEAST_IDLE)
        assert await is_served(first)
        assert await is_served(await connect())
        assert await unused.is_closed(), "it never asked anything"
        assert await is_served(await connect())
        assert await second.is_closed()
        await (arriving := await connect()).send(post(CHAT)[:-1])
        assert (await arriving.answer())[0] == 503, "the others were in use a moment ago"
        assert await is_served(first)
        assert (gateway.strain.connections, gateway.strain.refused) == (3, {"total": 1})

    run(test, max_connections=3)


@pytest.mark.realtime
def test_who_is_heard_when_there_is_room_again_is_admitted_and_who_says_nothing_is_told() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        first = await connect()
        await first.send(post(CHAT)[:-1])
        second, third = await connect(), await connect()
        await second.send(post(CHAT)[:10])
        first.close()
        await until_gone(gateway)
        await second.send(post(CHAT)[10:-1])
        clock.forward(HEARING + 0.1)
        assert (await third.answer())[0] == 503
        await second.send(post(CHAT)[-1:] + post(CHAT))
        assert [(await second.answer())[0] for _ in range(2)] == [200, 200]
        assert (gateway.strain.connections, gateway.strain.refused) == (1, {"total": 1})

    run(test, max_connections=1)


class Other:
    """A connection of the reserve."""

    refused = False

    def make_room(self) -> bool:
        return False

    def refuse(self) -> None:
        self.refused = True


def test_the_reserve_is_bounded_and_who_is_answered_keeps_its_place(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        clock = virtual.VirtualClock()
        guard = Guard(clock, Strain(), 1)
        others = [Other() for _ in range(RESERVE + 2)]
        assert all(guard.hear(each) for each in others[:RESERVE])
        for each in others[:RESERVE]:
            guard.answer(each)
        assert not guard.hear(others[RESERVE])
        guard.leave(others[3])
        assert guard.hear(others[RESERVE])
        assert guard.hear(others[RESERVE + 1])
        assert [each.refused for each in others] == [False] * RESERVE + [True, False]
        for seconds in (0.0, TOLD_EVERY - 1.0, 1.0):
            await clock.sleep_until(clock.mono() + seconds)
            guard.refused("total")

    virtual.run(main)
    assert [each.split(":")[0] for each in caplog.messages] == [
        "connections are refused, 1 so far",
        "connections are refused, 3 so far",
    ]


@pytest.mark.realtime
def test_a_body_that_memory_has_no_room_for_is_not_read() -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        gateway.strain.memory_limit = 100
        gateway.strain.weighed(90)
        peer = await connect()
        body = b"x" * 1_000_000
        await peer.send(post(body)[:200_000])
        status, told = await peer.answer()
        assert (status, json.loads(told)["error"]["code"]) == (503, "overloaded")
        assert await peer.is_closed()
        assert not gateway.calls
        peer.close()
        await until_gone(gateway)

    run(test)


@pytest.mark.realtime
def test_a_client_that_is_gone_before_it_is_refused_is_no_mistake_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        first: Peer = await connect()
        while not gateway.strain.connections:  # noqa: ASYNC110 - nothing tells of it but the count itself
            await asyncio.sleep(0)
        gone = socket.create_connection(first._writer.get_extra_info("peername"))
        while clock.pending() < 4:  # noqa: ASYNC110 - Date, guard, and what each connection has to say in time
            await asyncio.sleep(0)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
        gone.close()
        clock.forward(HEARING + 0.1)  # before the loop sees that the client is gone
        assert gateway.strain.refused == {"total": 1}
        await asyncio.sleep(0.01)

    run(test, max_connections=1)
    assert [each.levelname for each in caplog.records] == ["WARNING"]


@pytest.mark.realtime
def test_what_was_sent_ahead_of_a_last_answer_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        batch(gateway, 2)
        peer = await connect()
        await peer.send(post(LARGE) + post(LARGE)[:300])  # the first is refused for good, while the second arrives
        status, told = await peer.answer()
        assert (status, json.loads(told)["error"]["code"]) == (503, "overloaded")
        assert await peer.is_closed()
        peer.close()
        await until_gone(gateway)
        assert sum(gateway.strain.shed.values()) == 1

    run(test)
    assert not caplog.records


@pytest.mark.realtime
def test_a_thousand_connections_that_come_and_go_in_every_way_leave_no_count() -> None:
    async def slow(call: Any) -> Any:
        await asyncio.sleep(0.002)
        return await hello(call)

    async def test(connect: Any, gateway: FakeGateway, clock: MovedClock) -> None:
        ways = (b"", b"GET", post(CHAT)[:80], post(CHAT), b"\x00\xff no http\r\n\r\n")

        async def one(number: int) -> None:
            peer: Peer = await connect()
            peer._writer.write(ways[number % len(ways)])
            if number % 3:
                await asyncio.sleep(0.001)
            if number % 7 == 0:
                peer._writer.write_eof()
                await asyncio.sleep(0.001)
            peer.close()

        for start in range(0, 1000, 50):
            await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        await until_gone(gateway)
        assert gateway.strain.connections == 0
        assert gateway.strain.refused["per_ip"] > 0

    run(test, slow, max_connections_per_ip=40)


@pytest.mark.realtime
def test_before_the_end_idle_connections_are_closed_and_others_with_their_next_answer() -> None:
    release = asyncio.Event()

    async def held(call: Any) -> Any:
        await release.wait()
        return await hello(call)

    async def main() -> None:
        from typing import cast

        from keyturn.dispatch import Gateway
        from keyturn.server import Server, bind

        gateway = FakeGateway(held, MovedClock())
        sock = bind("127.0.0.1", 0)
        server = Server(make_app(gateway), cast(Gateway, gateway), sock)
        await server.start()

        async def connect() -> Peer:
            return Peer(*await asyncio.open_connection(*sock.getsockname()[:2]))

        idle, busy, arriving = await connect(), await connect(), await connect()
        await busy.send(post(CHAT))
        await arriving.send(post(CHAT)[:60])
        server.last_call()
        assert await idle.is_closed()
        release.set()
        assert (await busy.answer())[0] == 200
        assert await busy.is_closed()
        await arriving.send(post(CHAT)[60:])
        assert (await arriving.answer())[0] == 200
        assert await arriving.is_closed()
        late = await connect()
        await late.send(post(CHAT))
        assert (await late.answer())[0] == 200
        assert await late.is_closed()
        for peer in (idle, busy, arriving, late):
            peer.close()
        await server.stop(0.0)
        assert gateway.strain.connections == 0

    asyncio.run(main())


def test_the_limit_of_open_files_bounds_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    from keyturn.server import guard

    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, new: limits.append(new))
    assert guard.room_for_connections(10_000) == (4096 - guard.FILES_APART) // 2
    assert limits[-1] == (4096, 4096)
    assert guard.room_for_connections(1000) == 1000
