"""djinn completion: what bash, zsh and fish offer behind words that were typed."""
import os
import re
import shutil
import subprocess
import sys

import harness
from harness import BIN

DJINN = os.path.join(BIN, "djinn")

BASH = """source <({djinn} completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _djinn; printf '%s\\n' "${{COMPREPLY[@]}}" """

# The functions of zsh's completion that the script calls, telling what they were given.
ZSH = """compdef() {{ }}
_files() {{ }}
_describe() {{ print -rl -- ${{(P)2}} }}
source <({djinn} completion zsh)
words=("$@") CURRENT=$#; _djinn"""

FISH = """{djinn} completion fish | source
complete -C (string join -- ' ' $argv)"""


def options():
    """Every --option of `djinn config`."""
    text = subprocess.run([DJINN, "config"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  (--[a-z-]+)", text, re.M))


class Shell:
    """The cases that hold in every shell."""

    def offers(self, *words):
        shell = type(self).__name__.lower()
        if not shutil.which(shell):
            self.skipTest(f"{shell} is not here")
        script = globals()[shell.upper()].format(djinn=DJINN)
        quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        name = [] if shell == "fish" else [shell]
        code, out, err = self.finish(shell, *quiet, "-c", script, *name, *words)
        self.assertEqual((code, err), (0, ""))
        typed = words[-1]
        found = [line.split("\t")[0].split(":")[0] for line in out.splitlines()]
        return {word for word in found if word and word.startswith(typed)}

    def test_commands(self):
        self.assertLessEqual({"config", "completion"}, self.offers("djinn", "c"))
        self.assertEqual({word[0] for word in self.offers("djinn", "c")}, {"c"})
        self.assertLessEqual({"info", "doctor", "plan", "config"}, self.offers("djinn", ""))
        self.assertEqual(self.offers("djinn", "plan", ""), {"show", "replay", "cut", "solve"} |
                         ({"--help"} if type(self).__name__ != "Fish" else set()))

    def test_words_of_a_command(self):
        self.assertEqual(self.offers("djinn", "info", "--js"), {"--json"})
        self.assertEqual(self.offers("djinn", "plan", "show", "--js"), {"--json"})
        self.assertEqual(self.offers("djinn", "plan", "cut", "--st"), {"--stages"})
        self.assertLessEqual({"bash", "zsh", "fish"}, self.offers("djinn", "completion", ""))
        self.assertEqual(self.offers("djinn", "nonsense", "--js"), set())

    def test_every_option_of_the_table(self):
        wanted = options()
        self.assertGreater(len(wanted), 40)
        self.assertEqual(self.offers("djinn-selftest", "--onl"), {"--only"})
        self.assertEqual(self.offers("djinn-run", "--onl"), set())
        for words in (("djinn-run",), ("djinn-server",), ("djinn-selftest",), ("djinn", "info")):
            with self.subTest(words=words):
                self.assertLessEqual(wanted, self.offers(*words, "--"))
        self.assertNotIn("--listen", self.offers("djinn", "config", "--"))

    def test_choices_of_an_option(self):
        self.assertEqual(self.offers("djinn-run", "--device", ""), {"host", "cuda"})
        self.assertEqual(self.offers("djinn", "info", "--auth", "t"), {"token"})


class Bash(Shell, harness.LaunchTest):
    foreign = True

    def test_an_equals_sign(self):
        self.assertEqual(self.offers("djinn-run", "--device", "=", "c"), {"cuda"})

    def test_files_are_left_to_the_shell(self):
        self.assertEqual(self.offers("djinn-run", "fi"), set())
        self.assertEqual(self.offers("djinn", "plan", "show", "fi"), set())


class Zsh(Shell, harness.LaunchTest):
    foreign = True


class Fish(Shell, harness.LaunchTest):
    foreign = True


if __name__ == "__main__":
    for shell in ("Zsh", "Fish"):
        if shell in sys.argv and not shutil.which(shell.lower()):
            sys.exit(77)
    harness.main()
