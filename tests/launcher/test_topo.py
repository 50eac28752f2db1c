"""djinn topo: machines from files and texts, hostile ones, and the pictures."""
import json
import os
import random
import re
import time
import unittest
import xml.etree.ElementTree

import harness
from harness import BIN

DJINN = os.path.join(BIN, "djinn")
TOPOLOGIES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "topologies")
FILES = sorted(name for name in os.listdir(TOPOLOGIES) if name.endswith(".xml"))
A100 = os.path.join(TOPOLOGIES, "dgx-a100.xml")
SVG = "{http://www.w3.org/2000/svg}"


class Topo(harness.LaunchTest):
    foreign = True

    def topo(self, *words, env=None):
        return self.finish(DJINN, "topo", *words, env=env)

    def taken(self, *words, env=None):
        code, out, err = self.topo(*words, env=env)
        self.assertEqual((code, err), (0, ""), words)
        return out

    def plan(self, *words, env=None):
        return json.loads(self.taken(*words, "--json", env=env))

    def refused(self, *words, env=None):
        """With one sentence and nothing else."""
        code, out, err = self.topo(*words, env=env)
        self.assertEqual((code, out), (2, ""), (words, err))
        self.assertRegex(err, r"^djinn: [^\n]{10,}\n$")
        return err


class Words(Topo):
    def test_wrong_use(self):
        for words in (["extra"], ["--xml"], ["--nope"], ["--xml", A100, "--synthetic", "core:1 pu:1"],
                      ["--ranks", "0"], ["--ranks", "-1"], ["--ranks", "4097"], ["--ranks", "two"],
                      ["--device", "tpu"], ["--json", "--svg", "x"], ["--svg"], ["--help", "more"],
                      ["--svg", "/nowhere/at/all.svg"], ["--svg", self.home], ["--synthetic", "sandwich:2"]):
            with self.subTest(words=words):
                self.refused(*words)

    def test_more_ranks_than_gpus(self):
        err = self.refused("--xml", A100, "--ranks", "10", "--device", "cuda")
        self.assertIn("9 ranks", err)
        self.assertIn("8 may be used", err)
        err = self.refused("--xml", A100, "--ranks", "4", "--gpus", "0,1")
        self.assertIn("--gpus is '0,1'", err)
        err = self.refused("--synthetic", "core:4 pu:1", "--device", "cuda")
        self.assertIn("no GPU", err)

    def test_help(self):
        self.assertIn("--synthetic", self.taken("--help"))

    def test_text(self):
        for name in FILES:
            out = self.taken("--xml", os.path.join(TOPOLOGIES, name))
            self.assertIn("Package 0", out)
            self.assertRegex(out, r"rank 1: .+")
        self.assertIn("NVLink  every GPU to every other, 300 GB/s", self.taken("--xml", A100))
        self.assertIn("no layout costs less", self.taken("--xml", A100))

    def test_this_machine(self):
        answer = self.plan(env=dict(self.env, CUDA_VISIBLE_DEVICES=""))
        self.assertEqual(answer["source"], "this machine")
        self.assertEqual(answer["cores"] >= 1, True)
        self.assertEqual(answer["layout"]["device"], "host")
        self.assertEqual([rank["role"] for rank in answer["layout"]["ranks"]], ["worker"])

    def test_json(self):
        answer = self.plan("--xml", A100)
        self.assertEqual((answer["packages"], len(answer["nodes"]), answer["cores"]), (2, 8, 128))
        ranks = answer["layout"]["ranks"]
        self.assertEqual(len(ranks), 9)
        self.assertEqual((ranks[0]["role"], ranks[0]["gpu"]), ("coordinator", None))
        self.assertEqual(ranks[1]["gpu"], "nvml0")
        self.assertEqual(ranks[1]["nic"], "mlx5_1:1")
        self.assertEqual(len({rank["nic"] for rank in ranks[1:]}), 8)
        self.assertEqual(answer["layout"]["exact"], True)
        self.assertEqual(answer["gpus"][0]["nics"][answer["nics"].index(
            next(nic for nic in answer["nics"] if nic["name"] == "mlx5_1"))], "behind one PCI switch")

    def test_which_gpus(self):
        for given, wanted in (("2,3", ["nvml2", "nvml3"]), ("GPU-00000005", ["nvml5"])):
            ranks = self.plan("--xml", A100, "--gpus", given)["layout"]["ranks"]
            self.assertEqual([rank["gpu"] for rank in ranks if rank["gpu"]], wanted)
        # What the environment says is of this machine, not of the one in the file.
        answer = self.plan("--xml", A100, env=dict(self.env, CUDA_VISIBLE_DEVICES="0"))
        self.assertEqual(len(answer["layout"]["ranks"]), 9)

    def test_host_device(self):
        ranks = self.plan("--synthetic", "pack:2 core:8 pu:2", "--ranks", "3")["layout"]["ranks"]
        self.assertEqual([(rank["threads"], rank["cores"]) for rank in ranks],
                         [(1, None), (8, "0-15"), (8, "16-31")])
        self.assertEqual(self.plan("--xml", A100, "--device", "host")["layout"]["device"], "host")


class Pictures(Topo):
    def draw(self, *words):
        path = os.path.join(self.home, "out.svg")
        self.taken(*words, "--svg", path)
        with open(path) as file:
            return xml.etree.ElementTree.fromstring(file.read())

    def test_every_file_draws(self):
        for name in FILES:
            with self.subTest(name=name):
                root = self.draw("--xml", os.path.join(TOPOLOGIES, name))
                width, height = float(root.get("width")), float(root.get("height"))
                for box in root.iter(SVG + "rect"):
                    self.assertLessEqual(float(box.get("x")) + float(box.get("width")), width)
                    self.assertLessEqual(float(box.get("y")) + float(box.get("height")), height)
                words = " ".join(text.text for text in root.iter(SVG + "text"))
                self.assertIn("Package 1", words)
                self.assertIn("rank 1", words)

    def test_every_core_and_device_is_drawn_once(self):
        root = self.draw("--xml", A100)
        texts = [text.text for text in root.iter(SVG + "text")]
        for name in [f"GPU nvml{i}" for i in range(8)] + [f"mlx5_{i}" for i in range(10)]:
            self.assertEqual(texts.count(name), 1, name)
        self.assertEqual(sum(text in ("P", "D", "H") for text in texts), 24)
        cells = sum(bool(re.fullmatch(r"\d+|[PDH]", text)) for text in texts)
        self.assertEqual(cells, 128)

    def test_names_are_shown_not_obeyed(self):
        with open(A100) as file:
            text = file.read()
        path = os.path.join(self.home, "a<b>&'\".xml")
        with open(path, "w") as file:
            file.write(text.replace("mlx5_1\"", "x&lt;script&gt;&amp;&quot;\"").replace(
                "AMD EPYC 7742 64-Core Processor", "&lt;/svg&gt;&#10;&#127;&#155;2J"))
        root = self.draw("--xml", path)
        self.assertEqual(list(root.iter("script")), [])
        out = self.taken("--xml", path)
        self.assertEqual([letter for letter in out if not (" " <= letter <= "~" or letter == "\n")], [])
        self.plan("--xml", path)


class Hostile(Topo):
    """Files and texts that would crash, fill or hang the program: a sentence, soon."""

    def write(self, content, name="bad.xml"):
        path = os.path.join(self.home, name)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def refused_soon(self, *words):
        start = time.monotonic()
        err = self.refused(*words)
        self.assertLess(time.monotonic() - start, 20)
        return err

    def test_what_is_no_topology(self):
        for content in (b"", b"\0", b"hello\n" * 99, os.urandom(4096), b"<topology/>", b"<?xml version='1.0'?>",
                        b"<topology version='2.0'><object type='Machine'/></topology>",
                        b"<topology version='9.9'><object type='PU' cpuset='0x1'/></topology>"):
            self.assertIn("bad.xml", self.refused_soon("--xml", self.write(content)))
        for path in (self.home, "/dev/zero", "/dev/tty", os.path.join(self.home, "absent"), "", "x" * 5000):
            self.refused_soon("--xml", path)
        fifo = os.path.join(self.home, "fifo")
        os.mkfifo(fifo)
        self.assertIn("not a regular file", self.refused_soon("--xml", fifo))

    def test_entities_and_size(self):
        laughs = "<!DOCTYPE topology [<!ENTITY a 'ha'>" + "".join(
            f"<!ENTITY a{i} '{f'&a{i - 1};' if i else '&a;'}{f'&a{i - 1};' if i else '&a;'}'>" for i in range(60))
        self.refused_soon("--xml", self.write(laughs + "]><topology version='2.0'>&a59;</topology>"))
        self.refused_soon("--xml", self.write("<!DOCTYPE t [<!ENTITY x SYSTEM 'file:///dev/zero'>]><t>&x;</t>"))
        path = os.path.join(self.home, "huge.xml")
        with open(path, "wb") as file:
            file.truncate(1 << 40)
        self.assertIn("bytes", self.refused_soon("--xml", path))
        deep = "<object type='Group' cpuset='0x1' nodeset='0x1'>" * 100000
        self.refused_soon("--xml", self.write("<topology version='2.0'>" + deep + "</topology>"))
        wide = "0x" + "f" * (8 << 20)
        self.refused_soon("--xml", self.write(f"<topology version='2.0'><object type='Machine' cpuset='{wide}'/>"
                                              "</topology>"))

    def test_cut_and_flipped(self):
        """Either refused or drawn: never a crash, never a second line."""
        with open(os.path.join(TOPOLOGIES, "power8-4p100.xml"), "rb") as file:
            good = file.read()
        chance = random.Random(5)
        tried = [good[:len(good) * i // 12] for i in range(12)]
        for _ in range(60):
            broken = bytearray(good)
            for _ in range(chance.randrange(1, 6)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            tried.append(bytes(broken))
        for number in (b"0", b"-1", b"4294967296", b"99999999999999999999", b"0xffffffffffffffff"):
            for name in (b"gp_index", b"os_index", b"nbobjs", b"length", b"osdev_type", b"depth", b"local_memory"):
                tried.append(re.sub(name + rb'="[^"]*"', name + b'="' + number + b'"', good))
        for content in tried:
            code, out, err = self.topo("--xml", self.write(content))
            self.assertIn(code, (0, 2), err)
            self.assertEqual(err.count("\n"), 1 if code else 0, err)
            self.assertTrue(out if code == 0 else err)

    def test_texts(self):
        for text in ("core:4294967295 pu:1", "pack:1000 core:1000 pu:1000", "numa:99999999 pu:1", "a" * 4095,
                     "a" * 5000, "pack:2 " * 600, "pu:%s" * 9, "core:2 pu:1 gpu:99", "(" * 900, "[numa" * 500,
                     "core:2(memory=" + "9" * 900 + " pu:1"):
            with self.subTest(text=text[:40]):
                self.refused_soon("--synthetic", text)


class Ranks(harness.LaunchTest):
    """What ranks are told of their place, and what real ones do with it."""
    foreign = True

    def node(self, name, **variables):
        """The machine of a file in the place of this one."""
        return dict(self.env, HWLOC_XMLFILE=os.path.join(TOPOLOGIES, name + ".xml"), **variables)

    def greetings(self, count, *words, env=None):
        server = self.run_ranks(*words, env=env)
        return [harness.greeting(address) for _, address in sorted(server.wait_ready(count).items())]

    def test_every_rank_its_gpu(self):
        told = self.greetings(9, "-n", "9", "--device", "cuda", env=self.node("dgx-a100"))
        self.assertEqual([told[0][name] for name in ("gpu", "memory_node", "progress")], ["", "", ""])
        self.assertEqual([rank["gpu"][:12] for rank in told[1:]], [f"GPU-{gpu:08x}" for gpu in range(8)])
        self.assertEqual([rank["memory_node"] for rank in told[1:]], list("33117755"))
        self.assertEqual((told[1]["progress"], told[1]["device"], told[1]["heartbeat"]),
                         ("48,176", "49,177", "50,178"))
        # Devices of another machine are not named to UCX here.
        self.assertEqual({rank["net_devices"] for rank in told}, {""})

    def test_nothing_is_placed_for_the_host_device(self):
        for told in self.greetings(3, "-n", "3", env=self.node("dgx-a100")):
            self.assertEqual({told[name] for name in ("gpu", "memory_node", "progress", "device", "heartbeat",
                                                      "net_devices")}, {""})

    def test_more_ranks_than_gpus(self):
        for words, env in ((["-n", "10"], self.node("dgx-a100")),
                           (["-n", "4"], self.node("dgx-a100", CUDA_VISIBLE_DEVICES="1,2"))):
            code, out, err = self.finish(os.path.join(BIN, "djinn-run"), "--rank-program", harness.ECHO, *words,
                                         "--device", "cuda", "--", "true", env=env)
            self.assertEqual((code, out), (2, ""), err)
            self.assertRegex(err, r"^djinn-run: \d+ ranks of this node would need a GPU each, and \d may be used[^\n]*\n$")
            self.assertEqual([name for name in os.listdir(self.home)
                              if not name.startswith("err.") and name != ".djinn"], [])

    def test_what_the_environment_grants(self):
        for variables, wanted in (({"CUDA_VISIBLE_DEVICES": "6,2"}, [2, 6]), ({"SLURM_STEP_GPUS": "4,5"}, [4, 5]),
                                  ({"SLURM_JOB_GPUS": "1,3", "CUDA_VISIBLE_DEVICES": "7,6"}, [6, 7])):
            told = self.greetings(3, "-n", "3", "--device", "cuda", env=self.node("dgx-h100", **variables))
            self.assertEqual([int(rank["gpu"][4:12], 16) for rank in told[1:]], wanted)

    def test_dry_run(self):
        code, out, err = self.finish(os.path.join(BIN, "djinn-run"), "--rank-program", harness.ECHO, "-n", "9",
                                     "--device", "cuda", "--dry-run", env=self.node("dgx-h100"))
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"rank 2 of 9 on \S+: cuda, threads 11, cores 14-27,126-139, GPU nvml1, NIC mlx5_3:1, "
                              r"NUMA node 0; its NIC lies behind one PCI switch; ")

    def slurm_tasks(self, count, per_task):
        tasks = []
        for rank in range(count):
            env = self.node("dgx-h100", SLURM_JOB_ID="79", SLURM_STEP_ID="0", SLURM_PROCID=str(rank),
                            SLURM_STEP_NUM_TASKS=str(count), SLURM_LOCALID=str(rank), SLURM_NODEID="0",
                            SLURM_STEP_TASKS_PER_NODE=str(count), **per_task(rank))
            tasks.append(self.start(os.path.join(BIN, "djinn-server"), "--rank-program", harness.ECHO, "--device",
                                    "cuda", env=env))
        return [int(harness.greeting(task.wait_ready(1)[rank])["gpu"][4:12] or "-1", 16)
                for rank, task in enumerate(tasks)]

    def test_tasks_of_one_node(self):
        self.assertEqual(self.slurm_tasks(4, lambda rank: {}), [-1, 0, 1, 2])

    def test_more_tasks_than_gpus(self):
        tasks = []
        for rank in range(4):
            env = self.node("dgx-h100", SLURM_JOB_ID="80", SLURM_STEP_ID="0", SLURM_PROCID=str(rank),
                            SLURM_STEP_NUM_TASKS="4", SLURM_LOCALID=str(rank), SLURM_NODEID="0",
                            SLURM_STEP_TASKS_PER_NODE="4", CUDA_VISIBLE_DEVICES="0,1")
            tasks.append(self.start(os.path.join(BIN, "djinn-server"), "--rank-program", harness.ECHO, "--device",
                                    "cuda", "--meet-ms", "2s", env=env))
        self.assertEqual([task.wait() for task in tasks], [2] * 4)
        # Once for all; who came too late to meet rank 0 says that instead.
        told = [task.errors().count("would need a GPU each, and 2 may be used (CUDA_VISIBLE_DEVICES is '0,1')")
                for task in tasks]
        self.assertEqual(told, [1, 0, 0, 0])

    def test_tasks_with_gpus_of_their_own(self):
        def given(rank):
            return {"SLURM_GPUS_PER_TASK": "1", "CUDA_VISIBLE_DEVICES": str(7 - rank)}
        self.assertEqual(self.slurm_tasks(3, given), [-1, 6, 5])

    def threads_of(self, pid):
        """Name → its cores; the main thread is the progress thread."""
        found = {}
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status") as file:
                status = file.read()
            name = "progress" if int(task) == pid else re.search(r"Name:\t(.*)", status).group(1)
            found[name] = re.search(r"Cpus_allowed_list:\t(.*)", status).group(1)
        return found

    def test_threads_of_a_real_rank(self):
        cores = sorted(os.sched_getaffinity(0))
        one, other = str(cores[0]), str(cores[-1])
        server = self.start(os.path.join(BIN, "djinn-run"), "--progress-cores", one, "--heartbeat-cores", other,
                            "--device-cores", other, "--memory-node", "0", env=self.env)
        server.wait_ready(1)
        with open(f"/proc/{server.pid}/task/{server.pid}/children") as file:
            pid = int(file.read().split()[0])

        def bound():
            found = self.threads_of(pid)
            return (found["progress"], found.get("dj-control"), found.get("dj-device")) == (one, other, other)
        harness.until(bound, "threads on their cores", 10)
        with open(f"/proc/{pid}/numa_maps") as file:
            self.assertIn("prefer", file.read())


if __name__ == "__main__":
    harness.main()
