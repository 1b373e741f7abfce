"""Writes docs/protocol.md from the registries: `python -m tlim_protocol.docs FILE [--check]`."""

import sys
from datetime import timedelta
from pathlib import Path

from tlim_protocol.body import MAX_ELEMENTS
from tlim_protocol.envelope import Envelope, write_envelope
from tlim_protocol.errors import ERRORS
from tlim_protocol.lenient import MAX_BITS, MAX_VALUES
from tlim_protocol.registry import REGISTRY, MsgType
from tlim_protocol.streams import CONSUMERS, PERMISSIONS, STREAMS
from tlim_protocol.subjects import Rpc

_LIMITS = (
    f"A body has at most {MAX_ELEMENTS:,} elements and {MAX_VALUES:,} values. Numbers in strict JSON are kept as they "
    f"were written: `100.10` stays `100.10`. In JSON5 a number is a double, or an integer of at most {MAX_BITS:,} bits."
)


def example(msg_type: MsgType) -> Envelope:
    """Return an envelope of that type as alice would send it, with the registry's example as its body."""
    return Envelope(
        msg_from="alice",
        msg_to=None if REGISTRY[msg_type].is_group else "bob",
        msg_id="fd6c568e-19ca-4e4e-9709-24dec0bb2b8d",
        msg_type=msg_type,
        msg_time="1599218283837",
        body=[dict(REGISTRY[msg_type].example)],
    )


def render() -> str:
    """Return the whole page: message types, error codes, subjects, streams, consumers and permissions."""
    return "\n".join(
        [
            "# Protocol tables",
            "",
            "Generated from `libs/tlim-protocol` by `make docs`; do not edit. The rules in prose are in",
            "[wire-protocol.md](wire-protocol.md).",
            *_message_types(),
            *_errors(),
            *_streams(),
            *_permissions(),
            "",
        ]
    )


def _message_types() -> list[str]:
    rows = [
        f"| `{kind}` {row.title} | {_keys(kind)} | {'XMPP' if row.sent_by_clients else 'NATS event'} | {row.summary} |"
        for kind, row in REGISTRY.items()
    ]
    examples = [
        line
        for kind, row in REGISTRY.items()
        if row.sent_by_clients
        for line in ("", f"`{kind}` {row.title}", "```json", write_envelope(example(kind)), "```")
    ]
    head = ["", "## Message types", "", "| msg_type | body element | sent over | effect |", "|---|---|---|---|"]
    return [*head, *rows, "", _LIMITS, *examples]


def _keys(kind: MsgType) -> str:
    fields = REGISTRY[kind].element or ()
    return ", ".join(f"`{field.name}`{'' if field.required else ' (groups)'}" for field in fields) or "—"


def _errors() -> list[str]:
    rows = [f"| `{code}` | {entry.meaning} | {entry.when} | `<body>{code}</body>` |" for code, entry in ERRORS.items()]
    return ["", "## Error codes", "", "| code | meaning | when | over XMPP |", "|---|---|---|---|", *rows]


def _streams() -> list[str]:
    streams = [
        f"| `{spec.name}` | {_codes(spec.subjects)} | {_age(spec.max_age)}"
        f" | {_size(spec.max_bytes)}, then it {spec.when_full} |"
        for spec in STREAMS
    ]
    consumers = [
        f"| `{spec.durable}` | `{spec.stream}` | {_codes(spec.filter_subjects)} | {_minutes(spec.keep)} |"
        for spec in CONSUMERS
    ]
    return [
        *("", "## Streams", "", "| stream | subjects | kept | at most |", "|---|---|---|---|", *streams),
        *(
            "",
            "## Consumers",
            "",
            "| durable | stream | reads | kept after the ack |",
            "|---|---|---|---|",
            *consumers,
        ),
        *("", "## Requests", "", *(f"- `{subject}`" for subject in Rpc)),
    ]


def _age(time: timedelta) -> str:
    return f"{time.days} days" if time.days else f"{time // timedelta(seconds=1)} s"


def _size(count: int) -> str:
    return f"{count // 1024**3} GiB" if count >= 1024**3 else f"{count // 1024**2} MiB"


def _minutes(time: timedelta) -> str:
    return f"{time // timedelta(minutes=1)} minutes" if time else "not at all"


def _permissions() -> list[str]:
    rows = [
        f"| `{user}` | {_codes(allowed.publish)} | {_codes(allowed.subscribe)} |"
        for user, allowed in PERMISSIONS.items()
    ]
    return ["", "## NATS users", "", "| user | may publish | may subscribe |", "|---|---|---|", *rows]


def _codes(names: tuple[str, ...]) -> str:
    return " ".join(f"`{name}`" for name in names)


def write_or_check(arguments: list[str], text: str) -> int:
    """Write a generated file, the first argument; with `--check` return 1 when the file has another text."""
    target = Path(arguments[0])
    if "--check" not in arguments:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return 0
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{target} is not what the registries say: run `make docs`\n")
    return 1


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` return 1 when the file differs from what the registries say."""
    return write_or_check(arguments, render())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
