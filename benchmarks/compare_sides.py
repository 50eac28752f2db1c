"""The sides of a comparison: how each program is started, what its output says, how a hang ends.

A side measures one figure (test, transport, size) by one run of a program of its own. Units: microseconds for
latencies, MB/s of 1e6 bytes for bandwidths.
"""

import ctypes
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time

LATENCIES = ("latency", "multi_lat", "bcast", "barrier")
MPIRUN = ("mpirun", "--oversubscribe")

# What comm/ucx.c sets for ours, for a peer that is to run with the same.
OUR_UCX = {"UCX_MM_ERROR_HANDLING": "y", "UCX_CMA_MEMORY_INVALIDATE": "y", "UCX_TCP_TX_SEG_SIZE": "64K",
           "UCX_TCP_RX_SEG_SIZE": "64K", "UCX_ZCOPY_THRESH": "inf", "UCX_RNDV_PIPELINE_ERROR_HANDLING": "y"}


class Failed(Exception):
    """A run that gave no figure, and why."""


def end(process):
    """Ends a program of ours and what it started; it leads a process group of its own."""
    for number, limit_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            if process.poll() is None:
                os.killpg(process.pid, number)
            process.wait(limit_s)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


LIBC = ctypes.CDLL(None)


def die_with_us():
    """In the child: the kernel ends it when we end, however that comes (PR_SET_PDEATHSIG)."""
    LIBC.prctl(1, signal.SIGTERM, 0, 0, 0)


def start(argv, env):
    return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=die_with_us)


def finish(process, limit_s):
    """The output of a program that must end by itself."""
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        end(process)
        process.communicate()
        raise Failed(f"no end after {limit_s:.0f} s") from None
    except BaseException:
        end(process)
        raise
    if process.returncode != 0:
        words = [line.strip() for line in err.splitlines() if line.strip(" -")] or ["no reason given"]
        ours = [line for line in words if line.startswith(("djinn", "mpi_"))]
        raise Failed(f"exit status {process.returncode}: {(ours or words)[0]}")
    return out


class Load:
    """How much of one figure is measured: the same for each side."""

    def __init__(self, test, size, quick, limit_s):
        self.size, self.limit_s = size, limit_s
        share = 0.1 if quick else 1
        if test in ("latency", "multi_lat"):
            count = 10000 if size <= 8192 else 2000 if size <= 262144 else 200
            self.window, self.iterations = 1, max(20, int(count * share))
        elif test in ("bcast", "barrier"):
            count = 1000 if size <= 8192 else 200
            self.window, self.iterations = 1, max(10, int(count * share))
        else:
            self.window = 64 if size <= 1 << 20 else 16 if size <= 4 << 20 else 8
            total = (256 << 20) if size <= 1 << 20 else (1 << 30)
            windows = min(1000, total // (max(size, 1) * self.window))
            self.iterations = max(4, int(windows * share))
        self.warmup = max(2, self.iterations // 10)


class Side:
    """Base: a name, a sentence when it cannot run, the environment's additions."""

    error_handling = "none"

    def __init__(self, name, transport, settings=None):
        self.name, self.transport, self.settings = name, transport, dict(settings or {})

    def environment(self):
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("DJINN_", "UCX_", "OMPI_MCA_"))}
        env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        env.update(self.settings)
        return env

    def missing(self):
        """Why this side cannot run here, or None."""
        absent = [word for word in self.needs() if not shutil.which(word)]
        return f"{', '.join(absent)} not found" if absent else None

    def command(self, load):
        """The words as a user would type them, settings first."""
        return " ".join([f"{name}={value}" for name, value in self.settings.items()]
                        + [shlex.quote(word) for word in self.argv(load)])

    def measure(self, load):
        return self.read(finish(start(self.argv(load), self.environment()), load.limit_s))


class SuiteSide(Side):
    """A program of the suite, ours or an MPI twin: one JSON document."""

    def __init__(self, name, test, transport, folder, processes=2):
        super().__init__(name, transport)
        self.test, self.folder, self.processes = test, folder, processes

    def words(self, load):
        sizes = [] if self.test == "barrier" else ["-m", f"{load.size}:{load.size}"]
        window = ["-W", str(load.window)] if self.test in ("bw", "bibw", "mbw_mr") else []
        return sizes + window + ["-i", str(load.iterations), "-x", str(load.warmup), "--json"]

    def read(self, output):
        try:
            row = json.loads(output[output.index("{"):])["rows"][0]
        except (ValueError, KeyError, IndexError):
            raise Failed(f"output not understood: {output[-200:]!r}") from None
        if self.test in ("latency", "multi_lat"):
            return row["median_us"]
        return row["average_us"] if self.test in LATENCIES else row["mb_per_s"]


class Ours(SuiteSide):
    error_handling = "peer"

    def __init__(self, test, transport, folder, processes=2):
        super().__init__("djinn", test, transport, folder, processes)
        # A machine at its limit can keep a process from running for a second; that is no death.
        self.settings["DJINN_SUSPECT_MS"] = "10s"
        if self.alone():
            self.settings["DJINN_TRANSPORTS"] = transport

    def alone(self):
        return self.test in ("bcast", "barrier")

    def needs(self):
        mine = [os.path.join(self.folder, f"djinn_{self.test}")]
        return mine + ([MPIRUN[0]] if self.alone() else [os.path.join(self.folder, "djinn-run")])

    def argv(self, load):
        program = [os.path.join(self.folder, f"djinn_{self.test}"), *self.words(load)]
        if self.alone():
            return [*MPIRUN, "-np", str(self.processes), *program]
        pairs = ["-p", str(self.processes // 2)] if self.test in ("multi_lat", "mbw_mr") else []
        return [os.path.join(self.folder, "djinn-run"), "-q", "-n", "1", "--transports",
                self.transport, "--", *program, *pairs]


class Twin(SuiteSide):
    def __init__(self, test, transport, folder, processes=2):
        super().__init__("mpi", test, transport, folder, processes)

    def needs(self):
        return [os.path.join(self.folder, f"mpi_{self.test}"), MPIRUN[0]]

    def argv(self, load):
        lanes = ["self,vader"] if self.transport == "shm" else ["self,tcp", "--mca",
                                                                "btl_tcp_if_include", "lo"]
        return [*MPIRUN, "-np", str(self.processes), "--mca", "pml", "ob1", "--mca", "btl", *lanes,
                os.path.join(self.folder, f"mpi_{self.test}"), *self.words(load)]


class Ucx(Side):
    """ucx_perftest over active messages, two processes; latency is its median, bandwidth its overall."""

    def __init__(self, test, transport, ours):
        settings = {"UCX_NET_DEVICES": "lo", "UCX_TLS": "tcp,self"} if transport == "tcp" else {}
        if ours:
            settings.update(OUR_UCX)
        super().__init__("ucx, our settings" if ours else "ucx", transport, settings)
        self.test, self.port = test, 0

    def needs(self):
        return ["ucx_perftest"]

    def argv(self, load, server=False):
        return (["ucx_perftest"] + ([] if server else ["127.0.0.1"])
                + ["-t", "ucp_am_lat" if self.test == "latency" else "ucp_am_bw", "-s", str(load.size),
                   "-n", str(load.iterations * load.window), "-w", str(load.warmup * load.window),
                   "-p", str(self.port), "-f", "-v"])

    def measure(self, load):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        env = dict(self.environment(), UCX_WARN_UNUSED_ENV_VARS="n")
        server = start(self.argv(load, server=True), env)
        try:
            self.wait_listening(server)
            return self.read(finish(start(self.argv(load), env), load.limit_s))
        finally:
            try:
                server.communicate(timeout=2)
            except subprocess.TimeoutExpired:
                end(server)
                server.communicate()

    def wait_listening(self, server):
        """Looks, and does not knock: the server takes the first connection for its client."""
        wanted = f":{self.port:04X}"
        limit = time.monotonic() + 20
        while time.monotonic() < limit and server.poll() is None:
            for table in ("/proc/net/tcp", "/proc/net/tcp6"):
                with open(table) as file:
                    for line in file:
                        words = line.split()
                        if words[1].endswith(wanted) and words[3] == "0A":
                            return
            time.sleep(0.01)
        raise Failed("ucx_perftest does not listen")

    def read(self, output):
        lines = [line.split(",") for line in output.splitlines() if line.count(",") >= 7]
        try:
            names, values = lines[-2], lines[-1]
            row = dict(zip(names, map(float, values)))
            if self.test == "latency":
                return row["50.0_percentile_lat"]
            return row["overall_bw"] * 1.048576  # its MB are 2**20 bytes
        except (IndexError, ValueError, KeyError):
            raise Failed(f"output not understood: {output[-200:]!r}") from None


def first_line(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def versions(folder):
    """Side → version, for the record."""
    ucx = first_line("ucx_info", "-v").lstrip("# ")
    return {"djinn": f"{first_line(os.path.join(folder, 'djinn_latency'), '-v')}, UCX {ucx}",
            "ucx": ucx, "ucx, our settings": ucx, "mpi": first_line("mpirun", "--version")}
