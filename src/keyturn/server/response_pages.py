"""Kept answers of the Responses API as `GET` and `DELETE` of `/v1/responses/{id}` give them out, to their caller."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from keyturn.core import Caller
from keyturn.dispatch import Gateway
from keyturn.errors import BadRequest
from keyturn.wire import told_items, told_response

MOST_LISTED, LISTED = 100, 20
"""Items of one page: at most, and when nobody says how many."""


class ResponsePages:
    """Reads what *gateway* keeps. All raise BadRequest (it keeps nothing), ResponseNotFound, ResponsesUnavailable."""

    def __init__(self, gateway: Gateway) -> None:
        self._responses = gateway.responses

    async def response(self, caller: Caller, id: str, query: bytes, *, delete: bool) -> bytes:
        """The response object; or, gone from now on, what the API says of it."""
        if delete:
            await self._responses.forget(caller.name, id)
            return msgspec.json.encode({"id": id, "object": "response", "deleted": True})
        if _asked(query, "stream", "false") == "true":
            raise BadRequest("a kept response cannot be streamed again; ask without `stream`", param="stream")
        row = await self._responses.find(caller.name, id)
        return told_response(row.response, row.previous)

    async def input_items(self, caller: Caller, id: str, query: bytes) -> bytes:
        """A page of the items that the request itself had sent."""
        order, limit = _asked(query, "order", "desc"), _asked(query, "limit", str(LISTED))
        if order not in ("asc", "desc"):
            raise BadRequest("`order` must be asc or desc", param="order")
        if not limit.isdecimal() or len(limit) > 9 or not 1 <= int(limit) <= MOST_LISTED:
            raise BadRequest(f"`limit` must be a number from 1 to {MOST_LISTED}", param="limit")
        row = await self._responses.find(caller.name, id)
        after = _asked(query, "after", "")
        return told_items(row.input, id, newest_first=order == "desc", after=after, most=int(limit))


def _asked(query: bytes, name: str, usual: str) -> str:
    return parse_qs(query.decode("latin-1")).get(name, [usual])[-1]
