"""langchain-aws's own unit tests of `ChatBedrockConverse` end with our class as they end with theirs.

The tests come from the source distribution of the installed version, by pip, and stay in pytest's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pytest

pytest.importorskip("langchain_tests", reason="the dependency group `conformance` is not installed")

PLACES = "it asserts the parent's fixed places, on a prompt of a few words; cachepoint places by what pays"
OTHER: dict[str, str] = {
    "test_generate_with_cache_control": PLACES,
    "test_stream_with_cache_control": PLACES,
    "test_generate_with_cache_control_extended_ttl": PLACES,
    "test_generate_with_cache_control_and_tools": PLACES,
    "test_generate_with_cache_control_nova_skips_tools": PLACES,
    "test_generate_with_cache_control_nova_skips_tool_result_messages": PLACES,
}
"""The tests that pass with theirs and fail with ours, and why."""

CONCERNED = b"ChatBedrockConverse"
UNREACHABLE = ("No matching distribution", "Could not find a version", "Connection", "timed out")


@pytest.fixture
def their_tests(pytestconfig: pytest.Config, tmp_path: Path) -> Path:
    """The folder of langchain-aws's unit tests and their pytest settings."""
    release = version("langchain-aws")
    cached = pytestconfig.pluginmanager.hasplugin("cacheprovider")
    folder = pytestconfig.cache.mkdir("langchain-aws") if cached else tmp_path
    unpacked = folder / release
    if not unpacked.exists():
        part = folder / f"{release}.{os.getpid()}"
        _unpack(_downloaded(release, tmp_path), part)
        part.rename(unpacked)
    return unpacked


def _downloaded(release: str, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--retries=1", "--no-deps", "--no-build-isolation"]
    wanted = ["--no-binary=langchain-aws", f"--dest={folder}", f"langchain-aws=={release}"]
    done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["pip failed"]
        if any(sign in done.stderr for sign in UNREACHABLE):
            pytest.skip(f"the source of langchain-aws {release} cannot be had: {said[-1]}")
        pytest.fail(said[-1])
    return next(folder.glob("*.tar.gz"))


def _unpack(archive: Path, folder: Path) -> None:
    """Take the tests out of it, and not the package, for the installed one is tested."""
    with tarfile.open(archive) as source:
        for member in source:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            wanted = path.is_relative_to("tests/unit_tests") or path == PurePosixPath("pyproject.toml")
            if wanted and member.isfile() and (content := source.extractfile(member)) is not None:
                # Written by hand, for Python 3.11.2 has no extraction filters yet.
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content.read())


def _start(tests: Path, names: Sequence[str], ended: Path, *options: str) -> subprocess.Popen[bytes]:
    plugins = ["-p", "in_place", "-p", "no:cacheprovider"]
    # Some files also import classes of extras that need not be installed.
    options = ("--continue-on-collection-errors", "--ended", str(ended), *options)
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *plugins, *options, *names],
        cwd=tests,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.long("langchain-aws's own tests, twice")
@pytest.mark.timeout(900)
def test_our_class_in_the_place_of_theirs(their_tests: Path, tmp_path: Path) -> None:
    files = [path for path in (their_tests / "tests").rglob("test_*.py") if CONCERNED in path.read_bytes()]
    names = [str(path.relative_to(their_tests)) for path in sorted(files)]
    endings = [tmp_path / "theirs", tmp_path / "ours"]
    with _start(their_tests, names, endings[0]), _start(their_tests, names, endings[1], "--ours-in-place"):
        pass  # both at once, each to its end

    theirs, ours = (json.loads(ended.read_text("utf-8")) for ended in endings)

    assert set(ours) == set(theirs)
    assert len(theirs) > 300
    assert set(theirs.values()) <= {"passed", "skipped", "expected to fail"}
    assert {test.rpartition("::")[2] for test in theirs if ours[test] != theirs[test]} == set(OTHER)
