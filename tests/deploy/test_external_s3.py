"""An S3 of the operator's own: the actions that both ways of deployment name are those that our code needs."""

import re

import pytest

from tests.deploy.images import ROOT

ACTIONS = {
    "abort_multipart_upload": "AbortMultipartUpload",
    "complete_multipart_upload": "PutObject",
    "create_multipart_upload": "PutObject",
    "delete_object": "DeleteObject",
    "get_object": "GetObject",
    "head_bucket": "ListBucket",
    "list_multipart_uploads": "ListBucketMultipartUploads",
    "list_objects_v2": "ListBucket",
    "list_parts": "ListMultipartUploadParts",
    "put_object": "PutObject",
    "upload_file": "PutObject",
    "upload_part": "PutObject",
}
"""Operations of S3 → the actions of IAM that permit them."""
CALLERS = (
    "services/file-api/src/file_api",
    "libs/tlim-admin/src/tlim_admin/backup",
    "libs/tlim-admin/src/tlim_admin/doctor",
)
CALL = re.compile(
    r"(?:client|s3)\.((?:abort|complete|copy|create|delete|get|head|list|put|upload)_\w+)\("
    r'|(?:get_paginator|generate_presigned_url)\(\s*"(\w+)"'
)
DOCTOR = ROOT / "libs/tlim-admin/src/tlim_admin/doctor/objects.py"


def needed(text: str) -> set[str]:
    """Return the actions that a text of Python needs; an operation without one fails."""
    return {ACTIONS[called or paged] for called, paged in CALL.findall(text) if (called or paged) != "get_paginator"}


@pytest.mark.parametrize("page", ["compose/external-s3.yml", "k8s/components/external-s3/kustomization.yaml"])
def test_an_operator_reads_which_actions_the_key_needs(page: str) -> None:
    code = "".join(file.read_text(encoding="utf-8") for folder in CALLERS for file in (ROOT / folder).rglob("*.py"))
    assert set(re.findall(r"s3:(\w+)", (ROOT / "deploy" / page).read_text(encoding="utf-8"))) == needed(code)


def test_the_doctor_tries_every_one_of_them() -> None:
    assert needed(DOCTOR.read_text(encoding="utf-8")) == set(ACTIONS.values())
