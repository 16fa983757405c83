"""Names of a package that are imported when they are first used."""

import importlib
from collections.abc import Callable, Mapping, Sequence


def lazy_names(
    package: dict[str, object], homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    Args:
        package: its `globals()`.
        homes: module below the package -> the names that it defines.
    """
    modules = {name: f"{package['__name__']}.{home}" for home, names in homes.items() for name in names}

    def getattr_(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        package[name] = getattr(importlib.import_module(modules[name]), name)
        return package[name]

    return getattr_, lambda: sorted({*package, *modules})
