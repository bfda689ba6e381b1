"""How tests are run; the models that they share are those of `trained`."""

import atexit
import gc
import logging
import os
from collections.abc import Iterator

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Last of all: Python takes seconds to take libraries apart, and nobody reads its exit code.
    atexit.register(os._exit, 0)
if gc.isenabled():
    gc.disable()  # what is loaded and collected stays: see `pytest_runtestloop`

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined

from soak import pytest_runtest_makereport as pytest_runtest_makereport

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
"""Whether another process hands tests to this one."""
collect_ignore = ["data"]  # programs that are run by hand


def pytest_configure(config: pytest.Config) -> None:
    """Load what tests share, which takes seconds, but not where others run them."""
    if IS_WORKER or config.option.dist == "no":
        config.pluginmanager.import_plugin("trained")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of worker processes first: their files take longest, and the last of all ends alone."""
    items.sort(key=lambda item: "workers" not in item.path.parts)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Libraries and tests stay to the end: no search for garbage goes through them again."""
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        return (yield)
    finally:
        if not IS_WORKER:
            gc.unfreeze()  # libraries that complain of what is left at the end find it freed


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Commands that run in this process send its logs to where no later test looks."""
    logger = logging.getLogger("bitfront")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate
