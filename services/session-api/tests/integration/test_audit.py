"""The audit log: what administrators did, who did it, in the same transaction; read newest first."""

from collections.abc import Callable

import asyncpg
import httpx
import pytest
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AuditAction

AsUser = Callable[..., httpx.AsyncClient]


async def entries(admin: httpx.AsyncClient, **wanted: str) -> list[dict[str, object]]:
    answer = await admin.get("/v1/audit", params=wanted)
    assert answer.status_code == 200
    items: list[dict[str, object]] = answer.json()["items"]
    return items


async def test_each_action_leaves_who_what_to_whom_and_in_which_request(admin: httpx.AsyncClient) -> None:
    put = await admin.put("/v1/users/Bob", json={"name": "鲍勃"}, headers={"X-Request-ID": "put-1"})
    await admin.put("/v1/users/bob", json={})
    imported = await admin.post("/v1/users", json={"users": [{"user_id": "bob"}, {"user_id": "carol"}]})
    await admin.delete("/v1/users/bob")
    told = await entries(admin)
    assert [(one["actor"], one["action"], one["target"], one["detail"]) for one in told] == [
        ("importer", AuditAction.USER_DEACTIVATED, "bob", {}),
        ("importer", AuditAction.USERS_IMPORTED, None, {"created": 1, "updated": 1}),
        ("importer", AuditAction.USER_PUT, "bob", {"name": "bob", "created": False}),
        ("importer", AuditAction.USER_PUT, "bob", {"name": "鲍勃", "created": True}),
    ]
    assert told[3]["request_id"] == put.headers["X-Request-ID"] == "put-1"
    assert told[1]["request_id"] == imported.headers["X-Request-ID"]
    assert told[3]["at"] >= put.json()["modified_at"]


async def test_reading_and_being_refused_leave_nothing(admin: httpx.AsyncClient, as_user: AsUser) -> None:
    await admin.get("/v1/users")
    await admin.get("/v1/audit")
    await admin.put("/v1/users/bob", json={"name": ""})
    await admin.post("/v1/users", json={"users": [{"user_id": ""}]})
    await admin.delete("/v1/users/ghost")
    await as_user("alice").put("/v1/users/bob", json={})
    assert await entries(admin) == []


async def test_without_its_entry_an_action_does_not_happen(
    admin: httpx.AsyncClient, database_url: str, owner_url: Callable[[str, str], str]
) -> None:
    owner = await asyncpg.connect(owner_url("session_api", database_url).replace("+asyncpg", ""))
    try:
        await owner.execute("ALTER TABLE audit ADD CONSTRAINT full_disk CHECK (action <> 'user.put')")
    finally:
        await owner.close()
    assert (await admin.put("/v1/users/bob", json={})).status_code == 500
    assert (await admin.get("/v1/users")).json()["items"] == []


async def test_it_is_paged_and_filtered_by_actor_and_action(admin: httpx.AsyncClient, as_user: AsUser) -> None:
    other = as_user("hr", scope="admin")
    for one in range(5):
        await (other if one % 2 else admin).put(f"/v1/users/u{one}", json={})
    await other.delete("/v1/users/u1")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await admin.get("/v1/audit", params={"limit": 2, "action": "user.put", **cursor})).json()
        seen += [one["target"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ["u4", "u3", "u2", "u1", "u0"]
    assert [one["target"] for one in await entries(admin, actor="HR")] == ["u1", "u3", "u1"]
    assert [one["target"] for one in await entries(admin, actor="hr", action="user.put")] == ["u3", "u1"]
    assert await entries(admin, actor="nobody") == []


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ({"action": "user.unknown"}, 422, ErrorCode.FIELD_INVALID),
        ({"actor": "no@id"}, 422, ErrorCode.FIELD_INVALID),
        ({"actor": " "}, 404, ErrorCode.USER_UNKNOWN),
        ({"cursor": "nonsense"}, 422, ErrorCode.FIELD_INVALID),
        ({"limit": "0"}, 422, ErrorCode.FIELD_INVALID),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    admin: httpx.AsyncClient, wanted: dict[str, str], status: int, code: ErrorCode
) -> None:
    answer = await admin.get("/v1/audit", params=wanted)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_only_administrators_read_it(as_user: AsUser, stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/v1/audit")).status_code == 401
    answer = await as_user("alice").get("/v1/audit")
    assert (answer.status_code, answer.json()["code"]) == (403, ErrorCode.NOT_ALLOWED)
