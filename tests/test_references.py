"""Whatever prose and comments point to is there: files, headings, modules."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)  # noqa: S607
FILES = [name for name in LISTED.stdout.decode().splitlines() if (ROOT / name).is_file()]
GENERATED = {"requirements.lock", "docs/proofs.md"}
PROSE = [name for name in FILES if name.endswith(".md") and name not in GENERATED]
CODE = {".py", ".erl", ".lua", ".java", ".toml", ".yml", ".cfg", ".conf", ".sh", ""}
TEXTS = [*PROSE, *(name for name in FILES if Path(name).suffix in CODE and name not in GENERATED)]

LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGE = re.compile(r"\bdocs/[\w/.-]+\.md\b")
SECTION = re.compile(r'\b(docs/[\w/.-]+\.md)[`)]*,\s+(?:#\s+)?"([^"]+)"')
NUMBERED = re.compile(r"\bprotocol(?:\.md)?,?\s+(?:#\s+)?section", re.IGNORECASE)
SOURCE = re.compile(r"`(\w[\w./-]*\.(?:py|erl|lua|md|json|toml|yml))`")
MADE = {"openapi.json", "pyproject.toml"}  # each service has one


@cache
def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def _headings(name: str) -> list[str]:
    fenced = re.sub(r"^```.*?^```", "", _text(name), flags=re.MULTILINE | re.DOTALL)
    return [match[1].strip() for match in re.finditer(r"^#+ (.+)$", fenced, re.MULTILINE)]


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _links(name: str) -> Iterator[tuple[str, str]]:
    """Yield the file, relative to the root, and the anchor of each link that stays in the repository."""
    for target in LINK.findall(_text(name)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        yield there.resolve().relative_to(ROOT).as_posix(), anchor


@pytest.mark.parametrize("name", PROSE)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    for there, anchor in _links(name):
        assert (ROOT / there).exists(), f"{name} links to {there}"
        if anchor:
            assert anchor in map(_anchor, _headings(there)), f"{name} links to {there}#{anchor}"


def test_every_page_that_a_comment_names_is_there() -> None:
    missing = {(name, page) for name in TEXTS for page in PAGE.findall(_text(name)) if not (ROOT / page).exists()}
    assert missing == set()


def test_every_section_that_a_comment_names_is_a_heading_of_that_page() -> None:
    named = [(name, page, title) for name in TEXTS for page, title in SECTION.findall(_text(name))]
    assert named
    for name, page, title in named:
        assert title in _headings(page), f'{name} names {page}, "{title}"'


def test_no_comment_counts_the_sections_of_the_protocol() -> None:
    counting = [name for name in TEXTS if name != "tests/test_references.py" and NUMBERED.search(_text(name))]
    assert counting == []


@pytest.mark.parametrize("name", PROSE)
def test_every_file_that_prose_names_is_in_the_repository(name: str) -> None:
    for source in set(SOURCE.findall(_text(name))) - MADE:
        assert any(f"/{one}".endswith(f"/{source}") for one in FILES), f"{name} names {source}"
