"""The programs of the OSU-style suite as a user starts them: wrong use, columns, checked data, ends; under
djinn-run, mpirun and srun; and benchmarks/compare."""
import csv
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "launcher"))
sys.dont_write_bytecode = True
import harness
import cluster  # harness knows where
from harness import BIN, alive, until

CLIENTS = ("latency", "bw", "bibw", "multi_lat", "mbw_mr", "put_latency", "get_bw", "move_bw", "exec")
MEMBERS = ("bcast", "barrier")
TWINS = ("latency", "bw", "bibw", "multi_lat", "mbw_mr", "bcast", "barrier")
WINDOWED = ("bw", "bibw", "mbw_mr")
MPIRUN = ("mpirun", "--oversubscribe")
HAS_TWINS = os.access(os.path.join(BIN, "mpi_latency"), os.X_OK)
VERSION = "0.1.0"
FOREVER = ("-i", "100000000", "-x", "0")


def program(name):
    return os.path.join(BIN, name)


class SuiteTest(harness.LaunchTest):
    foreign = True

    def setUp(self):
        super().setUp()
        # Other tests may keep a process from running for a second; that is no death.
        self.env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", DJINN_SUSPECT_MS="20s")

    def under_run(self, name, *words):
        ranks = "3" if name == "move_bw" else "1"
        return self.finish(program("djinn-run"), "-q", "-n", ranks, "--", program(f"djinn_{name}"), *words)

    def good(self, result):
        code, out, err = result
        self.assertEqual(code, 0, out + err)
        return out

    def mine(self, *names):
        """Processes with this test's home, by name."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    ours = f"HOME={self.home}".encode() in file.read().split(b"\0")
                with open(f"/proc/{pid}/comm") as file:
                    name = file.read().strip()
            except OSError:
                continue
            if ours and alive(pid) and (not names or name in names):
                found[int(pid)] = name
        return found

    def assert_all_gone(self, limit_s=15):
        until(lambda: not self.mine(), f"nothing left over, but {self.mine()}", limit_s)


class WrongUse(SuiteTest):
    def refused(self, name, words, told, **variables):
        code, out, err = self.finish(program(name), *words, env=dict(self.env, **variables))
        self.assertEqual((code, out), (1, ""), (name, words, err))
        self.assertIn(told, err, (name, words))
        self.assertEqual(err.count("\n"), 1, err)

    def programs(self, names):
        return ([f"djinn_{name}" for name in names if name in CLIENTS + MEMBERS]
                + [f"mpi_{name}" for name in names if HAS_TWINS and name in TWINS])

    def test_sizes_that_make_no_sense(self):
        huge = str(10 ** 40)
        for name in self.programs(("latency", "bw", "bcast", "put_latency", "exec")):
            for text, told in [("0", "'0'"), ("-1", "'-1'"), ("x", "'x'"), ("8x", "'8x'"), ("", "''"),
                               ("64:8", "above the largest"), (":", "[MIN:]MAX"), ("4:8:16", "'8:16'"),
                               ("0:8", "smallest message size is '0'"), (" 8", "' 8'"), ("+8", "'+8'"),
                               ("0x10", "'0x10'"), ("1e3", "'1e3'"), (huge, huge[:40]),
                               ("18446744073709551617", "18446744073709551617"),
                               ("1073741825", "to 1073741824"), ("8589934592:", "8589934592")]:
                with self.subTest(name=name, text=text):
                    self.refused(name, ["-m", text], told)
        self.refused("djinn_exec", ["-m", "6"], "multiples of 4")

    def test_numbers_that_make_no_sense(self):
        for name in self.programs(("latency", "barrier", "mbw_mr")):
            for words, told in [(["-i", "0"], "iterations is '0'"), (["-i", "-5"], "'-5'"),
                                (["-x", "-1"], "warm-up"), (["-i", "1000000000000"], "100000000"),
                                (["-z0"], "percentile"), (["-z100"], "percentile"),
                                (["-z50,"], "percentile is ''"), (["-z1,2,3,4,5,6,7,8,9"], "at most 8")]:
                with self.subTest(name=name, words=words):
                    self.refused(name, words, told)
        for name in self.programs(WINDOWED):
            for text in ("0", "513", "-1", "x"):
                self.refused(name, ["-W", text], "window size")
        self.refused("djinn_bcast", ["-p", "0"], "number of processes is '0'")

    def test_words_that_are_no_option(self):
        for name in self.programs(CLIENTS + MEMBERS):
            for words, told in [(["-q"], "-q is no option"), (["--nonsense"], "--nonsense is no option"),
                                (["8"], "one word too many"), (["-i"], "-i wants a value")]:
                with self.subTest(name=name, words=words):
                    self.refused(name, words, told)
        self.refused("djinn_latency", ["-W", "4"], "-W is no option")
        self.refused("djinn_barrier", ["-m", "4"], "-m is no option")
        self.refused("djinn_bcast", ["-d", "host"], "-d is no option")

    def test_devices(self):
        for name in CLIENTS:
            self.refused(f"djinn_{name}", ["-d", "cuda"], "no cuda device")
            self.refused(f"djinn_{name}", ["-d", "gpu"], "must be host or cuda")

    def test_one_process_speaks_for_the_job(self):
        for variables in ({"OMPI_COMM_WORLD_RANK": "1"}, {"PMIX_RANK": "3"},
                          {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2"}):
            code, out, err = self.finish(program("djinn_latency"), "-m", "0", env=dict(self.env, **variables))
            self.assertEqual((code, out, err), (0, "", ""), variables)
        code, _, err = self.finish(program("djinn_latency"), "-m", "0",
                                   env=dict(self.env, OMPI_COMM_WORLD_RANK="0"))
        self.assertEqual((code, err.count("\n")), (1, 1))

    def test_help_and_version(self):
        for name in self.programs(CLIENTS + MEMBERS):
            out = self.good(self.finish(program(name), "-h"))
            self.assertTrue(out.startswith(f"usage: {name} "), out)
            self.assertEqual("-W" in out, name.split("_", 1)[1] in WINDOWED)
            self.assertEqual(self.good(self.finish(program(name), "-v")), f"{name} {VERSION}\n")

    def test_nobody_to_talk_to(self):
        for name in CLIENTS:
            self.refused(f"djinn_{name}", [], "there is no server")
        self.refused("djinn_latency", [], "127.0.0.1:1", DJINN_ADDRESS="127.0.0.1:1", DJINN_TOKEN="0" * 64)
        self.refused("djinn_bcast", ["-p", "1"], "2 to 1024 members, not 1")


class Planner(SuiteTest):
    """djinn_plan needs no server and measures the planner alone."""

    PARTS = ("fingerprint", "decode", "infer", "rewrite", "schedule", "place", "plan", "cold", "resize", "encode", "prove",
             "hit", "compare")

    def test_wrong_use(self):
        for words, told in [(["-n", "18"], "from 19"), (["-n", "100,"], "ops is ''"), (["-n", "120001"], "120000"),
                            (["-n", ",".join(["50"] * 17)], "at most 16"), (["-p", "plans"], "'plans' is no part"),
                            (["-t", "0"], "'0'"), (["-t"], "-t wants a value"), (["-x", "1e3"], "'1e3'"),
                            (["-q"], "-q is no option"), (["--csv", "/nowhere/x.csv"], "cannot be written"),
                            (["--csv"], "--csv wants a value"), (["x.djs"] * 257, "at most 256 snapshots")]:
            with self.subTest(words=words):
                code, out, err = self.finish(program("djinn_plan"), *words)
                self.assertEqual((code, out, err.count("\n")), (1, "", 1), err)
                self.assertIn(told, err)
        self.assertTrue(self.good(self.finish(program("djinn_plan"), "-h")).startswith("usage: djinn_plan "))
        self.assertEqual(self.good(self.finish(program("djinn_plan"), "-v")), f"djinn_plan {VERSION}\n")

    def test_snapshots(self):
        graphs = os.path.join(os.path.dirname(HERE), "graphs")
        files = [os.path.join(graphs, name) for name in ("minilm-32.djs", "minilm-40.djs", "mlp.djs")]
        out = self.good(self.finish(program("djinn_plan"), "-t", "1", *files))
        rows = [line.split() for line in out.splitlines() if line and line[0] != "#"]
        parts = [part for part in self.PARTS if part != "resize"]
        self.assertEqual([(row[0], row[2]) for row in rows],
                         [(name, part) for name in ("minilm-32", "minilm-40") for part in self.PARTS] +
                         [("mlp", part) for part in parts])
        missing = os.path.join(self.home, "missing.djs")
        for wrong, told in ((missing, "missing.djs"), (__file__, "not a snapshot")):
            code, _, err = self.finish(program("djinn_plan"), wrong)
            self.assertEqual(code, 1)
            self.assertIn(told, err)

    def test_rows_and_samples(self):
        path = os.path.join(self.home, "samples.csv")
        out = self.good(self.finish(program("djinn_plan"), "-n", "19,60", "-t", "1", "--csv", path))
        rows = [line.split() for line in out.splitlines() if line and line[0] != "#"]
        self.assertEqual([row[:3] for row in rows], [["gpt", nodes, part] for nodes in ("20", "77")
                                                     for part in self.PARTS])
        for row in rows:
            median, least = float(row[3]), float(row[4])
            self.assertGreaterEqual(median, least)
        with open(path) as file:
            samples = [line.split(",") for line in file.read().splitlines()]
        self.assertEqual(samples[0], ["program", "nodes", "part", "sample", "us"])
        for nodes in ("20", "77"):
            for part in self.PARTS:
                self.assertGreaterEqual(sum(row[1:3] == [nodes, part] for row in samples), 5, part)


class Columns(SuiteTest):
    def lines(self, name, *words):
        return self.good(self.under_run(name, *words, "-i", "4", "-x", "1")).split("\n")

    def check(self, lines, title, datatype, columns, rows, note=None):
        wanted = ["", f"# Djinn {title} v{VERSION}"] + ([note] if note else [])
        wanted += ([f"# Datatype: {datatype}."] if datatype else []) + [columns]
        self.assertEqual(lines[:len(wanted)], wanted)
        self.assertEqual(len(lines), len(wanted) + len(rows) + 1)
        for line, row in zip(lines[len(wanted):], rows):
            self.assertRegex(line, row)

    def test_latency(self):
        self.check(self.lines("latency", "-m", "4:16"), "Latency Test", "uint8", "# Size       Avg Latency(us)",
                   [rf"^{size:<10d}(?=.{{18}}$) *\d+\.\d\d$" for size in (4, 8, 16)])
        self.check(self.lines("put_latency", "-m", "3:3", "-f", "-c", "-z"), "Ref Pull Latency Test", "uint8",
                   "# Size       Avg Latency(us)   Min Latency(us)   Max Latency(us)  Iterations"
                   "        Validation  P50 Tail Lat(us)  P90 Tail Lat(us)  P99 Tail Lat(us)",
                   [r"^3         ( +\d+\.\d\d){3}           4              Pass( +\d+\.\d\d){3}$"])
        self.check(self.lines("multi_lat", "-m", "8:8", "-p", "2", "-z95,5"), "Multi Latency Test", "uint8",
                   "# Size       Avg Latency(us)  P95 Tail Lat(us)   P5 Tail Lat(us)",
                   [r"^8         ( +\d+\.\d\d){3}$"])

    def test_bandwidth(self):
        self.check(self.lines("bw", "-m", "64:64", "-W", "2"), "Bandwidth Test", "uint8",
                   "# Size      Bandwidth (MB/s)", [r"^64        (?=.{18}$) *\d+\.\d\d$"])
        self.check(self.lines("bibw", "-m", "64:64", "-W", "2", "-z50"), "Bi-Directional Bandwidth Test", "uint8",
                   "# Size      Bandwidth (MB/s) P50 Tail BW(MB/s)", [r"^64        ( +\d+\.\d\d){2}$"])
        for name, title in (("get", "Get"), ("move", "Move")):
            self.check(self.lines(f"{name}_bw", "-m", "64:64"), f"{title} Bandwidth Test", "uint8",
                       "# Size      Bandwidth (MB/s)", [r"^64        (?=.{18}$) *\d+\.\d\d$"])
        self.check(self.lines("mbw_mr", "-m", "64:64", "-W", "2", "-p", "2"),
                   "Multiple Bandwidth / Message Rate Test", "uint8",
                   "# Size                  MB/s        Messages/s", [r"^64        ( +\d+\.\d\d){2}$"],
                   note="# [ pairs: 2 ] [ window size: 2 ]")

    def test_collectives(self):
        self.check(self.lines("bcast", "-m", "1:2"), "Broadcast Latency Test", "uint8",
                   "# Size       Avg Latency(us)", [r"^1          +\d+\.\d\d$", r"^2          +\d+\.\d\d$"])
        self.check(self.lines("barrier", "-f"), "Barrier Latency Test", None,
                   "# Avg Latency(us)   Min Latency(us)   Max Latency(us)  Iterations",
                   [r"^(?=.{17} ) *\d+\.\d\d( +\d+\.\d\d){2}           4$"])

    def test_exec(self):
        self.check(self.lines("exec", "-f"), "Request Round Trip Test", "float32",
                   "# Request       Avg Time(us)           Min(us)           P50(us)           P99(us)",
                   [r"^null      ( +\d+\.\d\d){4}$", r"^add/64    ( +\d+\.\d\d){4}$"])

    def test_json(self):
        for name, words in [("latency", ["-m", "8:16", "-c"]), ("bw", ["-m", "8:16", "-W", "2"]),
                            ("mbw_mr", ["-m", "8:16", "-W", "2"]), ("exec", []), ("barrier", [])]:
            document = json.loads("\n".join(self.lines(name, *words, "--json", "-z90")))
            self.assertEqual(document["benchmark"], f"djinn_{name}")
            self.assertEqual(len(document["rows"]), 1 if name == "barrier" else 2)
            for row in document["rows"]:
                self.assertEqual(row["iterations"], 4)
                self.assertGreater(row["average_us"], 0)
                self.assertGreater(row["tail_p90"], 0)
                self.assertEqual("mb_per_s" in row, name in WINDOWED)
            if name == "latency":
                self.assertEqual([row["size"] for row in document["rows"]], [8, 16])
                self.assertEqual([row["wrong_bytes"] for row in document["rows"]], [0, 0])


class Checked(SuiteTest):
    """Every program with -c: sizes inside a request, in a message of their own, in parts."""

    def test_under_djinn_run(self):
        for name in CLIENTS + MEMBERS:
            sizes = [] if name == "barrier" else ["-m", "4:131072"]
            window = ["-W", "7"] if name in WINDOWED else []
            out = self.good(self.under_run(name, *sizes, *window, "-c", "-i", "2", "-x", "1"))
            rows = [line for line in out.splitlines() if line and line[0] != "#"]
            self.assertEqual(len(rows), {"barrier": 1, "exec": 17}.get(name, 16), out)
            for row in rows:
                self.assertRegex(row, " Pass$")
        for name in WINDOWED + ("latency", "put_latency", "get_bw", "move_bw"):
            window = ["-W", "3"] if name in WINDOWED else []
            out = self.good(self.under_run(name, "-m", "8388608:8388608", *window, "-c", "-i", "1", "-x", "0"))
            self.assertIn("Pass", out)

    def test_several_clients_and_members(self):
        for name in ("multi_lat", "mbw_mr"):
            self.assertIn("Pass", self.good(self.under_run(name, "-m", "64:64", "-p", "3", "-c", "-i", "3")))
        for name in MEMBERS:
            self.assertIn("Pass", self.good(self.finish(program(f"djinn_{name}"), "-p", "5", "-c", "-i", "3",
                                                        "-x", "1")))
        self.assert_all_gone()


class Ends(SuiteTest):
    """Whoever dies, the rest ends and says so."""

    def members(self, count):
        server = self.start(program("djinn_bcast"), "-p", str(count), "-m", "8:8", *FOREVER)
        until(lambda: len(self.mine("djinn_bcast")) == count, "all members")
        return server

    def test_a_member_killed(self):
        server = self.members(4)
        victim = next(pid for pid in self.mine("djinn_bcast") if pid != server.pid)
        os.kill(victim, signal.SIGKILL)
        self.assertEqual(server.wait(), 1)
        self.assert_all_gone()

    def test_the_first_member_killed(self):
        server = self.members(3)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        self.assert_all_gone()

    def test_a_client_killed(self):
        server = self.start(program("djinn-run"), "-q", "-n", "1", "--", program("djinn_multi_lat"), "-p", "3",
                            "-m", "8:8", *FOREVER)
        until(lambda: len(self.mine("djinn_multi_lat")) == 3, "all clients")
        os.kill(max(self.mine("djinn_multi_lat")), signal.SIGKILL)
        # The others go on until the row is full; the end of the first one ends them.
        os.kill(min(self.mine("djinn_multi_lat")), signal.SIGTERM)
        self.assertNotEqual(server.wait(), 0)
        self.assert_all_gone()

    def test_the_rank_killed(self):
        server = self.start(program("djinn-run"), "-q", "-n", "1", "--", program("djinn_latency"), "-m", "8:8",
                            *FOREVER)
        until(lambda: self.mine("djinn_latency") and self.mine("djinn-rank"), "rank and client")
        until(lambda: "# Size" in os.read(server.process.stdout.fileno(), 4096).decode(), "the header")
        os.kill(next(iter(self.mine("djinn-rank"))), signal.SIGKILL)
        self.assertEqual(server.wait(), 1)
        self.assertRegex(server.errors(), r"djinn_latency: ERR_\w+: \S")
        self.assert_all_gone()


class Mpirun(SuiteTest):
    def job(self, count, name, *words):
        return self.finish(*MPIRUN, "-np", str(count), program(name), *words)

    def test_checked(self):
        for count, name in [(2, "latency"), (2, "bw"), (2, "bibw"), (2, "put_latency"), (2, "get_bw"), (2, "exec"),
                            (4, "multi_lat"), (4, "mbw_mr"), (5, "bcast"), (5, "barrier")]:
            sizes = [] if name == "barrier" else ["-m", "64:128"]
            out = self.good(self.job(count, f"djinn_{name}", *sizes, "-c", "-i", "3", "-x", "1"))
            self.assertEqual(out.count("Pass"), {"barrier": 1, "exec": 3}.get(name, 2), out)
            self.assertEqual(out.count("# Djinn"), 1, out)
        self.assert_all_gone()

    def test_twins(self):
        if not HAS_TWINS:
            self.skipTest("built without MPI")
        for name in TWINS:
            sizes = [] if name == "barrier" else ["-m", "64:128"]
            count = 2 if name in ("latency", "bw", "bibw") else 4
            out = self.good(self.job(count, f"mpi_{name}", *sizes, "-c", "-i", "3", "-x", "1"))
            self.assertEqual(out.count("Pass"), 1 if name == "barrier" else 2, out)
            self.assertIn("# Djinn MPI ", out)

    def test_numbers_of_processes(self):
        for count, name, told in [(3, "latency", "3 processes make no pairs"), (4, "latency", "1 to 1 clients"),
                                  (1, "latency", "there is no server")]:
            code, _, err = self.job(count, f"djinn_{name}")
            self.assertNotEqual(code, 0)
            self.assertEqual(err.count(told), 1, err)
        code, _, err = self.job(3, "djinn_latency", "-m", "0")
        self.assertEqual((code, err.count("largest message size is '0'")), (1, 1), err)
        self.assert_all_gone()

    def endless(self, count, name):
        server = self.start(*MPIRUN, "-np", str(count), program(f"djinn_{name}"), "-m", "8:8", *FOREVER)
        until(lambda: "# Size" in os.read(server.process.stdout.fileno(), 4096).decode(), "the header")
        return server

    def test_a_client_killed(self):
        server = self.endless(2, "latency")
        ranks = self.mine("djinn-rank")
        self.assertEqual(len(ranks), 1)
        # The client is the process of the two that has no child.
        client = max(self.mine("djinn_latency"), key=lambda pid: self.share_of(pid))
        os.kill(client, signal.SIGKILL)
        self.assertNotEqual(server.wait(), 0)
        self.assert_all_gone()

    def share_of(self, pid):
        """Processor time so far: a client measures, a server's keeper sleeps."""
        with open(f"/proc/{pid}/stat") as file:
            return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))

    def test_the_launcher_killed(self):
        server = self.endless(4, "multi_lat")
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        self.assert_all_gone()

    def test_the_private_rank_killed(self):
        server = self.endless(2, "latency")
        os.kill(next(iter(self.mine("djinn-rank"))), signal.SIGKILL)
        self.assertNotEqual(server.wait(), 0)
        self.assert_all_gone()


class Slurm(SuiteTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = cluster.Cluster(os.path.join(BIN, "slurm-suite"), 2, share=[ROOT, BIN])
        cls.addClassCleanup(cls.cluster.remove)
        cls.cluster.up()

    def setUp(self):
        super().setUp()
        self.home = tempfile.mkdtemp(prefix="home-", dir=self.cluster.folder)
        self.env = dict(self.cluster.environment(), HOME=self.home, DJINN_SUSPECT_MS="20s")

    def step(self, mpi, count, name, *words):
        return self.good(self.finish(*self.cluster.argv("srun", f"--mpi={mpi}", "-N2", f"-n{count}",
                                                        program(f"djinn_{name}"), *words)))

    def test_over_two_nodes(self):
        for mpi, count, name in [("pmix", 2, "latency"), ("none", 2, "latency"), ("pmix", 2, "bw"),
                                 ("pmix", 4, "mbw_mr"), ("pmix", 4, "bcast"), ("none", 3, "barrier")]:
            sizes = [] if name == "barrier" else ["-m", "64:128"]
            out = self.step(mpi, count, name, *sizes, "-c", "-i", "3", "-x", "1")
            self.assertEqual(out.count("Pass"), 1 if name == "barrier" else 2, out)
        self.assert_all_gone()


class Compare(SuiteTest):
    compare = os.path.join(ROOT, "benchmarks", "compare")

    def run_compare(self, *words, env=None):
        self.out = os.path.join(self.home, "out")
        done = subprocess.run([sys.executable, "-B", self.compare, "--bin", BIN, "--out", self.out, *words],
                              env=env or self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=100)
        return done.returncode, done.stdout, done.stderr

    def read(self, name):
        with open(os.path.join(self.out, name), newline="") as file:
            return list(csv.DictReader(file))

    def test_wrong_words(self):
        for words, told in [(["--only", "x"], "'x' is none of"), (["--rounds", "0"], "1 to 1000"),
                            (["--rounds", "-3"], "-3"), (["--transports", "ib"], "'ib'"), (["x"], "x")]:
            code, out, err = self.run_compare(*words)
            self.assertEqual((code, out), (2, ""), words)
            self.assertIn(told, err)
        code, _, err = self.finish(sys.executable, "-B", self.compare, "--bin", self.home, "--out", self.home)
        self.assertEqual(code, 1)
        self.assertIn("build first", err)
        self.assertIn("--quick", self.good(self.run_compare("--help")))

    def test_quick(self):
        out = self.good(self.run_compare("--quick", "--rounds", "2", "--only", "latency,bw", "--transports", "tcp"))
        self.assertIn("| latency | tcp | 8 | µs |", out)
        samples = self.read("samples.csv")
        self.assertEqual({row["outcome"] for row in samples}, {"ok"})
        for test, size in (("latency", "8"), ("latency", "65536"), ("bw", "4096")):
            rows = [row for row in samples if (row["test"], row["size"]) == (test, size)]
            self.assertEqual({row["round"] for row in rows if row["side"] == "djinn"}, {"1", "2"})
            self.assertTrue(all(float(row["value"]) > 0 for row in rows))
            # Alternation: who begins changes from round to round.
            sides = len({row["side"] for row in rows})
            if sides > 1:
                self.assertNotEqual(rows[0]["side"], rows[sides]["side"])
        sides = {row["side"]: row for row in self.read("sides.csv") if row["test"] == "bw"}
        self.assertEqual(sides["djinn"]["error_handling"], "peer")
        self.assertIn("djinn_bw -m ", sides["djinn"]["command"])
        if "ucx" in sides:
            self.assertIn("UCX_TCP_TX_SEG_SIZE=64K", sides["ucx, our settings"]["command"])
            self.assertRegex(sides["ucx"]["version"], r"Version \d")
        for name in ("latency_tcp.svg", "bw_tcp.svg"):
            root = xml.etree.ElementTree.parse(os.path.join(self.out, name)).getroot()
            curves = root.findall("{http://www.w3.org/2000/svg}polyline")
            self.assertGreaterEqual(len(curves), 2 * (len(sides) > 1))
            for curve in curves:
                self.assertRegex(curve.get("points"), r"^[\d., ]+$")
        self.assert_all_gone()

    def test_without_peers(self):
        empty = os.path.join(self.home, "empty")
        os.mkdir(empty)
        out = self.good(self.run_compare("--quick", "--rounds", "1", "--only", "latency", "--transports", "shm",
                                         env=dict(self.env, PATH=empty)))
        self.assertRegex(out, r"\| latency \| shm \| 8 \| µs \| [\d.]+ \([^)]*\) \| none \|")

    def test_a_hang_and_a_failure(self):
        folder = os.path.join(self.home, "bin")
        os.mkdir(folder)
        for name, body in [("djinn-run", "sleep 1000"), ("djinn_latency", ":"), ("djinn_bw", ":"),
                           ("mpi_latency", "echo no reason >&2; exit 3")]:
            path = os.path.join(folder, name)
            with open(path, "w") as file:
                file.write(f"#!/bin/sh\n{body}\n")
            os.chmod(path, 0o755)
        self.out = os.path.join(self.home, "out")
        code, out, err = self.finish(sys.executable, "-B", self.compare, "--bin", folder, "--out", self.out,
                                     "--quick", "--rounds", "1", "--limit", "3", "--only", "latency",
                                     "--transports", "shm")
        self.assertEqual(code, 1, err)
        self.assertIn("no end after 3 s", err)
        self.assertIn("| no figure |", out)
        outcomes = {row["side"]: row["outcome"] for row in self.read("samples.csv")}
        self.assertEqual(outcomes["djinn"], "no end after 3 s")
        if "mpi" in outcomes:
            self.assertRegex(outcomes["mpi"], "^exit status 3: |^no end after 3 s$")
        self.assert_all_gone()

    def test_stopped_by_the_user(self):
        job = self.start(sys.executable, "-B", self.compare, "--bin", BIN, "--out",
                         os.path.join(self.home, "out"), "--only", "latency", "--transports", "shm")
        self.out = os.path.join(self.home, "out")
        until(lambda: os.path.exists(f"{self.out}/samples.csv") and len(self.read("samples.csv")) > 2, "samples")
        self.assertEqual(job.end(signal.SIGINT), 130)
        self.assertIn("stopped", job.errors())
        self.assertIn("| latency | shm |", job.process.stdout.read())
        self.assert_all_gone()

    def test_killed(self):
        job = self.start(sys.executable, "-B", self.compare, "--bin", BIN, "--out",
                         os.path.join(self.home, "out"), "--only", "latency", "--transports", "shm")
        until(lambda: len(self.mine()) > 1, "a run")
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        self.assert_all_gone()

    def test_bounds(self):
        loader = importlib.machinery.SourceFileLoader("compare", self.compare)
        compare = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare", loader))
        loader.exec_module(compare)
        self.assertIsNone(compare.bound_of_median([1, 2, 3, 4, 5]))
        self.assertEqual(compare.bound_of_median([3, 1, 2, 6, 5, 4]), (1, 6))
        self.assertEqual(compare.bound_of_median(list(range(1, 16))), (4, 12))
        self.assertEqual(compare.bound_of_median(list(range(1, 31))), (10, 21))
        self.assertEqual(compare.quartiles([5]), (5, 5))


if __name__ == "__main__":
    if "Mpirun" in sys.argv and not shutil.which("mpirun"):
        sys.exit(77)
    if "Slurm" in sys.argv and not cluster.possible():
        sys.exit(77)
    harness.main()
