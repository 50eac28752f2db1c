"""Several nodes on one machine: network namespaces joined by a bridge in one more; nothing of the machine's
own network is touched. Needs root and ip(8).

A namespace is known by its name, and what runs in it is found through /proc: so whoever knows the names can
end it all, even when the process that made it was killed."""
import os
import select
import shutil
import signal
import subprocess
import time

HELD = "/run/netns"  # where ip(8) keeps the names
END_LIMIT_S = 10


def possible():
    return (os.geteuid() == 0 and shutil.which("ip") is not None and
            subprocess.run(["ip", "netns", "add", f"djp{os.getpid()}"],
                           capture_output=True).returncode == 0 and
            subprocess.run(["ip", "netns", "del", f"djp{os.getpid()}"]).returncode == 0)


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise AssertionError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def is_inside(pid, namespace):
    """Whether the process's network is the namespace; a zombie's is none."""
    try:
        own, wanted = os.stat(f"/proc/{pid}/ns/net"), os.stat(f"{HELD}/{namespace}")
    except OSError:
        return False
    return (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino)


def inhabitants(namespace):
    """Processes in the namespace."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_inside(pid, namespace)]


def end_process(pid, namespace):
    """SIGKILL, to this process and no later one of its number; waits until it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if is_inside(pid, namespace):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], END_LIMIT_S)
    except OSError:
        pass
    finally:
        os.close(fd)


def end_inhabitants(namespace):
    end = time.monotonic() + END_LIMIT_S
    while pids := [pid for pid in inhabitants(namespace) if pid != os.getpid()]:
        if time.monotonic() > end:
            raise AssertionError(f"processes {pids} in the namespace {namespace} do not end")
        for pid in pids:
            end_process(pid, namespace)


class Nodes:
    """`name`: what the namespaces' names begin with. `made`: they are there already."""

    def __init__(self, count, name=None, made=False):
        name = name or f"dj{os.getpid()}"
        self.switch = f"{name}-switch"
        self.names = [f"{name}-{i}" for i in range(count)]
        self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]
        if made:
            return
        try:
            self.make()
        except AssertionError:
            self.close()
            raise

    def make(self):
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for i, (name, address) in enumerate(zip(self.names, self.addresses)):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{i}",
               "netns", self.switch)
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", self.switch, "link", "set", f"port{i}", "master", "bridge", "up")

    def on(self, node, *argv):
        """The words that start a program on a node."""
        return ("ip", "netns", "exec", self.names[node], *argv)

    def link(self, node, state):
        """Pulls the node's cable out of the switch ("down"), or puts it in ("up")."""
        ip("-n", self.switch, "link", "set", f"port{node}", state)

    def has_link(self, node):
        done = subprocess.run(["ip", "-n", self.switch, "-o", "link", "show", f"port{node}"],
                              capture_output=True, text=True, timeout=30)
        return "LOWER_UP" in done.stdout

    def close(self):
        """Ends whatever still runs there, too: a namespace with a process in it would stay."""
        for name in (*self.names, self.switch):
            if os.path.exists(f"{HELD}/{name}"):
                end_inhabitants(name)
                subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30)
