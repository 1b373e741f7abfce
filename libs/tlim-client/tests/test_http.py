"""The HTTP client against a made-up gateway: refusals, forms, pages, safe downloads."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from tlim_client.failures import NotReachableError, RefusedError
from tlim_client.http import Form, HttpClient, attachment_name
from tlim_client.http.direct import COMPLETION_TIMEOUT
from tlim_protocol.errors import ErrorCode

Answer = Callable[[httpx.Request], httpx.Response]


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _client(answer: Answer) -> HttpClient:
    return HttpClient("http://gateway", token="t0k3n", transport=httpx.MockTransport(answer))


async def test_a_problem_document_is_a_refusal_with_its_code() -> None:
    problem = {"status": 404, "title": "Not Found", "detail": "no such session", "code": ErrorCode.SESSION_UNKNOWN}
    answer = httpx.Response(404, headers={"Content-Type": "application/problem+json"}, text=json.dumps(problem))

    async with _client(lambda _: answer) as client:
        with pytest.raises(RefusedError, match="no such session") as refusal:
            await client.session("x")

    assert (refusal.value.code, refusal.value.status) == (ErrorCode.SESSION_UNKNOWN, 404)


async def test_the_specification_s_fail_is_a_refusal_although_its_status_is_200() -> None:
    fail = {"result": "fail", "result_detail": ErrorCode.SESSION_ID_EMPTY, "detail": "which one?"}

    async with _client(lambda _: httpx.Response(200, json=fail)) as client:
        with pytest.raises(RefusedError, match="which one") as refusal:
            await client.legacy("deleteSession")

    assert (refusal.value.code, refusal.value.status) == (ErrorCode.SESSION_ID_EMPTY, 200)


async def test_a_refusal_of_something_in_between_has_no_code_and_still_one_line() -> None:
    async with _client(lambda _: httpx.Response(502, text="<html>bad gateway</html>")) as client:
        with pytest.raises(RefusedError, match="HTTP 502: Bad Gateway") as refusal:
            await client.sessions()
    assert refusal.value.code is None


async def test_a_server_that_does_not_answer_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with _client(refuse) as client:
        with pytest.raises(NotReachableError, match=r"http://gateway.*refused"):
            await client.sessions()


@pytest.mark.parametrize("form", ["get", "form", "json"])
async def test_each_form_of_the_specification_carries_chinese_and_lists(form: Form) -> None:
    seen: list[httpx.Request] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"result": "ok"})

    async with _client(note) as client:
        await client.legacy(
            "modifySession", form, root="plugins", session_name="项目", subscribers=[{"user_id": "bob"}]
        )

    (request,) = seen
    assert request.url.path == "/plugins/tlim/modifySession"
    assert request.headers["Authorization"] == "Bearer t0k3n"
    if form == "json":
        assert json.loads(request.content) == {"session_name": "项目", "subscribers": [{"user_id": "bob"}]}
        return
    sent = request.url.params if form == "get" else httpx.QueryParams(request.content.decode())
    assert (sent["session_name"], json.loads(sent["subscribers"])) == ("项目", [{"user_id": "bob"}])


async def test_history_goes_through_its_pages_up_to_the_limit() -> None:
    asked: list[dict[str, str]] = []

    def page(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        start = int(request.url.params.get("before", 10))
        seqs = [start - 1, start - 2]
        return httpx.Response(200, json={"messages": [{"seq": seq} for seq in seqs], "next": seqs[-1], "more": True})

    async with _client(page) as client:
        found = await client.history("bob", limit=3)

    assert [message["seq"] for message in found] == [9, 8, 7]
    assert asked == [{"limit": "3"}, {"before": "8", "limit": "3"}]


async def test_a_download_into_a_folder_takes_the_sender_s_name_but_never_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "小猫.png").write_bytes(b"old")
    disposition = "attachment; filename=\"__.png\"; filename*=UTF-8''%E5%B0%8F%E7%8C%AB.png"
    answer = httpx.Response(
        200, headers={"Content-Disposition": disposition, "Content-Type": "image/png"}, content=b"new"
    )

    async with _client(lambda _: answer) as client:
        download = await client.download("f1", tmp_path)

    assert (download.path.name, download.size, download.media_type) == ("小猫 (1).png", 3, "image/png")
    assert (tmp_path / "小猫.png").read_bytes() == b"old"


async def test_a_refused_download_leaves_no_file(tmp_path: Path) -> None:
    async with _client(lambda _: httpx.Response(404, json={"code": ErrorCode.FILE_UNKNOWN})) as client:
        with pytest.raises(RefusedError):
            await client.download("f1", tmp_path / "x")
    assert _files(tmp_path) == []


class _Broken(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"the first half"
        raise httpx.ReadError("connection lost")


@pytest.mark.parametrize(("there", "left"), [([], []), (["x"], ["x"])], ids=["new", "replaced"])
async def test_a_download_that_breaks_off_leaves_no_new_file(tmp_path: Path, there: list[str], left: list[str]) -> None:
    for name in there:
        (tmp_path / name).touch()
    async with _client(lambda _: httpx.Response(200, stream=_Broken())) as client:
        with pytest.raises(NotReachableError):
            await client.download("f1", tmp_path / "x")
    assert _files(tmp_path) == left


class _MadeUpStorage:
    """A gateway and its storage. In each answer only the first `good_for` URLs work."""

    def __init__(self, parts: int, good_for: int) -> None:
        self.put: dict[int, bytes] = {}
        self.completion_timeout = 0.0
        self._missing = list(range(1, parts + 1))
        self._good_for, self._left = good_for, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            assert "Authorization" not in request.headers
            return self._take(int(request.url.path[1:]), request.content)
        if request.method == "POST":
            self.completion_timeout = request.extensions["timeout"]["read"]
            return httpx.Response(200, json={"file_id": "f1"})
        self._left = self._good_for
        targets = [{"number": n, "size": 2, "method": "PUT", "url": f"http://s3/{n}", "headers": {}}
                   for n in self._missing]  # fmt: skip
        return httpx.Response(200, json={"parts": targets, "part_size": 2, "single": None, "received": []})

    def _take(self, number: int, data: bytes) -> httpx.Response:
        self._left -= 1
        if self._left < 0:
            return httpx.Response(403)
        self.put[number] = data
        self._missing.remove(number)
        return httpx.Response(200)


async def test_parts_whose_urls_ran_out_on_a_slow_network_get_new_ones(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"aabbccddee")
    storage = _MadeUpStorage(parts=5, good_for=2)
    async with _client(storage) as client:
        assert await client.resume_upload("u1", tmp_path / "film") == "f1"
    assert storage.put == {1: b"aa", 2: b"bb", 3: b"cc", 4: b"dd", 5: b"ee"}
    assert storage.completion_timeout == COMPLETION_TIMEOUT  # the storage is read once before the answer


async def test_a_storage_that_refuses_new_urls_is_told(tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(b"aabb")
    async with _client(_MadeUpStorage(parts=2, good_for=0)) as client:
        with pytest.raises(RefusedError, match="refused part 1"):
            await client.resume_upload("u1", tmp_path / "film")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", ""),
        ("attachment", ""),
        ('attachment; filename="a b.txt"', "a b.txt"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ('attachment; filename="C:\\\\temp\\\\x.txt"', "x.txt"),
        ('attachment; filename=".."', ""),
        ("attachment; filename*=utf-8'en'%1B%5B2Jx", "[2Jx"),
    ],
)
def test_the_name_of_a_download_is_never_a_path_and_never_steers_a_terminal(header: str, name: str) -> None:
    assert attachment_name({"Content-Disposition": header}) == name
