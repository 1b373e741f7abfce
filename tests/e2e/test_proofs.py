"""Every row of the specification has a story, and docs/proofs.md names it."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT

from tests.e2e.proofs import ROOT


async def test_every_row_of_the_specification_has_a_story_and_the_page_says_so() -> None:
    arguments = (sys.executable, "-m", "tests.e2e.proofs", "--check")  # a process: pytest collects once in each
    process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
