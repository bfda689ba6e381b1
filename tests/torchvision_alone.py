"""Imports torchvision also where its compiled operators do not load; for tests of timm.

The package index here has a torch for CPUs beside a torchvision that is linked with CUDA, which
fails while it describes operators that are not there. Transforming images takes none of them, so
they are declared: called, they fail.
"""

import sys
from importlib.util import find_spec

import torch


def declare() -> None:
    """Import torchvision, if need be with the operators that it describes without asking."""
    try:
        import torchvision
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            DECLARED.define(f"{name}() -> ()")
        import torchvision  # noqa: F401


if find_spec("torchvision") is not None:  # collected for doctests where it is not
    DECLARED = torch.library.Library("torchvision", "FRAGMENT")  # gone when this is
    declare()
