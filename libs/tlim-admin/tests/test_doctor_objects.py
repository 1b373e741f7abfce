"""The doctor at S3: a key that may not do all that file-api does is found before a file is lost in the middle."""

from typing import TYPE_CHECKING, Any, cast

import pytest
from botocore.exceptions import ClientError
from tlim_admin.doctor.findings import State
from tlim_admin.doctor.objects import uploads

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "files/ab/abcd"
ACTIONS = {
    "list_objects_v2": "ListObjectsV2",
    "create_multipart_upload": "CreateMultipartUpload",
    "list_multipart_uploads": "ListMultipartUploads",
    "list_parts": "ListParts",
    "abort_multipart_upload": "AbortMultipartUpload",
}


class FakeS3:
    """An S3 that has one object, and refuses one operation."""

    def __init__(self, refused: str = "", *, lists: bool = True) -> None:
        self._refused, self._lists = refused, lists
        self.open: list[str] = []

    def _permit(self, operation: str) -> None:
        if operation == self._refused:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, ACTIONS[operation])

    def list_objects_v2(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:  # noqa: N803 - boto's names
        self._permit("list_objects_v2")
        return {"Contents": [{"Key": Prefix}]} if Bucket else {}

    def create_multipart_upload(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        self._permit("create_multipart_upload")
        self.open.append(f"{Bucket}/{Key}")
        return {"UploadId": f"{Bucket}/{Key}"}

    def list_multipart_uploads(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:  # noqa: N803
        self._permit("list_multipart_uploads")
        found = [one for one in self.open if one.startswith(f"{Bucket}/{Prefix}")]
        return {"Uploads": [{"UploadId": one} for one in found]} if self._lists else {}

    def list_parts(self, *, Bucket: str, Key: str, UploadId: str) -> dict[str, Any]:  # noqa: N803
        self._permit("list_parts")
        assert f"{Bucket}/{Key}" == UploadId
        return {}

    def abort_multipart_upload(self, *, Bucket: str, Key: str, UploadId: str) -> None:  # noqa: N803
        self._permit("abort_multipart_upload")
        assert f"{Bucket}/{Key}" == UploadId
        self.open.remove(UploadId)


def looked_at(s3: FakeS3) -> tuple[State, str]:
    finding = uploads(cast("S3Client", s3), "tlim-files", KEY)
    return finding.state, finding.seen


def test_a_key_that_may_do_everything_is_well_and_no_upload_stays() -> None:
    s3 = FakeS3()
    assert looked_at(s3)[0] is State.OK
    assert s3.open == []


@pytest.mark.parametrize("operation", ACTIONS)
def test_what_a_key_may_not_do_is_named(operation: str) -> None:
    s3 = FakeS3(operation)
    state, seen = looked_at(s3)
    assert state is State.WRONG
    assert ACTIONS[operation] in seen
    assert s3.open == [] or operation == "abort_multipart_upload"


def test_an_s3_that_does_not_list_what_was_begun_is_wrong() -> None:
    assert looked_at(FakeS3(lists=False))[0] is State.WRONG
