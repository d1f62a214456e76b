"""
Run a command that ends when the process that started it ends, however that ends

A server that outlives its application would keep the port. So the parent starts it through this
file, with a pipe as standard input that it never writes to. When the parent is gone, the system
closes the pipe: after Ctrl+C, after the end of a kernel, and after `kill -9`, when the parent runs
no code of its own any more.

Run        python cml/end_with_parent.py COMMAND [ARGUMENT ...]; end of input ends it
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 5  # from the request to end until the end by force

# One process group holds this process, the command and the workers that the command starts.
if os.getpgrp() != os.getpid():
    os.setpgid(0, 0)
command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

# From here on, signals wait until `sigwait` asks for them. (The command was started before: it
# would inherit this.)
awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)


def tell_the_end_of_the_parent():
    """Wait for the end of the input, then send this process the signal that it waits for."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


threading.Thread(target=tell_the_end_of_the_parent, daemon=True).start()
if command.poll() is None:
    signal.sigwait(awaited)  # the parent has gone, or the command, or somebody asks for the end

os.killpg(0, signal.SIGTERM)
try:
    command.wait(GRACE_SECONDS)
except subprocess.TimeoutExpired:
    print(f"It did not end within {GRACE_SECONDS} s and is ended by force.", flush=True)
os.killpg(0, signal.SIGKILL)  # the workers that are left, and this process
