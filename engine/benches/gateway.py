"""`bench/engine.py` with the native engine in place of the Python one: the same words on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from vpnd_engine import NativeEngine

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import engine as bench

vars(bench).update(PythonEngine=NativeEngine, __file__=__file__)

if __name__ == "__main__":
    bench.main()
