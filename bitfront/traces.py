"""OpenTelemetry: spans of requests and tasks, sent where `OTEL_EXPORTER_OTLP_ENDPOINT` says.

Without an endpoint a span costs microseconds and goes nowhere. What the exporter does is configured
by OpenTelemetry's own variables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from bitfront.version import __version__

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_tracer = trace.get_tracer("bitfront", __version__)


def set_up_traces(part: str) -> None:
    """Send spans of this process, if an endpoint is configured.

    Args:
        part: of the service, such as `"api"` or `"worker"`.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    # Not loaded where nothing is sent.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"bitfront-{part}", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """A span around the block; an error that leaves it is noted.

    Args:
        name: what is done, such as `"task evaluate"`.
        attributes: what it is done to.
    """
    named = {f"bitfront.{key}": value for key, value in attributes.items()}
    with _tracer.start_as_current_span(name, attributes=named):
        yield
