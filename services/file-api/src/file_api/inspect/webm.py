"""The duration of WebM recordings made by browsers. They are written while recording, so the header has no duration.

Each block has its time (RFC 9559, sections 5.1.3 and 10), so the newest block says how long the recording is.
"""

_TIMESTAMP_SCALE, _TIMESTAMP = 0x2AD7B1, 0xE7
_BLOCKS = frozenset({0xA3, 0xA1})  # SimpleBlock, and Block in a BlockGroup
_ENTERED = frozenset({0x18538067, 0x1549A966, 0x1F43B675, 0xA0})  # Segment, Info, Cluster, BlockGroup
_DEFAULT_SCALE = 1_000_000  # nanoseconds of one tick
_NANOSECONDS_OF_A_MILLISECOND = 1_000_000
_READ_BYTES = 10  # of a block its track and its time, of up to 8 and 2 bytes; other numbers are shorter


def webm_duration_ms(data: bytes) -> int | None:
    """Return the milliseconds from zero to the end of the newest block; None for a file without two blocks."""
    scale, cluster, times, place = _DEFAULT_SCALE, 0, [0, 0], 0  # the two newest times of blocks
    while place < len(data):
        element, place = _number(data, place, keep_marker=True)
        size, place = _number(data, place)
        if element in _ENTERED:  # read on inside it; its size does not matter: a live recording does not know it
            continue
        content = data[place : place + min(size, _READ_BYTES)]
        if element == _TIMESTAMP_SCALE:
            scale = int.from_bytes(content)
        elif element == _TIMESTAMP:
            cluster = int.from_bytes(content)
        elif element in _BLOCKS and content:
            _, start = _number(content, 0)  # of the track
            time = cluster + int.from_bytes(content[start : start + 2], signed=True)
            if time > times[1]:
                times = [times[1], time]
        place += size
    last, before = times[1], times[0]
    # the newest block is taken to last as long as its neighbour
    return round((2 * last - before) * scale / _NANOSECONDS_OF_A_MILLISECOND) if last else None


def _number(data: bytes, place: int, *, keep_marker: bool = False) -> tuple[int, int]:
    """Read a number of variable length (RFC 8794 section 4), ids with their length marker, and the place behind it."""
    first = data[place] if place < len(data) else 0
    length = 9 - first.bit_length()  # 9 for a zero byte, which begins no number: step over it
    raw = int.from_bytes(data[place : place + length])
    marker = 0 if keep_marker else 1 << 7 * length
    return raw & ~marker if length <= 8 else 0, place + length
