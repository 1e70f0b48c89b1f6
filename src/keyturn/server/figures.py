"""Joins the metrics pages of several workers into one, each sample with the number of its worker."""

from __future__ import annotations

from collections.abc import Mapping

UP = "keyturn_worker_up"
HELP_OF_UP = "1 for a worker whose figures are on this page, 0 for one that did not answer in time."


def joined(pages: Mapping[int, bytes], silent: tuple[int, ...] = ()) -> bytes:
    """*pages* by worker, in Prometheus' text format, as one page: each family's HELP and TYPE stand there once."""
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for number in sorted(pages):
        family = b""
        for line in pages[number].split(b"\n"):
            if line.startswith(b"# "):
                family = [*line.split(b" ", 3), b"", b""][2]
                head = heads.setdefault(family, [])
                if not any(line.split(b" ", 2)[1] == each.split(b" ", 2)[1] for each in head):
                    head.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, number))
    lines = [line for family, head in heads.items() for line in (*head, *samples.get(family, ()))]
    up = [(number, number in pages) for number in sorted({*pages, *silent})]
    lines += [f"# HELP {UP} {HELP_OF_UP}".encode(), f"# TYPE {UP} gauge".encode()]
    lines += [b'%s{worker="%d"} %d.0' % (UP.encode(), number, answered) for number, answered in up]
    return b"\n".join(lines) + b"\n"


def _labelled(sample: bytes, number: int) -> bytes:
    """*sample* with a label `worker`. A name holds neither a brace nor a blank."""
    name, brace, rest = sample.partition(b"{")
    if brace and b" " not in name:
        return b'%s{worker="%d"%s%s' % (name, number, b"" if rest.startswith(b"}") else b",", rest)
    name, _, value = sample.partition(b" ")
    return b'%s{worker="%d"} %s' % (name, number, value)
