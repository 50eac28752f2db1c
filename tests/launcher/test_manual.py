"""The pages of the manual: whole, and clean by groff's own word."""
import glob
import os
import re
import shutil
import subprocess

import harness
from harness import BIN

DJINN = os.path.join(BIN, "djinn")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = sorted(glob.glob(os.path.join(ROOT, "docs/man/*.1")), key=lambda page: page[:-2])
PROGRAMS = ["djinn", "djinn-run", "djinn-selftest", "djinn-server"]


class Manual(harness.LaunchTest):
    foreign = True

    def page(self, path):
        code, out, err = self.finish(DJINN, "manual", path)
        self.assertEqual((code, err), (0, ""))
        return out

    def test_a_page_for_each_program(self):
        self.assertEqual([os.path.basename(page) for page in PAGES], [f"{name}.1" for name in PROGRAMS])

    def test_every_option_is_on_every_page(self):
        rows = re.findall(r"^  (--[a-z-]+) ", self.finish(DJINN, "config")[1], re.M)
        self.assertGreater(len(rows), 40)
        for path in PAGES:
            text = self.page(path)
            self.assertNotIn("@VERSION@", text)
            self.assertNotIn("djinn:", text)
            for option in rows:
                with self.subTest(page=os.path.basename(path), option=option):
                    self.assertTrue(".TP\n\\fB" + option.replace("-", "\\-") + "\\fP\n" in text)
                    self.assertTrue("DJINN_" + option[2:].replace("-", "_").upper() + "." in text)

    def test_every_command_is_on_the_page_of_djinn(self):
        text = self.page(PAGES[0])
        usage = self.finish(DJINN, "--help")[1]
        names = re.findall(r"^  ([a-z]+(?: [a-z]+)?) ", usage, re.M)
        self.assertIn("plan show", names)
        for name in names:
            with self.subTest(name=name):
                self.assertTrue(f"\\fBdjinn {name}\\fP" in text)
                self.assertTrue(f".TP\n\\fB{name}\\fP" in text)

    def test_words_of_the_programs_are_on_their_pages(self):
        """What --help shows above the table's options is told by the page, too."""
        for path in PAGES[1:]:
            name = os.path.basename(path)[:-2]
            usage = self.finish(os.path.join(BIN, name), "--help")[1].split("\nFinding a server:")[0]
            text = self.page(path).replace("\\-", "-")
            for word in set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*\b", usage)) - {"--mpi"}:
                with self.subTest(page=name, word=word):
                    self.assertTrue(word in text)

    def test_groff_has_nothing_to_say(self):
        if not shutil.which("man") or not shutil.which("groff"):
            self.skipTest("man or groff is not here")
        for path in PAGES:
            made = os.path.join(self.home, os.path.basename(path))
            with open(made, "w") as file:
                file.write(self.page(path))
            done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", made],
                                  env=dict(self.env, LC_ALL="C.UTF-8", MANWIDTH="80", MANROFFSEQ=""),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  timeout=harness.LIMIT_S)
            self.assertEqual((done.returncode, done.stderr), (0, ""), path)

    def test_what_is_no_page(self):
        for words in ((), ("/no/such/page",), (self.home,), (PAGES[0], "x")):
            code, out, err = self.finish(DJINN, "manual", *words)
            self.assertEqual((code, out), (2, ""))
            self.assertNotEqual(err, "")


if __name__ == "__main__":
    harness.main()
