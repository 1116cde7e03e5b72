"""Names that are imported when first used, so that importing their package costs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from cachepoint.errors import MissingDependencyError


def lazy_names(
    package: str, homes: Mapping[str, str], extra: str | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`; `homes` maps each name to the module that defines it.

    Where a package of someone else's is missing, the error names the pip command for `extra`.
    """

    def find(name: str) -> object:
        """The package's attribute of this name, imported now; raises AttributeError for one it does not have."""
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value: object = getattr(import_module(homes[name]), name)
        except ModuleNotFoundError as problem:
            if extra is None or (problem.name or "").split(".")[0] == "cachepoint":
                raise
            raise MissingDependencyError(
                f"{package}.{name} needs {problem.name}; run: pip install 'cachepoint[{extra}]'"
            ) from problem
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return find, names
