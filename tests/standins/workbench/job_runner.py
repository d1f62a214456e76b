"""Runs the script of a job as CML does: any SystemExit is a failure, and there is no `__file__`.

It ends, with all that it started, when its standard input does: when the server is gone.
"""

import os
import signal
import sys
import threading

_pipe = os.dup(0)
_nothing = os.open(os.devnull, os.O_RDONLY)
os.dup2(_nothing, 0)


def _end_with_server():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    os.read(_pipe, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


threading.Thread(target=_end_with_server, daemon=True).start()
del sys.argv[0]
sys.path[0] = os.getcwd()
del __file__
with open(sys.argv[0], encoding="utf-8") as _script:
    _code = compile(_script.read(), sys.argv[0], "exec")
try:
    exec(_code)
except SystemExit as _ended:
    print(f"SystemExit: {_ended}", file=sys.stderr)
    sys.exit(1)
