"""A private server on this machine, for execution mode local_remote.

`djinn-run -n 1 -- COMMAND` starts ranks, runs COMMAND with address and credential in its environment,
and ends with it. COMMAND here tells us both and then reads until its input ends, which happens when
this process closes the pipe or dies in whatever way: so no server outlives its owner.
"""

import atexit
import os
import shutil
import subprocess
import sys
import threading

from ._errors import ConnectError

_TELL = "import os, sys\nprint(os.environ['DJINN_ADDRESS'], os.environ.get('DJINN_TOKEN', ''), flush=True)\nsys.stdin.read()\n"


def find_program(name):
    """DJINN_HOME/bin, the build tree or installation that this package is part of, then PATH."""
    here = os.path.dirname(os.path.abspath(__file__))
    homes = [os.environ.get("DJINN_HOME"), os.path.join(here, *[".."] * 2), os.path.join(here, *[".."] * 4)]
    for home in homes:
        path = home and os.path.normpath(os.path.join(home, "bin", name))
        if path and os.access(path, os.X_OK):
            return path
    found = shutil.which(name)
    if found is None:
        raise ConnectError(
            f"{name} was not found: build it, or set DJINN_HOME to the folder that has bin/{name}", -10
        )
    return found


class PrivateServer:
    def __init__(self, ranks=1, timeout=20.0, environment=None):
        command = [find_program("djinn-run"), "-n", str(ranks), "-q", "--", sys.executable, "-I", "-S", "-c", _TELL]
        env = dict(os.environ if environment is None else environment)
        for name in ("DJINN_ADDRESS", "DJINN_TOKEN", "DJINN_EXECUTION_MODE"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
        )
        killer = threading.Timer(timeout, self.process.kill)
        killer.start()
        try:
            words = self.process.stdout.readline().split()
        finally:
            killer.cancel()
        if not words:
            self.stop()
            raise ConnectError(
                f"{command[0]} did not start within {timeout:g} s: run it by hand to see why", -10
            )
        self.address = words[0]
        self.token = words[1] if len(words) > 1 else None
        atexit.register(self.stop)

    def stop(self):
        atexit.unregister(self.stop)
        if self.process.stdin and not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            try:
                self.process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
