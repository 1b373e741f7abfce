"""AMR voice messages, frame by frame."""

import pytest
from file_api.inspect.amr import amr_duration_ms

NARROW = b"#!AMR\n"
FRAME = b"\x3c" + bytes(31)  # type 7, 12.2 kbit/s
SILENCE = b"\x44" + bytes(5)  # type 8
NOTHING = b"\x7c"  # type 15


@pytest.mark.parametrize(
    ("data", "milliseconds"),
    [
        (NARROW + 50 * FRAME, 1000),
        (NARROW + FRAME + SILENCE + NOTHING, 60),
        (b"#!AMR-WB\n" + 3 * (b"\x14" + bytes(32)), 60),
        (NARROW + 2 * FRAME + FRAME[:10], 40),
        (NARROW + FRAME + b"\x64" + bytes(40), 20),
        (NARROW, 0),
        (b"#!AMR_MC1.0\n", None),
        (b"RIFF", None),
        (b"", None),
    ],
    ids=["a second", "kinds of frames", "wide band", "cut short", "reserved", "empty", "channels", "wave", "no bytes"],
)
def test_every_complete_frame_counts_20_ms(data: bytes, milliseconds: int | None) -> None:
    assert amr_duration_ms(data) == milliseconds
