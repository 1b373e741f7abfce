"""In containers: the lines of deploy/compose/README.md, typed as they stand there."""

import json
from typing import cast

import pytest
from tlim_devstack.stack import Stack

from tests.deploy.images import ROOT
from tests.deploy.pages import to_type
from tests.e2e.clients.containers import ComposeStack
from tests.e2e.conftest import IN_CLUSTER, IN_CONTAINERS

pytestmark = pytest.mark.skipif(IN_CLUSTER or not IN_CONTAINERS, reason="needs containers: make e2e-compose")


def test_with_docker_and_curl_alone_somebody_reads_a_first_message(stack: Stack) -> None:
    printed = cast("ComposeStack", stack).typed(to_type(ROOT / "deploy/compose/README.md", "A first message"))

    decoder, answers = json.JSONDecoder(), []
    while rest := printed.strip():
        answer, end = decoder.raw_decode(rest)
        answers.append(answer)
        printed = rest[end:]
    imported, sent, read = answers
    assert not imported["invalid"]
    assert read["messages"][0]["msg_id"] == sent["msg_id"]
    assert read["messages"][0]["body"] == [{"text": "hello, Bob"}]
