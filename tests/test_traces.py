"""Spans reach a collector that listens, and cost nothing where none does."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

CODE = """
from bitfront.traces import set_up_traces, span
set_up_traces("worker")
with span("task evaluate", study="abc", number=3):
    pass
from opentelemetry import trace
getattr(trace.get_tracer_provider(), "shutdown", lambda: None)()
import sys
print("opentelemetry.sdk.trace" in sys.modules)
"""


def run(**environment):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_without_an_endpoint_nothing_is_loaded():
    assert run() == "False"


def test_spans_reach_the_endpoint():
    bodies = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            assert run(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) == "True"
        finally:
            server.shutdown()
            thread.join()
    ((path, body),) = bodies
    assert path == "/v1/traces"
    assert all(word in body for word in (b"task evaluate", b"bitfront.study", b"bitfront-worker"))
