"""Compressed answers: decoded within bounds, whole or not at all."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from keyturn.errors import TransportError
from keyturn.transport.decoding import MAX_MEMBERS, Inflater

from .peers import Peer, always, fault_of, ignore, once, opened, plain, request, run

LIMIT = 1 << 20
TEXT = b"".join(b'{"id": %d, "text": "some words"}\n' % number for number in range(5_000))


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    " GZip ": gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:]) + b"\0" * 20,
    "deflate": zlib.compress(TEXT),
    "Deflate": bare_deflate(TEXT),
}


def inflated(encoding: str, data: bytes, step: int) -> bytes:
    inflater = Inflater(encoding)
    text = b"".join(inflater.feed(data[at : at + step]) for at in range(0, len(data), step))
    inflater.end()
    return text


@pytest.mark.parametrize("step", [1, 7, 20_000, 1 << 20])
@pytest.mark.parametrize("encoding", PACKED)
def test_the_text_is_the_same_however_it_is_cut(encoding: str, step: int) -> None:
    assert inflated(encoding, PACKED[encoding], step) == TEXT


@pytest.mark.parametrize("encoding", PACKED)
def test_a_cut_is_told(encoding: str) -> None:
    with pytest.raises(TransportError) as caught:
        inflated(encoding, PACKED[encoding][:-30], 1000)
    assert caught.value.kind == "closed"


def test_a_body_without_a_byte_is_whole() -> None:
    assert inflated("gzip", b"", 1) == b""


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "", "x" * 1000])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(TransportError) as caught:
        Inflater(encoding)
    assert caught.value.kind == "protocol"
    assert len(caught.value.message) < 120


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", b"<html>"),
        ("gzip", gzip.compress(TEXT) + b"garbage"),
        ("deflate", b"\x78<html>"),
        ("deflate", zlib.compress(TEXT) + b"garbage"),
        ("gzip", gzip.compress(b"") * (MAX_MEMBERS + 1)),
    ],
)
def test_damage_is_a_protocol_fault(encoding: str, data: bytes) -> None:
    with pytest.raises(TransportError) as caught:
        inflated(encoding, data, 100)
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_stops_early_37(encoding: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    assert len(bomb) < 1 << 17
    inflater = Inflater(encoding)
    tracemalloc.start()
    with pytest.raises(TransportError) as caught:
        inflater.feed(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.kind == "too_large"
    assert peak < 64 << 20


def test_honest_text_above_the_ratio_passes_while_it_is_short() -> None:
    text = b"a" * 900_000
    assert inflated("gzip", gzip.compress(text), 1 << 20) == text


def test_the_bound_counts_the_whole_answer_37(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.transport.decoding.MAX_DECODED", len(TEXT) - 1)
    with pytest.raises(TransportError) as caught:
        inflated("gzip", gzip.compress(TEXT), 10)
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("encoding", PACKED)
def test_a_compressed_answer_is_read_as_text(loop: str, encoding: str) -> None:
    async def main() -> None:
        raw = plain(PACKED[encoding], b"Content-Encoding: " + encoding.encode())
        async with Peer(always(raw)) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            assert answer.headers == {"content-type": "application/json"}
            assert await answer.read(LIMIT) == TEXT
            answer = await http.send(request(peer.url), ignore)
            assert b"".join([chunk async for chunk in answer.chunks()]) == TEXT
            answer = await http.send(request(peer.url), ignore)
            assert (await fault_of(answer.read(len(TEXT) - 1))).kind == "too_large"
            assert peer.accepted == 1

    run(loop, main)


def test_identity_is_no_compression(loop: str) -> None:
    async def main() -> None:
        async with Peer(once(plain(TEXT, b"Content-Encoding: Identity"))) as peer, opened() as http:
            assert await (await http.send(request(peer.url), ignore)).read(LIMIT) == TEXT

    run(loop, main)


@pytest.mark.parametrize(("checksum", "kind"), [(b"", "closed"), (b"no check", "protocol")])
def test_a_damaged_compressed_answer(loop: str, checksum: bytes, kind: str) -> None:
    async def main() -> None:
        raw = plain(PACKED["gzip"][:-8] + checksum, b"Content-Encoding: gzip")
        async with Peer(once(raw)) as peer, opened() as http:
            answer = await http.send(request(peer.url), ignore)
            assert (await fault_of(answer.read(LIMIT))).kind == kind
            assert http.acquired == 0

    run(loop, main)
