"""The wheel that users install, built from this tree and used on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ONE_CALL = """
import pathlib, cachepoint, cachepoint.emulator as emulator
from cachepoint.catalogue.table import load_rules
assert pathlib.Path(cachepoint.__file__).is_relative_to({installed!r}), cachepoint.__file__
assert load_rules().resolve("anthropic.claude-sonnet-4-5-20250929-v1:0") is not None
with emulator.BedrockEmulator() as bedrock:
    client = cachepoint.wrap(bedrock.client())
    answer = client.converse(
        modelId="us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        messages=[{{"role": "user", "content": [{{"text": "hello"}}]}}],
    )
print(answer["promptCache"]["status"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Path(__file__).resolve().parents[2]
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(project)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True)
    return next(folder.glob("cachepoint-*.whl"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_every_module_and_the_data_they_read(names: list[str]) -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    wanted |= {"cachepoint/py.typed", "cachepoint/catalogue/data/models.toml", "cachepoint/cli/demo/prompt_caching.md"}
    assert wanted <= set(names)


def test_the_wheel_holds_nothing_but_the_package(names: list[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cachepoint"}


def test_the_wheel_brings_the_command_and_the_pytest_plugin(wheel: Path, names: list[str]) -> None:
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert "cachepoint = cachepoint.cli:main" in text
    assert "cachepoint = cachepoint.emulator._pytest_plugin" in text


def test_the_installed_wheel_answers_a_call(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = ONE_CALL.format(installed=str(tmp_path))
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.strip() == "uncached", answer.stderr
