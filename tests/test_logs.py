"""Every line of a process is JSON, whoever wrote it."""

import json
import subprocess
import sys

CODE = """
import logging
from bitfront.logs import set_up_logs
set_up_logs()
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
logging.getLogger("uvicorn.error").info("Started server process")
logging.getLogger("celery.worker.consumer").error("cannot connect to redis://:pw@host/0")
logging.getLogger("bitfront.relay").info("rings")
"""


def test_libraries_that_serve_write_json_too():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("uvicorn.error", "Invalid HTTP request received."),
        ("celery.worker.consumer", "cannot connect to redis://:...@host/0"),
        ("bitfront.relay", "rings"),
    ]
