"""Lets torchvision be imported where its compiled operators do not load; imports no torch itself.

Those of the package index are linked with CUDA. Beside a torch for CPUs torchvision fails while it
describes operators that are not there (`nms`), and with it all of transformers, also for language
models. Transforming images takes none of them, so they are declared: called, they fail.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_DECLARED = ("nms", "qnms")
"""Those that torchvision describes without asking whether they are there."""
_LIBRARIES: list[Any] = []
"""Operators are gone with the library that declares them."""


def declare_missing_operators() -> None:
    """Watch for the import of torchvision; where that goes well, nothing is declared."""
    if not any(isinstance(finder, _OnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OnImport())


class _OnImport(MetaPathFinder):
    """Runs torchvision a second time, with its operators declared, if the first one failed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == "torchvision" else None
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_again(module: ModuleType) -> None:
                try:
                    run(module)
                except RuntimeError as error:
                    if "does not exist" not in str(error):
                        raise
                    for name in [x for x in sys.modules if x.startswith("torchvision.")]:
                        del sys.modules[name]
                    _declare()
                    run(module)

            spec.loader.exec_module = run_again  # type: ignore[method-assign]
        return spec


def _declare() -> None:
    import torch  # torchvision has imported it

    if not _LIBRARIES:
        _LIBRARIES.append(torch.library.Library("torchvision", "FRAGMENT"))  # type: ignore[no-untyped-call]
        for name in _DECLARED:
            _LIBRARIES[0].define(f"{name}() -> ()")
