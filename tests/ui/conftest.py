"""A site with one study in each state, made once; tests that change something make their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.ui.filled import Filled, request, site

WORDS = '<b>Overflow</b> & "more" <script>alert(1)</script>'
"""What an error of a hostile model may say."""


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Studies by state in `ids`; leave them as they are."""
    made = site(tmp_path_factory.mktemp("full"))
    made.ids = {"COMPLETE": made.study().id}
    made.ids["PARTIAL"] = made.study(hand=made.hand(fails=(5, 9), error=WORDS), n_trials=16).id
    made.ids["CANCELLED"] = made.study(n=12).id
    made.store.studies.cancel(made.ids["CANCELLED"])
    made.ids["FAIL"] = made.store.studies.create(request(), "local")[0].id
    claim = made.store.queue.claim("host-2:7:0", ["cpu"])
    made.store.queue.fail(claim, f"The model cannot be used: {WORDS}", final=True)
    made.ids["RUNNING"] = made.study(n=20).id
    made.ids["WAITING"] = made.store.studies.create(request(), "local")[0].id
    return made


@pytest.fixture
def empty(tmp_path: Path) -> Filled:
    """No study, no key."""
    return site(tmp_path)


@pytest.fixture
def browse() -> Iterator[Callable[..., TestClient]]:
    """Makes clients of this machine that keep cookies and follow no redirect."""
    opened = []

    def client(of: Filled, **options: object) -> TestClient:
        near = {"client": ("127.0.0.1", 5000), "follow_redirects": False, **options}
        opened.append(TestClient(of.app, "http://127.0.0.1", **near))
        return opened[-1]

    yield client
    for each in opened:
        each.close()
