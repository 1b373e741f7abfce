"""The rules of files: who may send one on."""

from typing import Any

import pytest
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType


@pytest.fixture(name="picture")
def picture_fixture(accepted: Any) -> Any:
    def picture(msg_id: str, *file_ids: str, **changes: Any) -> Any:
        return accepted(msg_id, MsgType.IMAGE, body=[{"file_id": file_id} for file_id in file_ids], **changes)

    return picture


async def test_who_uploaded_a_file_sends_it(bench: Any, picture: Any) -> None:
    assert await bench.outcome(picture("m1", "f1", "f2")) == [["bob"]]


@pytest.mark.parametrize("file_ids", [["unknown"], ["f1", "unknown"]])
async def test_a_file_that_does_not_exist_is_not_sent(bench: Any, picture: Any, file_ids: list[str]) -> None:
    assert await bench.outcome(picture("m1", *file_ids)) == [ErrorCode.FILE_UNKNOWN]
    assert "unknown" in bench.rejected[0].detail
    assert (bench.archive.rows, bench.archive.made) == ([], set())


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_who_got_a_file_sends_it_on_and_nobody_else(bench: Any, picture: Any, is_one_batch: bool) -> None:
    bench.session_api.users = {"alice", "bob", "carol"}
    items = [
        picture("m1", "f1", sender="bob"),
        picture("m2", "f1"),
        picture("m3", "f1", sender="bob", msg_to="carol"),
        picture("m4", "f1", sender="dave", msg_to="carol"),
    ]
    outcomes = await bench.outcome(*items) if is_one_batch else [(await bench.outcome(one))[0] for one in items]
    assert outcomes == [ErrorCode.FILE_UNKNOWN, ["bob"], ["carol"], ErrorCode.FILE_UNKNOWN]


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_a_file_whose_message_was_taken_back_is_not_sent_on(
    bench: Any, picture: Any, report: Any, is_one_batch: bool
) -> None:
    items = [
        picture("m1", "f1"),
        report("c1", "m1", sender="alice", msg_type=MsgType.RECALL),
        picture("m2", "f1", sender="bob"),
    ]
    outcomes = await bench.outcome(*items) if is_one_batch else [(await bench.outcome(one))[0] for one in items]
    assert outcomes == [["bob"], ["bob"], ErrorCode.FILE_UNKNOWN]


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_who_sent_a_file_on_before_its_message_was_taken_back_sends_it_again(
    bench: Any, picture: Any, report: Any, is_one_batch: bool
) -> None:
    bench.session_api.users = {"bob", "carol", "dave"}
    await bench.record(picture("m1", "f1"))
    items = [
        picture("m2", "f1", sender="bob", msg_to="carol"),
        report("c1", "m1", sender="alice", msg_type=MsgType.RECALL),
        picture("m3", "f1", sender="bob", msg_to="dave"),
    ]
    outcomes = await bench.outcome(*items) if is_one_batch else [(await bench.outcome(one))[0] for one in items]
    assert outcomes == [["carol"], ["bob"], ["dave"]]


async def test_a_file_recalled_in_this_batch_and_shared_before_it_is_not_sent_on(
    bench: Any, picture: Any, report: Any
) -> None:
    await bench.record(picture("m1", "f1"))
    recall = report("c1", "m1", sender="alice", msg_type=MsgType.RECALL)
    assert await bench.outcome(recall, picture("m2", "f1", sender="bob")) == [["bob"], ErrorCode.FILE_UNKNOWN]


async def test_without_file_api_files_shall_be_sent_again_and_texts_go_on(
    bench: Any, picture: Any, accepted: Any
) -> None:
    bench.session_api.uploads = None
    assert await bench.outcome(picture("m1", "f1"), accepted("m2")) == [ErrorCode.UNAVAILABLE, ["bob"]]


async def test_while_the_log_cannot_tell_in_time_only_what_it_decides_shall_be_sent_again(
    bench: Any, picture: Any, accepted: Any
) -> None:
    bench.archive.slow_files = True
    outcomes = await bench.outcome(picture("m1", "f1", sender="bob"), picture("m2", "f1"), accepted("m3"))
    assert outcomes == [ErrorCode.UNAVAILABLE, ["bob"], ["bob"]]
    assert await bench.outcome(picture("m4", "unknown")) == [ErrorCode.FILE_UNKNOWN]


async def test_an_unknown_receiver_comes_before_an_unknown_file(bench: Any, picture: Any) -> None:
    assert await bench.outcome(picture("m1", "unknown", msg_to="nobody")) == [ErrorCode.USER_UNKNOWN]


async def test_members_of_a_session_send_on_what_they_saw_there(bench: Any, accepted: Any, session: Any) -> None:
    def group(msg_id: str, sender: str, session_id: str) -> Any:
        body = [{"session_id": session_id, "file_id": "f1"}]
        return accepted(msg_id, MsgType.GROUP_IMAGE, sender, msg_to=None, body=body)

    assert await bench.outcome(
        session(1, "alice", "bob"),
        session(1, "bob", "carol", session_id="s2"),
        group("m1", "bob", "s1"),
        group("m2", "alice", "s1"),
        group("m3", "bob", "s2"),
    ) == [["alice", "bob"], ["bob", "carol"], ErrorCode.FILE_UNKNOWN, ["bob"], ["carol"]]


async def test_the_log_is_asked_only_about_files_of_others_that_exist(bench: Any, picture: Any) -> None:
    await bench.record(picture("m1", "f1", "unknown"), picture("m2", "f2"))
    assert bench.archive.files_read == []
    await bench.record(picture("m3", "f1", "unknown", sender="bob"))
    assert bench.archive.files_read == [("f1", "bob")]
    bench.session_api.uploads = None
    await bench.record(picture("m4", "f1", sender="bob"))
    assert bench.archive.files_read == [("f1", "bob")]
