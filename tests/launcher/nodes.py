"""Several nodes on one machine: network namespaces joined by a bridge in one more; nothing of the machine's
own network is touched. Needs root and ip(8)."""
import os
import shutil
import subprocess


def possible():
    return (os.geteuid() == 0 and shutil.which("ip") is not None and
            subprocess.run(["ip", "netns", "add", f"djp{os.getpid()}"],
                           capture_output=True).returncode == 0 and
            subprocess.run(["ip", "netns", "del", f"djp{os.getpid()}"]).returncode == 0)


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"ip {' '.join(words)}: {done.stderr}")


class Nodes:
    def __init__(self, count):
        self.switch = f"djs{os.getpid()}"
        self.names = [f"djn{os.getpid()}-{i}" for i in range(count)]
        self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]
        self.made = []
        try:
            self.make()
        except AssertionError:
            self.close()
            raise

    def make(self):
        self.add(self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for i, (name, address) in enumerate(zip(self.names, self.addresses)):
            self.add(name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{i}",
               "netns", self.switch)
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", self.switch, "link", "set", f"port{i}", "master", "bridge", "up")

    def add(self, name):
        ip("netns", "add", name)
        self.made.append(name)

    def on(self, node, *argv):
        """The words that start a program on a node."""
        return ("ip", "netns", "exec", self.names[node], *argv)

    def close(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self.made = []
