"""A real Slurm cluster of a few nodes on one machine, for slurm/testbed and the tests.

munged and slurmctld run in one network namespace (nodes.py), a slurmd in each of the others: nodes dn0, dn1,
... with a host name, /tmp, /dev/shm and System V memory of their own, as on machines of their own, and with
GPUs that are files. Everything that is written lies in one folder; the namespaces' names come from the
folder's path. So a process that knows the folder can end a cluster that another one started, or that a
crash left behind. Needs root and the Slurm daemons."""
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import time

import nodes

START_LIMIT_S = 20
FOLDER_MAX = 70  # slurmstepd's sockets lie beneath; a socket's path has 107 bytes
NODES_MAX, CPUS_MAX, GPUS_MAX = 32, 256, 16
CONTROLLER = "djctl"
RECORD = "testbed.json"
PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "srun": "slurm-wlm", "sinfo": "slurm-wlm",
            "munged": "munge", "ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux",
            "mount": "mount"}

CONFIGURATION = """
ClusterName=djinn
SlurmctldHost={controller}({controller_address})
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
SlurmdTimeout=5
MessageTimeout=5
TCPTimeout=2
KillWait=5
SchedulerParameters=sched_interval=1,bf_interval=1
{gres}
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class Failure(Exception):
    """A sentence for the user."""


def why_impossible():
    """A sentence, or None where a cluster can be raised."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name, package in PROGRAMS.items():
        if not shutil.which(name, path=search):
            return f"no {name} here: install the package {package} (scripts/setup --slurm does)"
    if os.geteuid() != 0:
        return "a cluster of network namespaces needs root: run this as root, or in a container that is"
    if not nodes.possible():
        return "this root may not make network namespaces: in a container it needs CAP_SYS_ADMIN and CAP_NET_ADMIN"
    return None


def possible():
    return why_impossible() is None


def beneath(path, folder):
    return os.path.commonpath([path, folder]) == folder


class Cluster:
    """One cluster in `folder`, up or not. `share`: further folders that every node shall see though they
    lie under /tmp."""

    def __init__(self, folder, count=3, cpus=4, gpus=0, share=()):
        self.folder = os.path.realpath(folder)
        if not re.fullmatch(r"[\w./+-]+", self.folder) or len(self.folder) > FOLDER_MAX:
            raise Failure(f"the folder {self.folder} will not do: Slurm wants a path of at most {FOLDER_MAX} plain "
                          "characters; name another")
        for name, value, limit in (("nodes", count, NODES_MAX), ("cpus", cpus, CPUS_MAX)):
            if not 1 <= value <= limit:
                raise Failure(f"{value} {name} will not do: 1 to {limit}")
        if not 0 <= gpus <= GPUS_MAX:
            raise Failure(f"{gpus} gpus will not do: 0 to {GPUS_MAX}")
        self.count, self.cpus, self.gpus = count, cpus, gpus
        self.share = [os.path.realpath(path) for path in (self.folder, *share)]
        self.configuration, self.home = f"{self.folder}/slurm.conf", f"{self.folder}/home"
        self.children = []
        name = "djt" + hashlib.sha256(self.folder.encode()).hexdigest()[:8]
        self.nodes = nodes.Nodes(count + 1, name, made=True)  # the last one is the controller's

    @classmethod
    def recorded(cls, folder):
        """The cluster that `folder` tells of; None when it tells of none."""
        try:
            with open(os.path.join(folder, RECORD)) as file:
                words = json.load(file)
            return cls(folder, words["count"], words["cpus"], words["gpus"], words["share"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # ---- up and down ----

    def up(self):
        """What an earlier cluster left in the folder is ended and removed first."""
        (self.recorded(self.folder) or self).down()
        try:
            self.write_files()
            self.nodes.make()
            self.start()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            log = self.first_error()
            self.stop()
            raise Failure(f"the cluster does not start: {error}{log}") from None
        except BaseException:
            self.stop()
            raise

    def down(self):
        """Ends every process on the nodes, the nodes, and removes what the cluster wrote."""
        self.stop()
        for name in sorted(os.listdir(self.folder)) if os.path.isdir(self.folder) else ():
            if re.fullmatch(r"state|home|dev|spool-dn\d+|slurm(ctld|d-dn\d+)?\.(conf|log|pid)|hosts|"
                            r"gres\.conf|munged?\.\w+|munge\.socket\.lock|daemon-\w+\.log", name):
                path = os.path.join(self.folder, name)
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        if os.path.exists(f"{self.folder}/{RECORD}"):
            os.unlink(f"{self.folder}/{RECORD}")

    def stop(self):
        self.nodes.close()
        for child in self.children:
            child.wait(timeout=nodes.END_LIMIT_S)
        self.children = []

    def remove(self):
        """The folder, too, with whatever else lies in it."""
        self.down()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write_files(self):
        os.makedirs(self.folder, exist_ok=True)
        with open(f"{self.folder}/{RECORD}", "w") as file:
            json.dump({"count": self.count, "cpus": self.cpus, "gpus": self.gpus, "share": self.share[1:]}, file)
        for name in ("state", "home", "dev", *(f"spool-{self.name(i)}" for i in range(self.count))):
            os.mkdir(f"{self.folder}/{name}")
        with open(os.open(f"{self.folder}/munge.key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(os.urandom(128))
        self.write_configuration()
        with open(f"{self.folder}/hosts", "w") as file:
            file.write("127.0.0.1 localhost\n")
            for i in range(self.count + 1):
                file.write(f"{self.nodes.addresses[i]} {self.name(i)}\n")

    def write_configuration(self):
        gres = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        lines = [f"NodeName={self.name(i)} NodeAddr={self.nodes.addresses[i]} CPUs={self.cpus}{gres} "
                 "State=UNKNOWN" for i in range(self.count)]
        with open(self.configuration, "w") as file:
            file.write(CONFIGURATION.format(
                folder=self.folder, nodes="\n".join(lines), gres="GresTypes=gpu" if self.gpus else "",
                controller=CONTROLLER, controller_address=self.nodes.addresses[self.count]))
        # Slurm wants a device, takes the number from its name and never opens it: these are /dev/null's.
        for i in range(self.gpus):
            os.mknod(f"{self.folder}/dev/nvidia{i}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        with open(f"{self.folder}/gres.conf", "w") as file:
            file.write("AutoDetect=off\n")
            if self.gpus:
                file.write(f"Name=gpu File={self.folder}/dev/nvidia[0-{self.gpus - 1}]\n")

    def start(self):
        self.daemon("munged", self.inside(
            self.count, f"exec munged --foreground --force --key-file={self.folder}/munge.key "
            f"--socket={self.folder}/munge.socket --pid-file={self.folder}/munged.pid "
            f"--log-file={self.folder}/munged.log --seed-file={self.folder}/munge.seed"))
        self.wait_for(lambda: os.path.exists(f"{self.folder}/munge.socket"), "munged has no socket")
        self.daemon("slurmctld", self.inside(self.count, f"exec slurmctld -D -c -f {self.configuration}"))
        for i in range(self.count):
            self.start_slurmd(i)
        self.wait_for(lambda: self.run("sinfo", "-h", "-o", "%D %t").strip() == f"{self.count} idle",
                      "its nodes are not idle")

    def start_slurmd(self, node):
        # What lies under /tmp and must be seen is held open, and put back over the node's own /tmp.
        shared = [path for path in self.share if beneath(path, "/tmp")]
        hold = "".join(f"exec {fd}<{shlex.quote(path)}; " for fd, path in enumerate(shared, 3))
        back = "".join(f"mkdir -p {shlex.quote(path)}; mount --no-canonicalize --bind /proc/self/fd/{fd} "
                       f"{shlex.quote(path)}; exec {fd}<&-; " for fd, path in enumerate(shared, 3))
        self.daemon(f"slurmd_{self.name(node)}", self.inside(
            node, f"{hold}mount -t tmpfs tmpfs /tmp; {back}mount -t tmpfs tmpfs /dev/shm; "
            f"exec slurmd -D -f {self.configuration} -N {self.name(node)}"))

    def inside(self, node, script):
        # Not `ip netns exec`, which would hide the control groups. Slave: what this machine unmounts later (other
        # namespaces among it) must not stay mounted here.
        return ("nsenter", f"--net={nodes.HELD}/{self.nodes.names[node]}", "unshare", "-m", "--propagation", "slave",
                "-u", "-i", "sh", "-c", f"hostname {self.name(node)}; {self.name_lookup()}{script}")

    def name_lookup(self):
        return f"test -f /etc/hosts && mount --bind {self.folder}/hosts /etc/hosts; "

    def daemon(self, name, argv):
        with open(f"{self.folder}/daemon-{name}.log", "w") as log:
            self.children.append(subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(), cwd="/",
                start_new_session=True))

    def first_error(self):
        """The first error of a daemon's log, in brackets."""
        for name in ("daemon-munged", "slurmctld", *(f"slurmd-{self.name(i)}" for i in range(self.count))):
            try:
                with open(f"{self.folder}/{name}.log", errors="replace") as file:
                    for line in file:
                        if re.search(r"error|fatal|cannot|not permitted", line, re.I):
                            return f" ({name}.log: {line.strip()[:300]})"
            except OSError:
                pass
        return f" (the logs are in {self.folder})"

    # ---- a cluster that is up ----

    def name(self, node):
        return CONTROLLER if node == self.count else f"dn{node}"

    def environment(self, base=None):
        """A login's, on the controller's node. Everybody is root here, which mpirun wants to be told."""
        base = base if base is not None else {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        kept = {name: value for name, value in base.items()
                if not re.match(r"(SLURM|SLURMD|SBATCH|SALLOC|PMI|PMIX|OMPI_COMM|MUNGE)_", name)}
        return dict(kept, PATH=base.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin",
                    SLURM_CONF=self.configuration, HOME=self.home, OMPI_ALLOW_RUN_AS_ROOT="1",
                    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

    def argv(self, *words):
        """Words that run a Slurm command from the controller's node."""
        return (*self.inside(self.count, 'exec "$@"'), "sh", *words)

    def node_argv(self, node, *words):
        """Words that run a command on a node beside its jobs: its names, its /tmp."""
        with open(f"{self.folder}/slurmd-{self.name(node)}.pid") as file:
            pid = file.read().strip()
        if not nodes.is_inside(pid, self.nodes.names[node]):
            raise Failure(f"node {self.name(node)} is down")
        return ("nsenter", "-t", pid, "-n", "-m", "-u", "-i", *words)

    def run(self, *words):
        return subprocess.run(self.argv(*words), env=self.environment(), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=20).stdout

    def wait_for(self, condition, what, limit_s=START_LIMIT_S):
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what} after {limit_s} s")
            time.sleep(0.02)

    def runs(self, node, program):
        """Whether a process of that name runs on the node."""
        return any(comm(pid) == program for pid in nodes.inhabitants(self.nodes.names[node]))

    def is_up(self):
        return self.runs(self.count, "slurmctld") and self.runs(self.count, "munged")

    def node_down(self, node):
        """As if the power were cut: nobody says goodbye."""
        self.nodes.link(node, "down")
        nodes.end_inhabitants(self.nodes.names[node])

    def node_up(self, node):
        self.nodes.link(node, "up")
        if not self.runs(node, "slurmd"):
            self.start_slurmd(node)
        self.wait_for(lambda: self.runs(node, "slurmd"), f"no slurmd on {self.name(node)}")
        # A node that Slurm gave up returns when it registers; `resume` only hastens it.
        self.wait_for(lambda: self.run("sinfo", "-h", "-n", self.name(node), "-o", "%t").strip() in
                      ("idle", "mix", "alloc", "comp"), f"{self.name(node)} is not back")


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""
