"""Run an engine: `python -m bitfront.runtimes ENGINE FOLDER TOKENS.npy OUT.npy`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bitfront.runtimes import RUNNERS

if __name__ == "__main__":
    engine, folder, tokens, out = sys.argv[1:]
    np.save(out, RUNNERS.build(engine).logits(Path(folder), np.load(tokens)))
