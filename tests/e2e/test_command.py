"""The `tlim` command: two people talk, each in a terminal."""

import json

import pytest
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People
from tests.e2e.clients.terminal import Terminal, next_json


async def test_two_people_talk_and_share_a_picture(people: People, terminal: Terminal) -> None:
    alice, bob = await people("alice", "bob")
    for person in (alice, bob):
        await terminal.log_in(person)
    picture = terminal.folder / "猫.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    as_alice, as_bob = ("--as", alice.user_id), ("--as", bob.user_id)

    async with terminal.running(*as_bob, "listen", "--count", "2", "--json", "--save", "shared") as listening:
        assert "stored as number" in await terminal.ok(*as_alice, "send", "--to", bob.user_id, "hi, 你好")
        await terminal.ok(*as_alice, "send", "--to", bob.user_id, "--image", str(picture))
        lines = [await next_json(listening) for _ in range(3)]

    text, image, saved = lines
    assert (text["from"], text["body"]) == (alice.user_id, [{"text": "hi, 你好"}])
    assert saved["file_id"] == image["body"][0]["file_id"]
    assert (terminal.folder / "shared" / "猫.png").read_bytes() == picture.read_bytes()
    history = (await terminal.ok("history", alice.user_id, *as_bob)).splitlines()
    assert history[0].endswith(f"{alice.user_id}: hi, 你好")
    assert image["body"][0]["file_id"] in history[1]
    await terminal.ok(*as_bob, "download", image["body"][0]["file_id"], "-o", "again.png")
    assert (terminal.folder / "again.png").read_bytes() == picture.read_bytes()


@pytest.mark.proves("POST /v1/sessions", "PATCH /v1/sessions/{session_id}", "DELETE /v1/sessions/{session_id}")
async def test_sessions_are_made_and_edited(people: People, terminal: Terminal) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    await terminal.log_in(alice)

    made = json.loads(await terminal.ok("session", "add", bob.user_id, "--type", "1", "--json"))
    session_id = made["session_id"]
    await terminal.ok("session", "rename", session_id, "Project X")
    invited = json.loads(await terminal.ok("session", "invite", session_id, carol.user_id, "--json"))
    removed = json.loads(await terminal.ok("session", "remove", session_id, bob.user_id, "--json"))
    listed = await terminal.ok("session", "list")
    await terminal.ok("session", "delete", session_id)

    assert invited["subscribers"] == [alice.user_id, bob.user_id, carol.user_id]
    assert removed["subscribers"] == [alice.user_id, carol.user_id]
    assert listed == f"{session_id}  Project X\n"
    assert await terminal.ok("session", "list") == ""


async def test_what_goes_wrong_is_one_line_and_an_exit_code(people: People, terminal: Terminal) -> None:
    (alice,) = await people("alice")

    nobody = await terminal.run("send", "--to", "bob", "hi")
    wrong = await terminal.run("login", alice.user_id, "--password-stdin", typed="wrong")
    await terminal.log_in(alice)
    unknown = await terminal.run("send", "--to", "nobody-here", "hi")
    missing = await terminal.run("download", "no-such-file")

    for code, out, err in (nobody, wrong, unknown, missing):
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("tlim: ")
    assert ErrorCode.USER_UNKNOWN in unknown[2]
    assert ErrorCode.FILE_UNKNOWN in missing[2]
