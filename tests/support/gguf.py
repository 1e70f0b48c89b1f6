"""Writes a tiny llama with random weights as a GGUF file (version 3), for model servers that want a real model.

Its words are the printable ASCII characters, and the bytes of anything else. With temperature 0 it always says the
same and never ends by itself: only characters have a chance, the end of the text has none.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

ALIGNMENT = 32
UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9
"""Types of metadata values, as the GGUF specification numbers them."""
FORMATS = {UINT32: "I", INT32: "i", FLOAT32: "f"}
F32_TENSOR = 0
UNKNOWN, CONTROL, NORMAL, BYTE = 2, 3, 1, 6
"""Kinds of tokens."""

WIDTH, HIDDEN, HEADS, LAYERS = 32, 64, 2, 1
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CHARACTERS = ["▁", *map(chr, range(33, 127))]
"""A space is written ▁ in this kind of vocabulary."""
TOKENS = [*SPECIAL, *BYTES, *CHARACTERS]
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"

Tensor = tuple[str, Sequence[int], "array[float]"]


def write(path: Path, *, context: int, seed: int = 1) -> None:
    """A model with room for *context* tokens; the same *seed* makes the same model."""
    metadata = list(_metadata(context))
    tensors = list(_tensors(random.Random(seed)))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata)
    data = b""
    for name, shape, values in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", F32_TENSOR, len(data))
        data += _padded(struct.pack(f"<{len(values)}f", *values))
    path.write_bytes(_padded(head) + data)


def _metadata(context: int) -> Iterator[bytes]:
    yield _value("general.architecture", STRING, "llama")
    yield _value("general.name", STRING, "tiny")
    yield _value("llama.context_length", UINT32, context)
    yield _value("llama.embedding_length", UINT32, WIDTH)
    yield _value("llama.block_count", UINT32, LAYERS)
    yield _value("llama.feed_forward_length", UINT32, HIDDEN)
    yield _value("llama.attention.head_count", UINT32, HEADS)
    yield _value("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5)
    yield _value("tokenizer.ggml.model", STRING, "llama")
    yield _list("tokenizer.ggml.tokens", STRING, TOKENS)
    yield _list("tokenizer.ggml.scores", FLOAT32, [0.0] * len(TOKENS))
    kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * len(BYTES) + [NORMAL] * len(CHARACTERS)
    yield _list("tokenizer.ggml.token_type", INT32, kinds)
    for number, name in enumerate(("unknown", "bos", "eos")):
        yield _value(f"tokenizer.ggml.{name}_token_id", UINT32, number)
    yield _value("tokenizer.chat_template", STRING, CHAT_TEMPLATE)


def _tensors(source: random.Random) -> Iterator[Tensor]:
    """Name, shape (the fastest dimension first) and values of each tensor."""

    def noise(count: int, scale: float) -> array[float]:
        return array("f", (source.gauss(0.0, scale) for _ in range(count)))

    def ones(count: int) -> array[float]:
        return array("f", [1.0]) * count

    speakable = len(CHARACTERS)
    silent = array("f", [0.0]) * (WIDTH * (len(TOKENS) - speakable))
    yield "token_embd.weight", (WIDTH, len(TOKENS)), noise(WIDTH * len(TOKENS), 1.0)
    yield "output_norm.weight", (WIDTH,), ones(WIDTH)
    yield "output.weight", (WIDTH, len(TOKENS)), silent + noise(WIDTH * speakable, 0.3)
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, WIDTH),
            ("attn_v", WIDTH, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", WIDTH, HIDDEN),
            ("ffn_up", WIDTH, HIDDEN),
            ("ffn_down", HIDDEN, WIDTH),
        ):
            yield f"blk.{layer}.{name}.weight", (rows, columns), noise(rows * columns, 0.3)
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (WIDTH,), ones(WIDTH)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _plain(kind: int, value: str | float) -> bytes:
    return _text(value) if isinstance(value, str) else struct.pack("<" + FORMATS[kind], value)


def _value(name: str, kind: int, value: str | float) -> bytes:
    return _text(name) + struct.pack("<I", kind) + _plain(kind, value)


def _list(name: str, kind: int, values: Sequence[str] | Sequence[float]) -> bytes:
    head = _text(name) + struct.pack("<IIQ", ARRAY, kind, len(values))
    return head + b"".join(_plain(kind, value) for value in values)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
