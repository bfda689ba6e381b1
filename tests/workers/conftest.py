"""How tasks reach the workers of an installation."""

import pytest


@pytest.fixture(params=["local", "celery"])
def transport(request):
    """Processes that look for tasks, or Celery with a Redis of its own."""
    return request.param
