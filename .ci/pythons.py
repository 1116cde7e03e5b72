"""Runs `make test` with every Python from 3.11 on that this machine has, and says which it has not.

python .ci/pythons.py [MAKE]

An interpreter is looked for on the PATH, among pyenv's, and as the system's own. Each has environments of its own
(`.venv-3.12.1`, ...). Exits with 1 if one of them fails, and with 2 if none is found.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WANTED = ("3.11", "3.12", "3.13", "3.14")
SYSTEM = "/usr/bin/python3"
"""Of Debian and its like: another build, and often another patch release, than those one installs beside it."""
TELL = "import json, sys; print(json.dumps([sys.version.split()[0], sys.base_prefix, sys.executable]))"


def candidates() -> Iterator[str]:
    """Where an interpreter may be; not every one needs to be there or to start."""
    for version in WANTED:
        if found := shutil.which(f"python{version}"):
            yield found
        for path in sorted(pyenv_root().glob(f"versions/{version}.*/bin/python{version}")):
            yield str(path)
    yield SYSTEM


def pyenv_root() -> Path:
    """Where pyenv keeps its interpreters: those that are not in use have no working command on the PATH."""
    return Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()


def interpreters() -> dict[str, str]:
    """The executables found, by version; of two of one version the first."""
    found: dict[str, str] = {}
    for candidate in candidates():
        try:
            told = subprocess.run([candidate, "-c", TELL], check=True, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        version, _, executable = json.loads(told.stdout)
        if version.startswith(tuple(f"{each}." for each in WANTED)):
            found.setdefault(version, executable)
    return found


def main(make: str) -> int:
    """Run them all, whatever fails, and sum up."""
    found = interpreters()
    results: dict[str, str] = {}
    for version, executable in found.items():
        print(f"\n== Python {version} ({executable})", flush=True)
        done = subprocess.run([make, "test", f"PYTHON={executable}", f"VENV=.venv-{version}"], check=False)
        results[version] = "passed" if done.returncode == 0 else "FAILED"
    print()
    for version, result in results.items():
        print(f"Python {version}: {result}")
    for wanted in WANTED:
        if not any(version.startswith(f"{wanted}.") for version in found):
            print(f"Python {wanted}: not found, not tried")
    if not found:
        return 2
    return 1 if "FAILED" in results.values() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "make"))
