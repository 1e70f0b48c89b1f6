"""Connections that the peer had closed while they were idle."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from keyturn.config import load
from keyturn.core import Caller
from keyturn.dispatch import build, new_id, read_call

ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
    }
).encode()


def test_a_stale_connection_is_sent_again_at_once_and_marks_nothing() -> None:
    """The upstream answers once per connection and then says nothing more on it."""

    async def main() -> None:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER))
                await writer.drain()
                await reader.read(1)  # the next request arrives, and the connection ends without an answer
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = load({"MINE_API_BASE": f"http://127.0.0.1:{port}/v1"}, cwd=Path("/nonexistent"))
        gateway = build(config)
        body = json.dumps({"model": "mine/m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
        replies = []
        for _ in range(2):
            call_id = new_id(gateway.clock.wall())
            replies.append(await gateway.handle(read_call("chat", body, {}), Caller(), call_id))
        assert [reply.status for reply in replies] == [200, 200]
        lost, again = gateway.recent[call_id].attempts
        assert (lost.meaning, again.meaning, again.resend) == ("server_error", "ok", True)
        assert "idle" in lost.detail
        assert dict(replies[1].headers)[b"x-keyturn-attempts"] == b"2"
        assert connections == 2
        assert not gateway.marks
        await gateway.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
