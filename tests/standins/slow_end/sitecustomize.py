"""Makes a lesson slow to end: it says that it is about to, waits for a word, and says that it did.

There is no pyspark either, so that the first lesson is a short one. SLOW_END names a folder with a
named pipe `go`.
"""

import atexit
import os
import signal
import sys
from pathlib import Path

sys.modules["pyspark"] = None


def end_slowly():
    if Path(sys.argv[0]).parent.name == "code":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        folder = Path(os.environ["SLOW_END"])
        (folder / "ending").touch()
        (folder / "go").read_text()  # waits until somebody writes
        (folder / "ended").touch()
        print("the lesson has ended", flush=True)


atexit.register(end_slowly)
