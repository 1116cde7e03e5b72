"""README and docs: every Python block runs, prints what the page says it prints, and every command exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import zip_longest
from pathlib import Path

import pytest

from cachepoint.cli import parser
from cachepoint.emulator import BedrockEmulator

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST_CODE_BEFORE_LINE = 30


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*pages: Path) -> Iterator[Block]:
    """The fenced blocks of pages; a block of text right after one of Python is its output."""
    for page in pages:
        text = page.read_text("utf-8")
        found = list(BLOCK.finditer(text))
        for block, after in zip_longest(found, found[1:]):
            printed = after and after["language"] == "text" and not text[block.end() : after.start()].strip()
            line = text.count("\n", 0, block.start()) + 1
            yield Block(page, line, block["language"], block["text"], after["text"] if after and printed else None)


PYTHON = [block for block in blocks(*PAGES) if block.language == "python"]
COMMANDS = [
    line.split("#")[0]
    for block in blocks(*PAGES)
    if block.language == "shell"
    for line in block.text.splitlines()
    if line.startswith("cachepoint ")
]


@pytest.fixture
def aws(bedrock_emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An AWS account whose Bedrock is the emulator."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", bedrock_emulator.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_block_of_python_runs_and_prints_what_the_page_says(block: Block, aws: None) -> None:
    program = compile("\n" * block.line + block.text, block.page, "exec")
    with redirect_stdout(StringIO()) as printed:
        exec(program, {"__name__": "__main__"})
    if block.output is not None:
        assert printed.getvalue() == block.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_a_page_is_one_that_exists(command: str) -> None:
    assert parser().parse_args(shlex.split(command)[1:]).run


def changes(text: str) -> dict[str, list[float]]:
    """The percentages at the end of a table's rows, by the row's name."""
    rows = re.findall(r"^(\S.*?)  +(\S.*%)$", text, re.MULTILINE)
    return {name: [float(share) for share in re.findall(r"([-+\d.]+)%", line)] for name, line in rows}


@pytest.mark.parametrize(
    ("number", "command"),
    [(0, ["-m", "cachepoint", "demo"]), (1, [str(ROOT / "benchmarks" / "shapes.py")])],
    ids=["demo", "shapes of traffic"],
)
def test_the_readmes_figures_are_what_its_commands_print(number: int, command: list[str]) -> None:
    tables = [block.text for block in blocks(ROOT / "README.md") if block.language == "text" and "%" in block.text]
    printed = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout
    said, measured = changes(tables[number]), changes(printed)
    assert said == measured


def test_the_readme_shows_code_that_runs_at_once() -> None:
    first = next(blocks(ROOT / "README.md"))
    assert first.language == "python"
    assert first.line < FIRST_CODE_BEFORE_LINE


def test_the_readme_says_that_nothing_was_measured_on_the_service() -> None:
    assert "No figure in this project was measured on Amazon Bedrock" in " ".join(PAGES[0].read_text().split())
