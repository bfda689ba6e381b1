"""Tells transformers about packed checkpoints as soon as it can hear it; imports no torch itself.

`AutoModelForCausalLM.from_pretrained` must know `quant_method` "bitfront" after `import bitfront`,
whichever of the two is imported first, and `import bitfront` must stay free of torch. See
`docs/decisions/0007-register-on-import.md`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TARGET = "transformers.quantizers.auto"


def register_with_transformers() -> None:
    """Register now if transformers has its table of quantizers, else when it gets it."""
    if _TARGET in sys.modules:
        _register(sys.modules[_TARGET])
    elif not any(isinstance(finder, _OnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OnImport())


def _register(table: ModuleType) -> None:
    checkpoint = importlib.import_module("bitfront.models.packed_checkpoint")
    if not hasattr(checkpoint, "BitfrontQuantizer"):
        return  # it is being imported, and registers at its end
    if checkpoint.QUANT_METHOD not in table.AUTO_QUANTIZER_MAPPING:
        table.register_quantization_config(checkpoint.QUANT_METHOD)(checkpoint.BitfrontConfig)
        table.register_quantizer(checkpoint.QUANT_METHOD)(checkpoint.BitfrontQuantizer)


class _OnImport(MetaPathFinder):
    """Lets the usual finders find the table, and registers once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_register(module: ModuleType) -> None:
                run(module)
                _register(module)

            spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
