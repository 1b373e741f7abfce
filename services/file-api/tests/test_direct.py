"""How an upload is cut into parts, and which of the parts that S3 has make the file."""

from datetime import UTC, datetime, timedelta

import pytest
from file_api.files import DirectUpload
from file_api.upload.direct import MAX_PARTS, PART_BYTES, SINGLE_BYTES, chosen, part_bytes_of
from file_api.upload.parts import Part
from tlim_protocol.errors import ErrorCode, TlimError

NOW = datetime.now(UTC)
MIB = 1024 * 1024


def upload(size: int, part_bytes: int | None = None) -> DirectUpload:
    return DirectUpload("u", "alice", size, "", None, None, part_bytes or part_bytes_of(size), "s3", NOW)


@pytest.mark.parametrize(
    ("size", "part_bytes", "count"),
    [
        (1, 1, 1),
        (SINGLE_BYTES, SINGLE_BYTES, 1),
        (SINGLE_BYTES + 1, PART_BYTES, 3),
        (2 * 1024 * MIB, PART_BYTES, 256),
        (MAX_PARTS * PART_BYTES, PART_BYTES, MAX_PARTS),
        (MAX_PARTS * PART_BYTES + 1, PART_BYTES + MIB, 889),
        (80_000 * MIB, 80 * MIB, MAX_PARTS),
    ],
)
def test_small_files_are_one_part_and_none_has_more_than_one_listing_shows(
    size: int, part_bytes: int, count: int
) -> None:
    cut = upload(size)
    assert (cut.part_bytes, cut.part_count) == (part_bytes, count)
    assert sum(cut.part_size(number) for number in range(1, count + 1)) == size
    assert cut.part_size(count) >= 1


def part(number: int, etag: str, *, age_s: int = 0, size: int = 10) -> Part:
    return Part(number, size, f'"{etag}"', NOW - timedelta(seconds=age_s))


class TestWhichPartsCount:
    def test_the_newest_of_each_number(self) -> None:
        found = [part(2, "c", size=5), part(1, "a", age_s=9), part(1, "b")]
        assert [one.etag for one in chosen(upload(15, 10), found, {})] == ['"b"', '"c"']

    def test_the_one_that_is_named(self) -> None:
        found = [part(1, "a", age_s=9), part(1, "b")]
        assert [one.etag for one in chosen(upload(10, 10), found, {1: "a"})] == ['"a"']
        assert [one.etag for one in chosen(upload(10, 10), found, {1: '"a"'})] == ['"a"']

    def test_the_same_bytes_twice_are_no_question(self) -> None:
        assert len(chosen(upload(10, 10), [part(1, "a"), part(1, "a")], {})) == 1

    @pytest.mark.parametrize(
        ("found", "etags", "why"),
        [
            ([part(1, "a")], {}, "part 2 is missing"),
            ([part(1, "a"), part(2, "b", size=4)], {}, "part 2 is missing"),
            ([part(1, "a"), part(2, "b", size=5)], {2: "other"}, "part 2 is missing"),
            ([part(1, "a"), part(1, "b"), part(2, "c", size=5)], {}, "part 1 came several times"),
        ],
        ids=["absent", "of another size", "none as named", "two at once"],
    )
    def test_what_is_missing_or_ambiguous_is_refused_by_number(
        self, found: list[Part], etags: dict[int, str], why: str
    ) -> None:
        with pytest.raises(TlimError, match=why) as caught:
            chosen(upload(15, 10), found, etags)
        assert (caught.value.code, caught.value.field) == (ErrorCode.FIELD_INVALID, "parts")

    def test_numbers_that_the_upload_does_not_have_are_left_out(self) -> None:
        assert [one.number for one in chosen(upload(10, 10), [part(1, "a"), part(2, "b")], {})] == [1]
