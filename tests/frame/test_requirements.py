"""What pyproject.toml asks for is what is tested."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Mapping[str, list[str]] = PROJECT["optional-dependencies"]


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / "constraints" / name).read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {package.lower(): Version(version) for package, version in pinned}


def requirements(*extras: str) -> list[Requirement]:
    return [Requirement(line) for line in PROJECT["dependencies"] + [r for extra in extras for r in EXTRAS[extra]]]


def floor(requirement: Requirement) -> Version:
    return next(Version(part.version) for part in requirement.specifier if part.operator == ">=")


@pytest.mark.parametrize("requirement", requirements("langchain", "llama-index", "emulator"), ids=str)
def test_the_oldest_admitted_release_is_the_one_tested(requirement: Requirement) -> None:
    pinned = pins("lowest.txt")[requirement.name]
    if requirement.name == "boto3":  # langchain-aws asks for more; the floor itself is tested without it
        assert pinned > floor(requirement)
        pinned = pins("lowest-bare.txt")["boto3"]
    assert pinned == floor(requirement)


@pytest.mark.parametrize("requirement", requirements(*(extra for extra in EXTRAS if extra != "all")), ids=str)
def test_the_newest_tested_release_is_admitted(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins("newest.txt")[requirement.name])


def test_the_extra_all_brings_every_other_one() -> None:
    assert Requirement(EXTRAS["all"][0]).extras == EXTRAS.keys() - {"all"}
