"""djinn plan: real recordings, malformed ones, and the pictures."""
import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree

import harness
from harness import BIN

DJINN = os.path.join(BIN, "djinn")
GRAPHS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "graphs")
MINILM, GPT2, MLP = (os.path.join(GRAPHS, name + ".djs") for name in ("minilm-32", "gpt2-decode", "mlp"))
SVG = "{http://www.w3.org/2000/svg}"


class Plan(harness.LaunchTest):
    foreign = True

    def plan(self, *words):
        return self.finish(DJINN, "plan", *words)

    def refused(self, status, *words):
        """With one sentence and nothing else."""
        code, out, err = self.plan(*words)
        self.assertEqual((code, out), (status, ""), (words, err))
        self.assertRegex(err, r"^djinn: [^\n]+\n$")
        return err

    def test_wrong_use(self):
        for words in ([], ["nonsense"], ["show"], ["show", MLP, MLP], ["show", MLP, "--nope"],
                      ["show", MLP, "--svg"], ["show", MLP, "--program", "9"], ["show", MLP, "--program", "-1"],
                      ["show", MLP, "--stages", "2"], ["replay"], ["replay", MLP, "--runs", "0"],
                      ["replay", MLP, "--json"], ["cut", MLP], ["cut", MLP, "--stages", "0"],
                      ["cut", MLP, "--stages", "99"], ["cut", MLP, "--stages", "2", "--memory", "1X"],
                      ["cut", MLP, "--stages", "2", "--by", "luck"]):
            with self.subTest(words=words):
                self.refused(2, *words)

    def test_malformed_files(self):
        with open(MLP, "rb") as file:
            good = file.read()
        broken = {"empty": b"", "short": good[:-1], "long": good + b"x", "noise": os.urandom(4096),
                  "text": b"hello\n" * 99, "head": good[:5]}
        for at in range(0, len(good), max(1, len(good) // 16)):
            broken[f"byte{at}"] = good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1:]
        for name, content in broken.items():
            path = os.path.join(self.home, name)
            with open(path, "wb") as file:
                file.write(content)
            for words in (["show"], ["replay"], ["cut", "--stages", "2"]):
                with self.subTest(name=name, words=words):
                    self.assertIn(name, self.refused(2, words[0], path, *words[1:]))
        self.assertIn("absent", self.refused(2, "show", os.path.join(self.home, "absent")))
        self.refused(2, "show", self.home)
        fifo = os.path.join(self.home, "fifo")
        os.mkfifo(fifo)
        self.refused(2, "show", fifo)

    def test_show(self):
        code, out, err = self.plan("show", GPT2)
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"(?m)^  phase      decode, \d+% sure: ")
        self.assertRegex(out, r"(?m)^  peak       .* of the least possible")
        self.assertIn("aten::linear", out)

    def test_json(self):
        code, out, err = self.plan("show", GPT2, "--json")
        self.assertEqual((code, err), (0, ""))
        found = json.loads(out)
        self.assertEqual(found["phase"]["name"], "decode")
        for program in found["programs"]:
            nodes = program["nodes"]
            self.assertAlmostEqual(sum(n["flops"] for n in nodes), program["flops"],
                                   delta=1e-6 * program["flops"])
            self.assertEqual(sum(n["read_bytes"] + n["written_bytes"] for n in nodes),
                             program["moved_bytes"])
            self.assertGreaterEqual(program["peak_bytes"], program["bound_bytes"])
            self.assertEqual({n["lifecycle"] for n in nodes} - set(program["bytes"]), set())

    def test_svg(self):
        path = os.path.join(self.home, "slab.svg")
        self.assertEqual(self.plan("show", MINILM, "--svg", path), (0, "", ""))
        root = xml.etree.ElementTree.parse(path).getroot()
        boxes = root.find(f"{SVG}g[@class='boxes']")
        tooltips = [box.find(f"{SVG}title").text for box in boxes]
        self.assertGreater(len(tooltips), 50)
        self.assertTrue(any("aten::linear float32[8, 32, 1536]" in text for text in tooltips))
        places = [tuple(float(box.get(key)) for key in ("x", "y", "width", "height")) for box in boxes]
        for x, y, width, height in places:
            self.assertTrue(92 <= x and x + width <= 1092.1 and 96 <= y and y + height <= 648.1)
        self.refused(1, "show", MINILM, "--svg", os.path.join(self.home, "no", "where.svg"))

    def test_replay(self):
        for path in (MLP, MINILM):
            code, out, err = self.plan("replay", path, "--runs", "2")
            self.assertEqual((code, err), (0, ""))
            self.assertGreater(out.count("equal to the byte"), 0)
            self.assertEqual(out.count("equal to the byte"), out.count("plan proven"))

    def test_replay_without_kernels(self):
        llama = os.path.join(GRAPHS, "llama-decode.djs")
        self.assertIn("bfloat16", self.refused(1, "replay", llama))

    def test_plugins(self):
        """A detector of the example's; and what cannot be loaded stops the start of a command and of a rank."""
        rankers = os.path.join(os.path.dirname(BIN), "lib", "rankers.so")
        env = dict(self.env, DJINN_PLUGINS=rankers)
        code, out, err = self.finish(DJINN, "plan", "show", MLP, env=env)
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"(?m)^  phase      unknown")  # ten numbers a row: no ranker
        env["DJINN_LOG"] = "info"
        code, out, err = self.finish(os.path.join(BIN, "djinn-run"), "-n", "2", "--", "true", env=env)
        self.assertEqual(code, 0, err)
        self.assertEqual(len(re.findall("plugin rankers 1.0: 1 detectors, 1 rewrites", err)), 2)
        env["DJINN_PLUGINS"] = rankers + ":/nowhere.so"
        code, out, err = self.finish(DJINN, "plan", "show", MLP, env=env)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("/nowhere.so", err)
        code, out, err = self.finish(os.path.join(BIN, "djinn-run"), "-n", "1", "--", "true", env=env)
        self.assertNotEqual(code, 0)
        self.assertIn("/nowhere.so", err)

    def test_ctrl_c(self):
        replay = subprocess.Popen([DJINN, "plan", "replay", MLP, "--runs", "1000000"], env=self.env,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        replay.stdout.readline()
        began = time.monotonic()
        replay.send_signal(signal.SIGINT)
        replay.communicate(timeout=harness.LIMIT_S)
        self.assertEqual(replay.returncode, -signal.SIGINT)
        self.assertLess(time.monotonic() - began, 2)

    def test_cut(self):
        code, out, err = self.plan("cut", GPT2, "--stages", "4", "--by", "time")
        self.assertEqual((code, err), (0, ""))
        ranges = re.findall(r"(?m)^ +\d+ +(\d+) to (\d+) ", out)
        self.assertEqual(len(ranges), 4)
        self.assertEqual(ranges[0][0], "0")
        for before, after in zip(ranges, ranges[1:]):
            self.assertEqual(int(before[1]) + 1, int(after[0]))
        self.assertEqual(self.plan("cut", GPT2, "--stages", "4", "--memory", "1G")[0], 0)
        self.assertIn("needs", self.refused(1, "cut", GPT2, "--stages", "4", "--memory", "1M"))

    def test_completion(self):
        def complete(*words):
            script = (f"source <({DJINN} completion bash); COMP_WORDS=(\"$@\"); "
                      "COMP_CWORD=$(($# - 1)); _djinn; printf '%s\\n' \"${COMPREPLY[@]}\"")
            return self.finish("bash", "-c", script, "bash", *words)[1].split()
        self.assertIn("cut", complete("djinn", "plan", "c"))
        self.assertEqual(complete("djinn", "plan", "show", "--js"), ["--json"])
        self.assertEqual(complete("djinn", "plan", "cut", "--st"), ["--stages"])
        self.assertEqual(complete("djinn", "plan", "show", "file"), [])


if __name__ == "__main__":
    harness.main()
