"""djinn doctor: every check on a machine that is well and on one that is not. Machines are played: files
below a root of their own, programs in a PATH of their own, limits, and namespaces."""
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

import harness
from harness import BIN, until

DJINN, RUN = (os.path.join(BIN, name) for name in ("djinn", "djinn-run"))
FAKE_DRIVER = os.path.join(BIN, "fake_driver")
ORDER = ["ok", "warn", "fail"]
# Checks that judge nothing: they only tell.
TELLING = {"huge-pages", "container", "governor"}

CGROUP2 = "0::/job_7/step_0\n"
MOUNTS2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
SCONTROL = """#!/bin/sh
cat <<END
Configuration data as of 2026-01-01
AuthType                = auth/munge
ClusterName             = boreas
MpiDefault              = {default}
PropagateResourceLimits = {carried}
PropagateResourceLimitsExcept = {excepted}
SLURM_VERSION           = 23.11.4
{more}
END
"""


def scontrol(default="none", carried="ALL", excepted="(null)", more=""):
    return SCONTROL.format(default=default, carried=carried, excepted=excepted, more=more)


def forbid_process_vm_readv():
    """A seccomp filter for this process and its children: the call answers EPERM."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 310, "aarch64": 270}[os.uname().machine]
    steps = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, number, 0x06, 0, 0, 0x00050001,
                        0x06, 0, 0, 0x7fff0000)
    held = ctypes.create_string_buffer(steps)
    program = struct.pack("HxxxxxxP", 4, ctypes.addressof(held))
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.c_char_p(program)) != 0:
        os._exit(77)


class Patient:
    """A machine to look at: what differs from an empty one."""

    def __init__(self, home, env):
        self.home, self.root = home, os.path.join(home, "root")
        self.programs = os.path.join(home, "programs")
        self.env = dict(env, PATH=self.programs + ":/usr/bin:/bin", HOME="/home/ada")
        self.words, self.before, self.limits = [], [], {}
        os.makedirs(self.programs)
        os.makedirs(self.root + "/home/ada")
        os.makedirs(self.root + "/dev/shm")

    def path(self, name):
        return self.root + name

    def put(self, name, text="", mode=0o644):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as file:
            file.write(text)
        os.chmod(self.path(name), mode)

    def folder(self, name, mode=0o755):
        os.makedirs(self.path(name), exist_ok=True)
        os.chmod(self.path(name), mode)

    def program(self, name, script):
        path = os.path.join(self.programs, name)
        with open(path, "w") as file:
            file.write(script)
        os.chmod(path, 0o755)

    def alone(self):
        """No program but those that were put there."""
        self.env["PATH"] = self.programs

    def say(self, *words, **env):
        self.words += words
        self.env.update(env)

    def limit(self, what, soft, hard=None):
        self.limits[what] = (soft, soft if hard is None else hard)

    def inside(self, flags, script=""):
        """In new namespaces, after a few lines of shell."""
        own = [] if os.geteuid() == 0 else ["-r"]
        self.before = ["unshare", *own, flags, "/bin/sh", "-c",
                       f"PATH=$PATH:/usr/sbin:/sbin; set -e; {script} exec \"$@\"", "sh"]

    def cgroup(self, **files):
        self.put("/proc/self/cgroup", CGROUP2)
        self.put("/proc/self/mountinfo", MOUNTS2)
        for name, value in files.items():
            self.put("/sys/fs/cgroup/job_7/" + name.replace("_", ".", 1), str(value) + "\n")

    def cgroup1(self, controller, mount_root="/", **files):
        self.put("/proc/self/cgroup", f"9:name=x:/\n4:{controller},other:/docker/abc\n0::/\n")
        self.put("/proc/self/mountinfo", MOUNTS2 + f"31 23 0:27 {mount_root} /sys/fs/cgroup/c rw - "
                 f"cgroup cgroup rw,{controller},other\n")
        below = "" if mount_root != "/" else "/docker/abc"
        for name, value in files.items():
            self.put(f"/sys/fs/cgroup/c{below}/" + name.replace("_", ".", 1), str(value) + "\n")

    def gpu(self, fake="", library=True, nodes=("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1")):
        self.put("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  "
                 "535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc version 12.2.0\n")
        for node in nodes:
            self.put("/dev/" + node, mode=0o666)
        self.env["FAKE_GPU"] = fake
        if library:
            self.env["LD_LIBRARY_PATH"] = FAKE_DRIVER

    def rdma(self, state="4: ACTIVE", node=True):
        self.put("/sys/class/infiniband/mlx5_0/ports/1/state", state + "\n")
        self.put("/sys/class/infiniband/mlx5_0/ports/1/rate", "400 Gb/sec (4X NDR)\n")
        if node:
            self.put("/dev/infiniband/uverbs0", mode=0o666)

    def no_pmix(self):
        broken = os.path.join(self.home, "broken")
        os.makedirs(broken)
        with open(broken + "/libpmix.so.2", "w") as file:
            file.write("not a library")
        self.env["LD_LIBRARY_PATH"] = broken

    def python(self, answer):
        self.program("python3", "#!/bin/sh\ncat <<END\npython=3.11.2\nexecutable=/usr/bin/python3\n"
                     + answer + "END\n")


def mount(kind, at="/models"):
    return f"40 23 0:50 / / rw - ext4 /dev/vda1 rw\n41 40 0:51 / {at} rw - {kind} there:/x rw\n"


def weights(patient, kind, *words, **env):
    patient.folder("/models")
    patient.put("/proc/self/mountinfo", mount(kind))
    patient.say("--model-roots", "/models", *words, **env)


def slurm(patient, mpi="echo 'MPI plugin types are...'; echo '        none'", **config):
    patient.program("scontrol", scontrol(**config))
    patient.program("srun", f"#!/bin/sh\n{mpi}\n")


def stays_alone(patient):
    patient.alone()


# A network of one's own: loopback and an interface.
VETH = ("hostname alone.invalid; ip link set lo up; ip link add va type veth peer name vb; "
        "ip addr add 10.9.9.1/24 dev va; ip link set va up; ip link set vb up;")
GIB = 1 << 30
MOST_LOCKED = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
# check, verdict, what its text says, what its next step says, how the machine is made so
CASES = [
    ("ucx", "fail", "finds no tcp", "interface up", lambda p: p.inside("-n")),
    ("ucx-settings", "ok", "no UCX", "", lambda p: None),
    ("ucx-settings", "warn", "UCX_RNDV_THRESH=8K", "unset", lambda p: p.say(UCX_RNDV_THRESH="8K")),
    ("ucx-settings", "fail", "forbids tcp", "add tcp", lambda p: p.say(UCX_TLS="rc,self\n\x1b[1m")),
    ("ucx-settings", "fail", "mlx5_9, which is not here", "UCX_NET_DEVICES",
     lambda p: (p.rdma(), p.say(UCX_NET_DEVICES="mlx5_0:1,mlx5_9:1"))),
    ("ucx-settings", "warn", "mlx5_0:1", "", lambda p: (p.rdma(), p.say(UCX_NET_DEVICES="mlx5_0:1"))),

    ("programs", "ok", "djinn-rank \\d", "", lambda p: None),
    ("programs", "fail", "djinn-rank --version ends with status 0", "one version",
     lambda p: p.say("--rank-program", "/bin/true")),
    ("programs", "fail", "djinn-rank is missing", "--rank-program",
     lambda p: p.say("--rank-program", "/no/such/rank")),

    ("torch", "info", "no python3", "", stays_alone),
    ("torch", "info", "no torch in Python 3.11.2", "", lambda p: p.python("")),
    ("torch", "info", "no package djinn", "", lambda p: p.python("torch=2.13.0+cpu\n")),
    ("torch", "fail", "built for torch 2.13.0, and this is 2.9.1", "pip install",
     lambda p: p.python("torch=2.9.1\nfrontend=/x/djinn\nbuilt=2.13.0\nshim=fits\n")),
    ("torch", "ok", "torch 2.13.1.*built for torch 2.13.0", "",
     lambda p: p.python("torch=2.13.1\nfrontend=/x/djinn\nbuilt=2.13.0\nshim=fits\n")),
    ("torch", "fail", "no shim for Python 3.11.2.*cpython-312", "built for",
     lambda p: p.python("torch=2.13.0\nfrontend=/x\nshim=_C.cpython-312-x86_64-linux-gnu.so\n")),
    ("torch", "warn", "wants CUDA 13.0, but the driver has 12.4", "update the driver",
     lambda p: (p.gpu(), p.python("torch=2.13.0\ncuda=13.0\n"))),
    ("torch", "warn", "ends with an error: No module named boom", "by hand",
     lambda p: p.program("python3", "#!/bin/sh\necho 'No module named boom' >&2; exit 1\n")),
    ("torch", "warn", "does not answer within 2 s", "slow file system",
     lambda p: p.program("python3", "#!/bin/sh\nexec sleep 60\n")),

    ("gpu-devices", "info", "no GPU", "", lambda p: None),
    ("gpu-devices", "ok", "2 GPUs can be opened", "", lambda p: p.gpu()),
    ("gpu-devices", "warn", "1 NVIDIA device is on the bus", "modprobe",
     lambda p: (p.put("/sys/bus/pci/devices/0000:07:00.0/vendor", "0x10de\n"),
                p.put("/sys/bus/pci/devices/0000:07:00.0/class", "0x030200\n"),
                p.put("/sys/bus/pci/devices/0000:08:00.0/vendor", "0x10de\n"),
                p.put("/sys/bus/pci/devices/0000:08:00.0/class", "0x068000\n"))),
    ("gpu-devices", "fail", "nvidia-uvm is missing", "nvidia-modprobe",
     lambda p: p.gpu(nodes=("nvidiactl", "nvidia0"))),
    ("gpu-devices", "warn", "no /dev/nvidia0", "--gpus", lambda p: p.gpu(nodes=("nvidiactl",))),

    ("gpu-driver", "info", "no driver", "", lambda p: None),
    ("gpu-driver", "ok", "driver 535.129.03, CUDA 12.4, 2 GPUs", "", lambda p: p.gpu()),
    ("gpu-driver", "ok", "exclusive mode", "", lambda p: p.gpu("mode=3")),
    ("gpu-driver", "fail", "libcuda.so.1", "--nv", lambda p: p.gpu(library=False)),
    ("gpu-driver", "fail", "cuInit answers 803", "reboot", lambda p: p.gpu("init=803")),
    ("gpu-driver", "fail", "cuInit answers 802", "fabricmanager", lambda p: p.gpu("init=802")),
    ("gpu-driver", "fail", "prohibited", "nvidia-smi -c 0", lambda p: p.gpu("mode=2")),
    ("gpu-driver", "fail", "crashes", "nvidia-smi", lambda p: p.gpu("crash=1")),
    ("gpu-driver", "warn", "not start within 2 s", "persistence", lambda p: p.gpu("hang=1")),

    ("gpu-memory", "info", "no GPU", "", lambda p: None),
    ("gpu-memory", "warn", "staging, because.*dma-buf no", "with-cuda", lambda p: p.gpu()),
    ("gpu-memory", "warn", "dma-buf yes, GPUDirect RDMA yes, of VMM memory no; nvidia_peermem loaded",
     "", lambda p: (p.gpu("dmabuf=1,rdma=1"), p.rdma(), p.folder("/sys/module/nvidia_peermem"))),

    ("gpu-health", "info", "no GPU", "", lambda p: None),
    ("gpu-health", "ok", "2 GPUs without", "", lambda p: p.gpu()),
    ("gpu-health", "info", "does not answer", "", lambda p: p.gpu("nvml=9")),
    ("gpu-health", "warn", "6 memory errors", "Xid", lambda p: p.gpu("ecc=3")),
    ("gpu-health", "warn", "2 GPUs wait for a reset", "reset", lambda p: p.gpu("pending=1")),
    ("gpu-health", "fail", "1 GPU could not replace", "replaced",
     lambda p: p.gpu("failed=1,devices=1")),

    ("shared-memory", "ok", "MiB left", "", lambda p: None),
    ("shared-memory", "fail", "cannot be used: No such file", "tmpfs",
     lambda p: os.rmdir(p.path("/dev/shm"))),
    ("shared-memory", "warn", "1 MiB left", "--shm-size",
     lambda p: p.inside("-m", f"mount -t tmpfs -o size=1m none {p.path('/dev/shm')};")),

    ("cma", "ok", "may read", "", lambda p: None),
    ("cma", "warn", "ptrace_scope is 1", "sysctl",
     lambda p: p.put("/proc/sys/kernel/yama/ptrace_scope", "1\n")),

    ("huge-pages", "ok", "always", "",
     lambda p: p.put("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")),
    ("huge-pages", "info", "never", "",
     lambda p: p.put("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n")),

    ("numa-balancing", "warn", "2 memory nodes", "sysctl",
     lambda p: (p.put("/proc/sys/kernel/numa_balancing", "1\n"),
                p.folder("/sys/devices/system/node/node0"),
                p.folder("/sys/devices/system/node/node1"))),
    ("numa-balancing", "ok", "1 memory node;", "",
     lambda p: (p.put("/proc/sys/kernel/numa_balancing", "1\n"),
                p.folder("/sys/devices/system/node/node0"))),

    ("open-files", "fail", "64 files", "hard limit", lambda p: p.limit(resource.RLIMIT_NOFILE, 64)),
    ("open-files", "warn", "1000 files", "LimitNOFILE",
     lambda p: p.limit(resource.RLIMIT_NOFILE, 1000)),
    ("open-files", "warn", "64 files.*clients do not", "ulimit -n",
     lambda p: p.limit(resource.RLIMIT_NOFILE, 64, 8192)),
    ("open-files", "ok", "1024 files.*hard limit, 8192", "",
     lambda p: p.limit(resource.RLIMIT_NOFILE, 1024, 8192)),

    ("locked-memory", "ok", "64 KiB.*no RDMA", "",
     lambda p: p.limit(resource.RLIMIT_MEMLOCK, 65536)),
    ("locked-memory", "fail", "64 KiB of memory may be locked", "administrator",
     lambda p: (p.rdma(), p.limit(resource.RLIMIT_MEMLOCK, 65536))),
    *([("locked-memory", "warn", "hard limit 1048576", "limits.conf",
        lambda p: (p.rdma(), p.limit(resource.RLIMIT_MEMLOCK, 65536, GIB)))]
      if MOST_LOCKED == resource.RLIM_INFINITY or MOST_LOCKED >= GIB else []),

    ("processes", "ok", "5000 processes", "", lambda p: p.cgroup(pids_max=5000)),
    ("processes", "warn", "512 processes.*by cgroup /sys/fs/cgroup/job_7", "pids-limit",
     lambda p: p.cgroup(pids_max=512)),
    ("processes", "ok", "^5000 processes", "",
     lambda p: (p.cgroup(pids_max=6000), p.limit(resource.RLIMIT_NPROC, 5000))),
    ("processes", "fail", "64 processes", "TasksMax",
     lambda p: p.cgroup1("pids", pids_max=64)),

    ("cgroup-memory", "ok", "no cgroup", "", lambda p: None),
    ("cgroup-memory", "ok", "no cgroup", "", lambda p: p.cgroup(memory_max="max")),
    ("cgroup-memory", "ok", "32768 MiB", "", lambda p: p.cgroup(memory_max=32 * GIB)),
    ("cgroup-memory", "warn", "allows 4096 MiB.*16384 MiB of weights", "--mem",
     lambda p: p.cgroup(memory_max=4 * GIB)),
    ("cgroup-memory", "warn", "cgroup /sys/fs/cgroup/job_7 allows 4096", "",  # the lowest counts
     lambda p: (p.cgroup(memory_max=4 * GIB),
                p.put("/sys/fs/cgroup/job_7/step_0/memory.max", f"{32 * GIB}\n"))),
    ("cgroup-memory", "warn", "cgroup /sys/fs/cgroup/job_7/step_0 allows 2048", "",
     lambda p: (p.cgroup(memory_max=4 * GIB),
                p.put("/sys/fs/cgroup/job_7/step_0/memory.max", f"{2 * GIB}\n"))),
    ("cgroup-memory", "ok", "4096 MiB", "",
     lambda p: (p.cgroup(memory_max=4 * GIB), p.say("--text-bytes", "2G"))),
    ("cgroup-memory", "fail", "96 MiB of memory are left of the 4096", "--text-bytes",
     lambda p: p.cgroup(memory_max=4 * GIB, memory_current=4000 << 20)),
    ("cgroup-memory", "warn", "memory.high.*heartbeats", "",
     lambda p: p.cgroup(memory_max=32 * GIB, memory_high=20 * GIB)),
    ("cgroup-memory", "warn", "allows 2048 MiB", "",
     lambda p: p.cgroup1("memory", memory_limit_in_bytes=2 * GIB)),
    ("cgroup-memory", "warn", "allows 2048 MiB", "",  # a container sees its own at the top
     lambda p: p.cgroup1("memory", "/docker/abc", memory_limit_in_bytes=2 * GIB)),
    ("cgroup-memory", "ok", "no cgroup", "",
     lambda p: p.cgroup1("memory", memory_limit_in_bytes=9223372036854771712)),

    ("cgroup-cpus", "ok", "cores, and all", "", lambda p: p.cgroup(cpu_max="max 100000")),
    ("cgroup-cpus", "warn", "0.50 cores", "--threads 1", lambda p: p.cgroup(cpu_max="50000 100000")),
    ("cgroup-cpus", "warn", "0.25 cores", "",
     lambda p: p.cgroup1("cpu", cpu_cfs_quota_us=25000, cpu_cfs_period_us=100000)),
    ("cgroup-cpus", "ok", "all of their time", "",
     lambda p: p.cgroup1("cpu", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)),

    ("kernel", "ok", "6.1.0", "", lambda p: p.put("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")),
    ("kernel", "fail", "4.18.0.*pidfd_open", "Debian 12",
     lambda p: p.put("/proc/sys/kernel/osrelease", "4.18.0-553.el8\n")),
    ("kernel", "warn", "5.10.0.*close_range", "",
     lambda p: p.put("/proc/sys/kernel/osrelease", "5.10.0-28-amd64\n")),
    ("container", "ok", "no container", "", lambda p: None),
    ("container", "info", "a Docker container", "", lambda p: p.put("/.dockerenv")),
    ("container", "info", "an Apptainer container", "", lambda p: p.say(APPTAINER_CONTAINER="/x.sif")),
    ("governor", "info", "nothing tells", "", lambda p: None),
    ("governor", "info", "1 of 1 cores is powersave", "",
     lambda p: p.put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")),

    ("interfaces", "fail", "loopback interface is down", "lo up", lambda p: p.inside("-n")),
    ("interfaces", "info", "no network interface but", "",
     lambda p: p.inside("-n", "ip link set lo up;")),
    ("interfaces", "warn", "va 10.9.9.1 .100 Mbit.*slow", "--listen",
     lambda p: (p.put("/sys/class/net/va/speed", "100\n"),
                p.inside("-nu", VETH))),
    ("interfaces", "ok", "va 10.9.9.1 .25000 Mbit/s.; rank 0 .* at 10.9.9.1:0", "",
     lambda p: (p.put("/sys/class/net/va/speed", "25000\n"),
                p.inside("-nu", VETH))),
    ("host-name", "info", "localhost stands for 127.0.0.1", "--listen|^$",
     lambda p: p.inside("-nu", "hostname localhost; ip link set lo up;")),
    ("host-name", "warn", "our own name nowhere.invalid:", "/etc/hosts",
     lambda p: p.inside("-nu", "hostname nowhere.invalid; ip link set lo up;")),

    ("listen", "fail", "203.0.113.9:0 is no address of this machine", "ip address",
     lambda p: p.say("--listen", "203.0.113.9:0")),
    ("listen", "fail", "no address; it takes host:port", "host:port",
     lambda p: p.say("--listen", "nonsense")),
    ("listen", "ok", "127.0.0.1:0", "", lambda p: None),
    ("listen", "ok", "^127.0.0.1:0 and 10.9.9.1:0 can be", "", lambda p: p.inside("-nu", VETH)),
    ("listen", "ok", "^127.0.0.1:7321 is free", "",
     lambda p: (p.inside("-nu", VETH), p.say("--listen", "127.0.0.1:7321"))),
    ("ports", "ok", "32768 to 60999", "",
     lambda p: p.put("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")),
    ("ports", "warn", "only the ports 60000 to 60999", "sysctl",
     lambda p: p.put("/proc/sys/net/ipv4/ip_local_port_range", "60000\t60999\n")),
    ("firewall", "ok", "no sign", "", lambda p: None),
    ("firewall", "warn", "firewalld", "ports", lambda p: p.folder("/run/firewalld")),
    ("firewall", "warn", "ufw", "", lambda p: p.put("/etc/ufw/ufw.conf", "# x\nENABLED=yes\n")),
    ("firewall", "warn", "iptables", "", lambda p: p.put("/proc/net/ip_tables_names", "filter\n")),
    ("firewall", "info", "nf_tables", "", lambda p: p.folder("/sys/module/nf_tables")),
    ("rdma", "info", "no RDMA device", "", lambda p: None),
    ("rdma", "ok", "mlx5_0:1 ACTIVE 400 Gb/sec", "", lambda p: p.rdma()),
    ("rdma", "warn", "no port is active: mlx5_0:1 DOWN", "cable", lambda p: p.rdma("1: DOWN")),
    ("rdma", "warn", "no /dev/infiniband/uverbs", "ib_uverbs", lambda p: p.rdma(node=False)),

    ("launcher", "ok", "no launcher.*pmix .PMIX_NAMESPACE: not set.*open mpi .*not set.*slurm .*not set",
     "", lambda p: None),
    ("launcher", "fail", "PMIX_NAMESPACE is set, but there is no PMIx", "libpmix.so.2",
     lambda p: (p.no_pmix(), p.say(PMIX_NAMESPACE="x"))),
    ("launcher", "ok", "pmix started this, because PMIX_NAMESPACE", "",
     lambda p: p.say(PMIX_NAMESPACE="x", OMPI_COMM_WORLD_RANK="0")),
    ("launcher", "fail", "OMPI_COMM_WORLD_SIZE is ''", "unset", lambda p: p.say(OMPI_COMM_WORLD_RANK="0")),
    ("launcher", "ok", "slurm started this", "",
     lambda p: p.say(SLURM_STEP_ID="0", SLURM_PROCID="1", SLURM_LOCALID="0", SLURM_NODEID="1",
                     SLURM_STEP_NUM_TASKS="2", SLURM_STEP_TASKS_PER_NODE="1(x2)")),
    ("launcher", "fail", "SLURM_PROCID is '7x'", "new one",
     lambda p: p.say(SLURM_STEP_ID="0", SLURM_PROCID="7x", SLURM_STEP_NUM_TASKS="2")),
    ("launcher", "warn", "a job of 3 nodes, but no step", "srun",
     lambda p: p.say(SLURM_JOB_NUM_NODES="3", SLURM_PROCID="0")),
    ("launcher", "fail", "PMI alone", "srun", lambda p: p.say(PMI_RANK="2")),

    ("pmix", "warn", "no PMIx: libpmix.so.2 cannot|no PMIx: .*libpmix.so.2", "libpmix2",
     lambda p: p.no_pmix()),
    ("open-mpi", "info", "no mpirun", "", stays_alone),
    ("open-mpi", "ok", "Open MPI. 5.0.2", "",
     lambda p: p.program("mpirun", "#!/bin/sh\necho 'mpirun (Open MPI) 5.0.2'\n")),
    ("open-mpi", "warn", "not Open MPI's .HYDRA build", "module load",
     lambda p: p.program("mpirun", "#!/bin/sh\necho 'HYDRA build details:'\n")),
    ("open-mpi", "warn", "status 3: broken", "",
     lambda p: p.program("mpirun", "#!/bin/sh\necho broken; exit 3\n")),

    ("slurm", "info", "no Slurm here", "", stays_alone),
    ("slurm", "ok", "Slurm 23.11.4, cluster boreas", "", lambda p: slurm(p)),
    ("slurm", "warn", "status 1: slurm_load_ctl: unable to contact", "slurmctld",
     lambda p: p.program("scontrol", "#!/bin/sh\necho 'slurm_load_ctl: unable to contact'; exit 1\n")),
    ("slurm", "fail", "status 1", "/run/munge",
     lambda p: (p.program("scontrol", "#!/bin/sh\nexit 1\n"), p.say(SLURM_JOB_ID="7"))),
    ("slurm-mpi", "info", "no Slurm", "", stays_alone),
    ("slurm-mpi", "warn", "no pmix; MpiDefault is none", "--mpi=none", lambda p: slurm(p)),
    ("slurm-mpi", "ok", "write srun --mpi=pmix", "",
     lambda p: slurm(p, "echo '  none'; echo '  pmix_v4' >&2")),
    ("slurm-mpi", "ok", "MpiDefault is pmix", "", lambda p: slurm(p, "echo pmix", default="pmix_v4")),
    ("slurm-mpi", "warn", "does not answer: oops", "", lambda p: slurm(p, "echo oops; exit 1")),
    ("slurm-limits", "warn", "64 KiB of locked memory", "ulimit -l",
     lambda p: (slurm(p), p.limit(resource.RLIMIT_MEMLOCK, 65536))),
    ("slurm-limits", "ok", "carries no limit", "",
     lambda p: (slurm(p, carried="(null)", excepted="MEMLOCK,NOFILE"),
                p.limit(resource.RLIMIT_MEMLOCK, 65536))),
    ("slurm-limits", "ok", "no limit", "",
     lambda p: (slurm(p, carried="NONE"), p.limit(resource.RLIMIT_MEMLOCK, 65536))),
    ("munge", "info", "no munge in PATH", "", stays_alone),
    ("munge", "ok", "gives credentials", "",
     lambda p: p.program("munge", "#!/bin/sh\necho MUNGE:AwQDAAB:\n")),
    ("munge", "warn", "no credential: munge: Error: .*socket.2 is not there", "systemctl",
     lambda p: p.program("munge", "#!/bin/sh\necho 'munge: Error: no socket'; exit 6\n")),
    ("munge", "warn", "no credential.*Slurm answers all the same", "bind /run/munge",
     lambda p: (slurm(p), p.program("munge", "#!/bin/sh\necho 'munge: Error'; exit 6\n"))),
    ("munge", "ok", "Slurm's own munged", "",
     lambda p: (slurm(p, more="AuthInfo = cred_expire=9,socket=/x/own.socket,ttl=3"),
                p.program("munge", "#!/bin/sh\n[ \"$3\" = /x/own.socket ] && echo MUNGE:x: || exit 6\n"))),
    ("munge", "fail", "no credential", "bind /run/munge",
     lambda p: (p.program("scontrol", "#!/bin/sh\nexit 1\n"), p.say(SLURM_JOB_ID="7"),
                p.program("munge", "#!/bin/sh\necho 'munge: Error'; exit 6\n"))),
    ("munge", "warn", "though this is a job of Slurm", "PATH",
     lambda p: (p.alone(), p.say(SLURM_JOB_ID="7"))),

    ("home", "ok", "can be made", "", lambda p: None),
    ("home", "fail", "does not exist", "set HOME", lambda p: p.say(HOME="/home/nobody")),
    ("home", "warn", "mode 755", "chmod 700", lambda p: p.folder("/home/ada/.djinn", 0o755)),
    ("home", "fail", "token file has mode 644", "chmod 600",
     lambda p: (p.folder("/home/ada/.djinn", 0o700), p.put("/home/ada/.djinn/token", "0a" * 32))),
    ("home", "ok", "is private, on nfs4 .shared.", "",
     lambda p: (p.folder("/home/ada/.djinn", 0o700), p.put("/home/ada/.djinn/token", mode=0o600),
                p.put("/proc/self/mountinfo", mount("nfs4", "/home")))),
    ("weights", "ok", "/models is lustre .shared.", "", lambda p: weights(p, "lustre")),
    ("weights", "ok", "/models is xfs .local.", "", lambda p: weights(p, "xfs")),
    ("weights", "warn", "/models is xfs .local.; in a job of several nodes", "shared file system",
     lambda p: weights(p, "xfs", SLURM_JOB_NUM_NODES="4")),
    ("weights", "ok", "gpfs", "", lambda p: weights(p, "gpfs", SLURM_JOB_NUM_NODES="4")),
    ("weights", "ok", "/a b is beegfs .shared.", "",
     lambda p: (p.folder("/a b"), p.put("/proc/self/mountinfo", mount("beegfs", "/a\\040b")),
                p.say("--model-roots", "/a b"))),
    ("weights", "fail", "/scratch/models: No such file", "--model-roots",
     lambda p: p.say("--model-roots", "/scratch/models")),
    ("weights", "fail", "is no folder", "",
     lambda p: (p.put("/models"), p.say("--model-roots", "/models"))),
]
# Played below by real servers, or by test_doctor.c where no machine can be made so.
ELSEWHERE = {"path", "ranks", "clock"}


class DoctorTest(harness.LaunchTest):
    foreign = True

    def patient(self):
        return Patient(self.home, self.env)

    def examine(self, patient, *words, djinn=DJINN):
        def limit():
            for what, values in patient.limits.items():
                resource.setrlimit(what, values)
        done = subprocess.run([*patient.before, djinn, "doctor", "--json", "--root", patient.root,
                               *words, *patient.words], env=patient.env, preexec_fn=limit,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=harness.LIMIT_S)
        self.assertEqual(done.stderr, "")
        return self.read(done)

    def read(self, done):
        """The checks by name; the object is as docs/doctor.md has it."""
        found = json.loads(done.stdout)
        self.assertEqual(found["schema"], 1)
        self.assertEqual(set(found), {"schema", "djinn", "host", "verdict", "ms", "counts", "checks"})
        verdicts = [check["verdict"] for check in found["checks"]]
        worst = max([v for v in verdicts if v != "info"] + ["ok"], key=ORDER.index)
        self.assertEqual(found["verdict"], worst)
        self.assertEqual(done.returncode, worst == "fail")
        self.assertEqual({v: verdicts.count(v) for v in ["info", "ok", "warn", "fail"]},
                         found["counts"])
        for check in found["checks"]:
            self.assertEqual(set(check), {"name", "group", "verdict", "text", "next", "ms"})
            self.assertNotEqual(check["text"], "")
            self.assertEqual(check["verdict"] in ("ok", "info"), check["next"] == "", check)
            self.assertTrue(check["text"].isprintable(), check)
        return {check["name"]: check for check in found["checks"]}

    def names(self):
        return [line.split()[0] for line in self.finish(DJINN, "doctor", "--list")[1].splitlines()]


class Cases(DoctorTest):
    def test_every_case(self):
        for number, (name, verdict, text, following, make) in enumerate(CASES):
            with self.subTest(check=name, verdict=verdict, text=text):
                home = os.path.join(self.home, str(number))
                os.makedirs(home)
                patient = Patient(home, self.env)
                make(patient)
                if patient.before and os.geteuid() != 0:
                    continue
                found = self.examine(patient, "--only", name)
                self.assertEqual(list(found), [name])
                self.assertRegex(found[name]["text"], text)
                self.assertEqual(found[name]["verdict"], verdict, found)
                self.assertRegex(found[name]["next"], following or "^")

    def test_every_check_is_seen_ill(self):
        ill = {name for name, verdict, *_ in CASES if verdict in ("warn", "fail")}
        self.assertEqual(set(self.names()) - ill - TELLING, ELSEWHERE)
        self.assertEqual({name for name, *_ in CASES} | ELSEWHERE, set(self.names()))


class Words(DoctorTest):
    def test_wrong_use(self):
        for words in (["nonsense"], ["--no-such"], ["--json", "x"], ["--only"], ["--only", "nothing"],
                      ["--root"], ["--only", "ucx"] * 33, ["--"], ["--listen"]):
            with self.subTest(words=words):
                code, out, err = self.finish(DJINN, "doctor", *words)
                self.assertEqual((code, out), (2, ""))
                self.assertRegex(err, "^djinn: .+\n$")

    def test_list_and_help(self):
        names = self.names()
        groups = {line.split()[1] for line in
                  self.finish(DJINN, "doctor", "--list")[1].splitlines()}
        self.assertEqual(len(names), len(set(names) - groups))
        self.assertIn("munge", names)
        for words in (["--help"], ["--json", "--help"]):
            code, out, err = self.finish(DJINN, "doctor", *words)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("--only NAME", out)

    def test_only_takes_checks_and_groups(self):
        patient = self.patient()
        found = self.examine(patient, "--only", "limits", "--only", "cma")
        self.assertEqual(list(found), ["cma", "open-files", "locked-memory", "processes",
                                       "cgroup-memory", "cgroup-cpus"])

    def test_words_between_options(self):
        patient = self.patient()
        patient.say("--listen", "203.0.113.9:0", "--only", "listen", "--text-bytes=1G", "--quick")
        self.assertEqual(self.examine(patient)["listen"]["verdict"], "fail")

    def test_lines_for_people(self):
        code, out, err = self.finish(DJINN, "doctor", "--only", "limits", "--only", "launch")
        self.assertEqual((code, err), (0, ""))
        lines = out.splitlines()
        self.assertRegex(lines[0], "^(ok  |info|warn)  open-files      ")
        self.assertRegex(lines[-1], r"^\d+ ok, \d+ info, \d+ warn, 0 fail$")

    def test_quick_starts_nothing(self):
        patient = self.patient()
        for name in ("srun", "scontrol", "munge", "mpirun", "python3"):
            patient.program(name, f"#!/bin/sh\ntouch {self.home}/was-started\n")
        found = self.examine(patient, "--quick")
        self.assertEqual(list(found), self.names())
        self.assertEqual(found["munge"]["verdict"], "info")
        self.assertFalse(os.path.exists(self.home + "/was-started"))

    def test_nothing_is_left_in_a_home(self):
        self.assertEqual(self.finish(DJINN, "doctor")[0], 0)
        self.assertEqual(os.listdir(self.home), [])


class Asking(DoctorTest):
    """Programs that are asked: none is waited for, believed or left running."""

    def test_hanging_programs_cost_two_seconds_together(self):
        patient = self.patient()
        for name in ("srun", "scontrol", "munge", "mpirun", "python3"):
            patient.program(name, f"#!/bin/sh\nsleep 60 &\necho $! >> {self.home}/pids\n"
                            f"echo $$ >> {self.home}/pids\nwait\n")
        began = time.monotonic()
        found = self.examine(patient)
        took = time.monotonic() - began
        print(f"five programs that hang: {took:.2f} s", file=sys.stderr)
        self.assertLess(took, 6)
        self.assertRegex(found["munge"]["text"], "does not end within 2 s")
        self.assertRegex(found["torch"]["text"], "does not answer within 2 s")
        self.assertRegex(found["slurm"]["text"], "does not end within 2 s")
        with open(self.home + "/pids") as file:
            pids = file.read().split()
        self.assertEqual(len(pids), 10)
        self.assert_gone(pids)

    def test_what_a_program_leaves_running_is_ended(self):
        patient = self.patient()
        patient.program("mpirun", f"#!/bin/sh\nsleep 60 &\necho $! > {self.home}/pid\n"
                        "echo 'mpirun (Open MPI) 4.1.4'\n")
        began = time.monotonic()
        self.assertEqual(self.examine(patient, "--only", "open-mpi")["open-mpi"]["verdict"], "ok")
        self.assertLess(time.monotonic() - began, 1.9)
        with open(self.home + "/pid") as file:
            self.assert_gone([file.read()])

    def test_a_program_that_never_stops_talking(self):
        patient = self.patient()
        patient.program("mpirun", "#!/bin/sh\nexec yes\n")
        found = self.examine(patient, "--only", "open-mpi")["open-mpi"]
        self.assertRegex(found["text"], "does not end")

    def test_nonsense_is_told_printably(self):
        patient = self.patient()
        patient.program("mpirun", "#!/bin/sh\nhead -c 100000 /dev/urandom\n")
        patient.program("scontrol", "#!/bin/sh\nprintf 'ClusterName=\\033[2J\\000%%s%%n\\n'\n")
        patient.program("python3", "#!/bin/sh\nprintf 'torch=%%n%%n\\nfrontend\\nshim\\npython='\n")
        self.examine(patient, "--only", "launch", "--only", "torch")

    def test_nonsense_in_files(self):
        patient = self.patient()
        for name in ("/proc/self/cgroup", "/proc/self/mountinfo", "/proc/driver/nvidia/version",
                     "/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/kernel/osrelease",
                     "/sys/class/infiniband/x/ports/1/state", "/proc/sys/kernel/numa_balancing",
                     "/sys/kernel/mm/transparent_hugepage/enabled"):
            for text in ("", "\0" * 9, "[" * 5000, "4:memory", "0::/" + "x/" * 3000, "- - - -\n",
                         "1 2 3:4 / / rw - ", "\\777\\8", "-1 -1", "9" * 400):
                with self.subTest(file=name, text=text[:20]):
                    patient.put(name, text)
                    self.examine(patient, "--quick")

    def test_a_real_python_is_asked_and_torch_not_imported(self):
        patient = self.patient()
        packages = os.path.join(self.home, "packages")
        for name, text in (("torch/__init__.py", "raise SystemExit('imported')\n"),
                           ("torch/version.py", "__version__ = '2.13.0+cpu'\ncuda: str = '12.4'\n"),
                           ("djinn/__init__.py", "raise SystemExit('imported')\n"),
                           ("djinn/_built.py", "TORCH = '2.13.0'\n")):
            path = os.path.join(packages, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        patient.program("python3", f"#!/bin/sh\nexec {sys.executable} \"$@\"\n")
        patient.say(PYTHONPATH=packages)
        found = self.examine(patient, "--only", "torch")["torch"]
        self.assertRegex(found["text"], "has no shim for Python .*it has: none")
        import sysconfig
        open(packages + "/djinn/_C" + sysconfig.get_config_var("EXT_SUFFIX"), "w").close()
        found = self.examine(patient, "--only", "torch")["torch"]
        self.assertEqual(found["verdict"], "ok")
        self.assertRegex(found["text"], "torch 2.13.0.cpu .CUDA 12.4.*built for torch 2.13.0$")

    def test_a_package_beside_the_programs_is_found(self):
        patient = self.patient()
        installed = os.path.join(self.home, "it's [here]")
        os.makedirs(installed + "/bin")
        os.makedirs(installed + "/lib/x86_64-linux-gnu/djinn/python/djinn")
        shutil.copy(DJINN, installed + "/bin/djinn")
        packages = os.path.join(self.home, "packages/torch")
        os.makedirs(packages)
        open(packages + "/__init__.py", "w").close()
        with open(packages + "/version.py", "w") as file:
            file.write("__version__ = '2.13.0'\n")
        patient.program("python3", f"#!/bin/sh\nexec {sys.executable} -S \"$@\"\n")
        patient.say(PYTHONPATH=self.home + "/packages")
        found = self.examine(patient, "--only", "torch", djinn=installed + "/bin/djinn")["torch"]
        self.assertIn("/lib/x86_64-linux-gnu/djinn/python/djinn has no shim", found["text"])

    def test_an_active_environment_wins(self):
        patient = self.patient()
        os.makedirs(self.home + "/venv/bin")
        patient.python("torch=1.0.0\n")
        os.rename(patient.programs + "/python3", self.home + "/venv/bin/python3")
        patient.python("torch=2.0.0\n")
        patient.say(VIRTUAL_ENV=self.home + "/venv")
        self.assertIn("torch 1.0.0", self.examine(patient, "--only", "torch")["torch"]["text"])

    @unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/fuse"), "needs root and FUSE")
    def test_a_file_server_that_hangs(self):
        """A FUSE file system whose server never answers, in a mount namespace of its own."""
        patient = self.patient()
        patient.folder("/models")
        patient.say("--model-roots", "/models")
        script = ("import ctypes, os, subprocess, sys\n"
                  "libc = ctypes.CDLL(None, use_errno=True)\n"
                  "fd = os.open('/dev/fuse', os.O_RDWR)\n"
                  "options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'.encode()\n"
                  "if libc.mount(b'none', sys.argv[1].encode(), b'fuse', 0, options) != 0:\n"
                  "    sys.exit(77)\n"
                  "done = subprocess.run(sys.argv[2:], capture_output=True, text=True)\n"
                  "sys.stdout.write(done.stdout)\n"
                  "sys.exit(done.returncode)\n")
        patient.before = ["unshare", "-m", sys.executable, "-c", script, patient.path("/models")]
        began = time.monotonic()
        found = self.examine(patient, "--only", "files")
        self.assertLess(time.monotonic() - began, 5)
        for name in ("home", "weights"):
            self.assertEqual(found[name]["verdict"], "fail")
            self.assertRegex(found[name]["text"], "/models does not answer within 2 s")


class Here(DoctorTest):
    """The real machine, and real servers."""

    def look(self, *words, setup=None, **env):
        done = subprocess.run([DJINN, "doctor", "--json", *words], env=dict(self.env, **env),
                              preexec_fn=setup, capture_output=True, text=True,
                              timeout=harness.LIMIT_S)
        self.assertEqual(done.stderr, "")
        return self.read(done)

    def test_a_fit_machine(self):
        began = time.monotonic()
        found = self.look()
        print(f"{len(found)} checks in {time.monotonic() - began:.3f} s", file=sys.stderr)
        self.assertEqual(list(found), self.names())
        self.assertRegex(found["ucx"]["text"], r"^UCX \d+\.\d+\.\d+ with .*tcp/lo")
        self.assertIn("no server is known", found["path"]["text"])
        self.assertNotIn("fail", [check["verdict"] for check in found.values()])

    def test_what_is_forbidden_is_told(self):
        found = self.look("--only", "cma", setup=forbid_process_vm_readv)
        self.assertEqual(found["cma"]["verdict"], "warn")
        self.assertIn("not permitted", found["cma"]["text"])

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_what_a_user_may_not_open(self):
        patient = self.patient()
        patient.gpu()
        patient.rdma()
        patient.folder("/home/ada", 0o755)
        os.chmod(patient.path("/dev/nvidia0"), 0o600)
        os.chmod(patient.path("/dev/infiniband/uverbs0"), 0o600)
        os.chmod(self.home, 0o755)
        patient.before = ["setpriv", "--reuid", "65534", "--clear-groups"]
        found = self.examine(patient, "--only", "gpu-devices", "--only", "rdma", "--only", "home",
                             "--only", "shared-memory")
        self.assertRegex(found["shared-memory"]["text"], "cannot be used: Permission denied")
        self.assertRegex(found["gpu-devices"]["text"], "/dev/nvidia0 may not be opened")
        self.assertRegex(found["rdma"]["text"], "uverbs0 may not be opened")
        self.assertRegex(found["home"]["text"], "home folder may not be written to")

    def test_a_port_that_is_taken(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            found = self.look("--only", "listen", "--listen", address)["listen"]
        self.assertEqual(found["verdict"], "fail")
        self.assertIn(f"the port of {address} is taken", found["text"])
        self.assertEqual(self.look("--only", "listen", "--listen", address)["listen"]["verdict"], "ok")

    def test_the_path_to_the_server(self):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = "127.0.0.1:%d" % closed.getsockname()[1]
        found = self.look("--only", "server", "--address", address, DJINN_TOKEN="0a" * 32)
        self.assertEqual(found["path"]["verdict"], "fail")
        self.assertIn(address, found["path"]["text"])
        self.assertIn("does not describe itself", found["ranks"]["text"])
        with socket.create_server(("127.0.0.1", 0)) as silent:
            found = self.look("--only", "server", "--connect-ms", "300", "--address",
                              "127.0.0.1:%d" % silent.getsockname()[1], DJINN_TOKEN="0a" * 32)
            silent.setblocking(False)
            silent.accept()[0].close()
            self.assertRaises(BlockingIOError, silent.accept)  # asked once, not for every check
        self.assertEqual(found["path"]["verdict"], "fail")
        server = self.start(RUN, "-n", "1")
        server.wait_ready(1)
        found = until(lambda: (lambda found: found if "no server" not in found["path"]["text"] else
                               None)(self.look("--only", "server")), "the address in its file", 5)
        self.assertRegex(found["path"]["text"],
                         "^to rank 0 of .*: shm, because same host and user$")
        self.assertRegex(found["ranks"]["text"], "^version .*, 1 of 1 ranks serve$")
        self.assertRegex(found["clock"]["text"], "^the server's clock is \\d+ ms from ours$")
        found = self.look("--only", "path", "--transports", "tcp")["path"]
        self.assertRegex(found["text"], "tcp, because tcp was asked for$")
        self.assertEqual(server.end(), 0)

    def test_a_server_that_lost_a_rank(self):
        server = self.start(RUN, "-n", "3", "--restarts", "0")
        server.wait_ready(3)

        def ranks():
            code, out, _ = self.finish(DJINN, "info", "--json")
            found = json.loads(out)["ranks"] if code == 0 else []
            return found if len(found) == 3 else None
        os.kill(until(ranks, "three ranks", 5)[2]["pid"], signal.SIGKILL)
        found = until(lambda: (lambda found: found if found["verdict"] == "warn" else None)(
            self.look("--only", "ranks")["ranks"]), "the loss told", 5)
        self.assertEqual(found["text"], "2 of 3 ranks serve")


if __name__ == "__main__":
    harness.main()
