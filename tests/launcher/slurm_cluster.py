"""A real Slurm cluster of a few nodes on one machine: munged, slurmctld and a slurmd in each network
namespace (nodes.py), each with a host name, /tmp, /dev/shm and System V memory of its own, as on machines of
their own. Needs root and the Slurm daemons."""
import os
import shutil
import signal
import subprocess
import time

import nodes

CONFIGURATION = """
ClusterName=djinn
SlurmctldHost=djctl({controller})
SlurmctldPort=6817
SlurmdPort=6818
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=pmix
MpiParams=ports=24000-24999
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=5
SchedulerParameters=sched_interval=1,bf_interval=1
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def possible():
    return nodes.possible() and all(shutil.which(name) for name in
                                    ("slurmctld", "slurmd", "srun", "sinfo", "munged", "nsenter"))


class Cluster:
    """`folder`: an empty one beside the programs: <build>/bin/<folder>."""

    def __init__(self, folder, count, processors=4):
        self.folder, self.count = folder, count
        self.daemons = []
        self.nodes = nodes.Nodes(count + 1)  # the last one is the controller's
        try:
            self.start(processors)
        except (AssertionError, OSError):
            self.close()
            raise

    def start(self, processors):
        for name in ("state", *(f"spool-dn{i}" for i in range(self.count))):
            os.mkdir(f"{self.folder}/{name}")
        lines = [f"NodeName=dn{i} NodeAddr={self.nodes.addresses[i]} CPUs={processors} State=UNKNOWN"
                 for i in range(self.count)]
        self.configuration = f"{self.folder}/slurm.conf"
        with open(self.configuration, "w") as file:
            file.write(CONFIGURATION.format(folder=self.folder, nodes="\n".join(lines),
                                            controller=self.nodes.addresses[self.count]))
        key = f"{self.folder}/munge.key"
        with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(os.urandom(128))
        self.daemon("munged", "--foreground", "--force", f"--key-file={key}",
                    f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munged.pid",
                    f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munge.seed")
        self.wait_for(lambda: os.path.exists(f"{self.folder}/munge.socket"), "munged")
        self.daemon(*self.inside(self.count, "djctl", f"exec slurmctld -D -c -f {self.configuration}"))
        build = os.path.dirname(os.path.dirname(self.folder))
        for i in range(self.count):
            # A build tree under /tmp is put back where the node's own /tmp hides it.
            self.daemon(*self.inside(i, f"dn{i}", f"exec 9<{build}; mount -t tmpfs tmpfs /tmp; "
                                     f"mkdir -p {build}; "
                                     f"mount --no-canonicalize --bind /proc/self/fd/9 {build}; "
                                     "exec 9<&-; mount -t tmpfs tmpfs /dev/shm; "
                                     f"exec slurmd -D -f {self.configuration} -N dn{i}"))
        self.wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t").strip() == f"{self.count} idle",
                      "the nodes idle")

    def inside(self, node, name, script):
        # Not `ip netns exec`, which would hide the control groups.
        return ("nsenter", f"--net=/run/netns/{self.nodes.names[node]}", "unshare", "-m", "-u", "-i",
                "sh", "-c", f"hostname {name}; {script}")

    def daemon(self, *argv):
        log = open(f"{self.folder}/daemon{len(self.daemons)}.log", "w")
        self.daemons.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             env=self.environment(), start_new_session=True))
        log.close()

    def environment(self):
        return {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C",
                "SLURM_CONF": f"{self.folder}/slurm.conf", "HOME": self.folder}

    def argv(self, *words):
        """Words that run a Slurm command from the controller's node."""
        return ("nsenter", f"--net=/run/netns/{self.nodes.names[self.count]}", *words)

    def run(self, *words):
        return subprocess.run(self.argv(*words), env=self.environment(), capture_output=True,
                              text=True, timeout=20).stdout

    def wait_for(self, condition, what):
        end = time.monotonic() + 20
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"the cluster does not start: {what}; see {self.folder}")
            time.sleep(0.05)

    def close(self):
        for daemon in reversed(self.daemons):
            if daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait(timeout=5)
        self.daemons = []
        self.nodes.close()
