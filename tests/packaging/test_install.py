"""cmake --install: whatever is moved works from where it lies."""
import os
import re
import shutil
import subprocess
import sys

import installed
from installed import BUILD, ROOT, dynamic, elf_files, scrubbed


class Install(installed.PackTest):
    def install(self, *words):
        first, moved = (os.path.join(self.folder, name) for name in ("first", "moved here"))
        self.run_ok("cmake", "--install", BUILD, "--prefix", first, *words)
        os.rename(first, moved)
        return moved

    def test_a_moved_tree(self):
        tree = self.install()
        for path in elf_files(tree):
            names = dict(dynamic(path))
            rpath = names.get("RUNPATH", names.get("RPATH", ""))
            with self.subTest(path=path):
                self.assertTrue(rpath.startswith("$ORIGIN"), rpath)
                self.assertNotIn("/work", rpath)
        out = self.run_ok(f"{tree}/bin/djinn-run", "-q", "-n", "3", "--", f"{tree}/bin/djinn-selftest")
        self.assert_selftest(out)
        self.run_ok(f"{tree}/bin/djinn-run", "-q", "-n", "1", "--", f"{tree}/bin/djinn_exec", "-i",
                    "100", "-x", "10")
        self.run_ok(f"{tree}/lib/djinn/tests/client_test_requests")
        for name in ("share/man/man1/djinn.1.gz", "share/bash-completion/completions/djinn",
                     "share/zsh/site-functions/_djinn", "share/doc/djinn/docs/install.md",
                     "share/modulefiles/djinn", "share/djinn/examples/matmul.c",
                     "share/djinn/djinn.def"):
            self.assertTrue(os.path.exists(f"{tree}/{name}"), name)

    def test_components(self):
        tree = self.install("--component", "runtime")
        self.assertFalse(os.path.exists(f"{tree}/include"))
        self.assertFalse(os.path.exists(f"{tree}/lib/djinn/tests"))
        self.assertFalse(os.path.exists(f"{tree}/bin/djinn_exec"))
        self.run_ok(f"{tree}/bin/djinn-run", "-q", "-n", "3", "--", f"{tree}/bin/djinn-selftest")

    def test_a_c_program_by_pkg_config(self):
        tree = self.install()
        env = scrubbed(self.folder, PKG_CONFIG_PATH=f"{tree}/lib/pkgconfig")
        # pkg-config and the shell each take a blank in a path for an end: a link without one.
        plain = self.folder.replace(" ", "-")
        os.symlink(tree, plain)
        self.addCleanup(os.unlink, plain)
        env["PKG_CONFIG_PATH"] = f"{plain}/lib/pkgconfig"
        flags = self.run_ok("pkg-config", "--cflags", "--libs", "djinn", env=env).split()
        program = f"{self.folder}/matmul"
        self.run_ok("cc", "-o", program, f"{plain}/share/djinn/examples/matmul.c", *flags,
                    f"-Wl,-rpath,{plain}/lib", "-lm")
        out = self.run_ok(f"{tree}/bin/djinn-run", "-q", "-n", "1", "--", program)
        self.assertIn("worst error", out)

    def test_the_python_package(self):
        python = os.path.join(ROOT, "build/venv/bin/python")
        tree = self.install()
        package = f"{tree}/lib/djinn/python"
        if not os.path.exists(f"{package}/djinn") or not os.path.exists(python):
            self.skipTest("the frontend was not built")
        words = ("import torch, djinn; assert djinn.__file__.startswith({0!r}), djinn.__file__; "
                 "djinn.connect(); x = torch.ones(3, 4).to('djinn'); print((x @ x.t()).cpu().sum())")
        out = self.run_ok(python, "-P", "-c", words.format(package),
                          env=scrubbed(self.folder, PYTHONPATH=package))
        self.assertIn("36", out)
        shim, = [name for name in os.listdir(f"{package}/djinn") if name.startswith("_C.")]
        os.rename(f"{package}/djinn/{shim}", f"{package}/djinn/_C.cpython-27.so")
        done = subprocess.run([python, "-P", "-c", "import djinn"], capture_output=True, text=True,
                              env=scrubbed(self.folder, PYTHONPATH=package), timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"does not fit Python 3\.\d+\.\d+ with torch .*docs/install\.md")

    def test_the_apptainer_recipe(self):
        """Nothing here can build it: its parts are the language's, and what it names is in the tree."""
        tree = self.install("--component", "runtime")
        with open(f"{tree}/share/djinn/djinn.def") as file:
            lines = file.read().splitlines()
        header = [line for line in lines if line and line[0] not in "# %"][:2]
        self.assertEqual([line.split(":")[0] for line in header], ["Bootstrap", "From"])
        parts = [line[1:] for line in lines if line.startswith("%")]
        self.assertEqual(len(parts), len(set(parts)))
        self.assertLessEqual(set(parts), {"files", "post", "environment", "test", "runscript", "labels",
                                          "help", "setup", "startscript", "arguments"})
        self.assertNotRegex("\n".join(lines), r"@\w+@")
        for name in re.findall(r"/opt/djinn/([\w/.-]+)", "\n".join(lines)):
            self.assertTrue(os.path.exists(f"{tree}/{name}"), name)
        for part in ("post", "test", "environment", "runscript"):
            body = lines[lines.index("%" + part) + 1:]
            end = next((i for i, line in enumerate(body) if line.startswith("%")), len(body))
            self.run_ok("sh", "-n", "-c", "\n".join(body[:end]))

    def test_module_files(self):
        tree = self.install()
        folder = f"{tree}/share/modulefiles/djinn"
        lua, tcl = sorted(os.listdir(folder), key=lambda name: name.endswith(".lua"), reverse=True)
        self.assertEqual(lua, tcl + ".lua")
        if shutil.which("tclsh"):
            # The few commands of Environment Modules, printing what they are given.
            script = ("foreach name {conflict module-whatis} { proc $name args {} }\n"
                      "foreach name {prepend-path setenv} { proc $name args \"puts \\[list $name "
                      "{*}\\$args\\]\" }\n"
                      "set ModulesCurrentModulefile [lindex $argv 0]\nsource [lindex $argv 0]\n")
            done = subprocess.run(["tclsh", "/dev/stdin", f"{folder}/{tcl}"], input=script, text=True,
                                  capture_output=True, timeout=20)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn(f"prepend-path PATH {{{tree}/bin}}", done.stdout)
            self.assertIn(f"prepend-path PYTHONPATH {{{tree}/lib/djinn/python}}", done.stdout)
        interpreter = next(filter(shutil.which, ("lua5.4", "lua5.3", "lua5.1", "lua")), None)
        if interpreter:
            script = ("function help() end whatis, conflict = help, help "
                      "function myFileName() return arg[1] end "
                      "function pathJoin(a, b) return a:gsub('/$', '') .. '/' .. b end "
                      "function prepend_path(name, path) print(name .. ' ' .. path) end "
                      "setenv = prepend_path dofile(arg[1])")
            with open(f"{self.folder}/modules.lua", "w") as file:
                file.write(script)
            out = self.run_ok(interpreter, f"{self.folder}/modules.lua", f"{folder}/{lua}")
            paths = dict(line.split(" ", 1) for line in out.splitlines())
            self.assertTrue(os.path.samefile(paths["PATH"], f"{tree}/bin"))
            self.assertTrue(os.path.samefile(paths["PYTHONPATH"], f"{tree}/lib/djinn/python"))


if __name__ == "__main__":
    installed.main()
