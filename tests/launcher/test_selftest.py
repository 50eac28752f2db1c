"""djinn-selftest: that it passes on a server that is well, and above all that it fails on one that is not."""
import json
import os
import signal
import socket
import sys
import time

import harness
from harness import BIN

SELFTEST, RUN = (os.path.join(BIN, name) for name in ("djinn-selftest", "djinn-run"))
WRONG = os.environ.get("WRONG_ANSWERS", "")
TYPES = {"refusal", "deadline"}  # about errors, not about bytes


class Words(harness.LaunchTest):
    foreign = True

    def test_wrong_use(self):
        for words in (["nonsense"], ["--no-such"], ["--only"], ["--only", "no-such"], ["--limit-s"],
                      ["--limit-s", "0"], ["--limit-s", "x"], ["--address"], ["--deadline-ms", "x"]):
            with self.subTest(words=words):
                code, out, err = self.finish(SELFTEST, *words)
                self.assertEqual((code, out), (2, ""))
                self.assertEqual(len(err.splitlines()), 1, err)

    def test_no_server_is_known(self):
        code, out, err = self.finish(SELFTEST)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("djinn-run -n 3 -- djinn-selftest", err)

    def test_help_and_list(self):
        self.assertIn("--only NAME", self.finish(SELFTEST, "--help")[1])
        self.assertIn("--listen", self.finish(SELFTEST, "--help")[1])
        self.assertRegex(self.finish(SELFTEST, "--version")[1], r"^djinn-selftest \d")
        code, out, _ = self.finish(SELFTEST, "--list")
        names = [line.split()[0] for line in out.splitlines()]
        self.assertEqual(code, 0)
        self.assertEqual(len(names), len(set(names)))
        self.assertGreater(len([name for name in names if name.startswith("op-")]), 25)
        self.assertIn("gpu-sessions", names)

    def test_a_server_that_is_not_there(self):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = "127.0.0.1:%d" % closed.getsockname()[1]
        code, out, _ = self.finish(SELFTEST, "--json", "--address", address,
                                   env=dict(self.env, DJINN_TOKEN="0a" * 32))
        verdicts = {check["name"]: check["verdict"] for check in json.loads(out)["checks"]}
        self.assertEqual(code, 1)
        self.assertEqual(verdicts.pop("connect"), "FAIL")
        self.assertEqual(set(verdicts.values()), {"skipped"})

    def test_options_reach_the_library(self):
        for words in (["--connect-ms", "200ms"], ["--connect-ms=200ms"],
                      ["--checksums", "--connect-ms=200ms"], ["--checksums=0", "--connect-ms", "200ms"]):
            began = time.monotonic()
            self.assertEqual(self.hang(*words, "--only", "connect").wait(), 1)
            self.assertLess(time.monotonic() - began, 3)

    def hang(self, *words):
        """The selftest against a server that takes connections and says nothing."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        env = dict(self.env, DJINN_TOKEN="0a" * 32, DJINN_CONNECT_MS="1h")
        test = self.start(SELFTEST, "--address", "127.0.0.1:%d" % server.getsockname()[1], *words,
                          env=env)
        server.settimeout(harness.LIMIT_S)
        self.addCleanup(server.accept()[0].close)
        return test

    def test_the_limit_ends_it(self):
        began = time.monotonic()
        test = self.hang("--limit-s", "1")
        self.assertEqual(test.wait(), 1)
        self.assertLess(time.monotonic() - began, 5)
        self.assertIn("not done in time, within the check connect", test.errors())

    def test_control_c_ends_it(self):
        test = self.hang()
        began = time.monotonic()
        self.assertEqual(test.end(signal.SIGINT), 130)
        self.assertLess(time.monotonic() - began, 2)


class Ranks(harness.LaunchTest):
    foreign = True

    def examine(self, ranks, *words, **more):
        code, out, err = self.finish(RUN, "-q", "-n", str(ranks), "--", SELFTEST, "--json", *words,
                                     env=dict(self.env, **more))
        self.assertEqual(err, "")
        found = json.loads(out)
        self.assertEqual(code, found["verdict"] != "ok", out)
        return {check["name"]: check for check in found["checks"]}

    def verdicts(self, *words, **more):
        return {name: check["verdict"] for name, check in self.examine(*words, **more).items()}

    def test_three_ranks_are_well(self):
        found = self.examine(3)
        self.assertEqual({check["verdict"] for check in found.values()}, {"ok"}, found)
        self.assertRegex(found["latency"]["text"], r"median \d+\.\d us")
        self.assertRegex(found["bandwidth"]["text"], r"\d GB/s up")
        self.assertIn("tcp", found["tcp"]["text"])
        self.assertIn("relay", found["relay"]["text"])

    def test_one_rank_is_well(self):
        found = self.verdicts(1)
        self.assertEqual({name for name in found if found[name] == "skipped"}, {"workers", "move"})
        self.assertEqual({found[name] for name in found if name not in ("workers", "move")}, {"ok"})

    def test_a_table(self):
        code, out, err = self.finish(RUN, "-q", "-n", "1", "--", SELFTEST, "--only", "op")
        self.assertEqual((code, err), (0, ""))
        lines = out.splitlines()
        self.assertRegex(lines[-1], r"^\d+ ok, 0 failed, 0 skipped in ")
        self.assertTrue(all(line.startswith("ok       op-") for line in lines[:-1]), out)

    def test_only(self):
        self.assertEqual(set(self.examine(1, "--only", "op-mm", "--only", "put")), {"put", "op-mm"})
        # What could not run proves nothing.
        self.assertEqual(self.finish(RUN, "-q", "-n", "1", "--", SELFTEST, "--only", "move")[0], 1)

    def test_checks_of_a_gpu_are_skipped_without_one(self):
        found = self.examine(1, "--only", "gpu", "--only", "put")
        self.assertEqual({name: found[name]["verdict"] for name in found if name != "put"},
                         dict.fromkeys(("gpu-transfer", "gpu-cache", "gpu-replays", "gpu-sessions", "gpu-mm_float16",
                                        "gpu-mm_bfloat16"), "skipped"))
        self.assertIn("no rank with a device cuda", found["gpu-cache"]["text"])

    def test_wrong_bits_are_seen_by_every_check_of_bytes(self):
        found = self.verdicts(3, LD_PRELOAD=WRONG, WRONG="bits")
        self.assertGreater(len(found), 40)
        for name, verdict in found.items():
            self.assertEqual(verdict, "ok" if name in TYPES | {"connect"} else "FAIL", name)

    def test_wrong_types_of_errors_are_seen(self):
        found = self.verdicts(1, *(word for name in TYPES for word in ("--only", name)),
                              LD_PRELOAD=WRONG, WRONG="type")
        self.assertEqual(found, {name: "FAIL" for name in TYPES})


if __name__ == "__main__":
    if "Ranks" in sys.argv and not WRONG:
        sys.exit("WRONG_ANSWERS must name the library")
    harness.main()
