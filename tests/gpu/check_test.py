#!/usr/bin/env python3
"""The logic of tools/gpu_check.sh without a GPU: time limits, steps that fail, figures that are missing, deviations. The
programs of the pack are stand-ins. Needs the standard library only.  Usage: check_test.py"""
import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import check
import compare

GTEST = """[ RUN      ] SoftmaxKernel/0.Formula
[       OK ] SoftmaxKernel/0.Formula (2 ms)
[  SKIPPED ] AddKernel/0.Sums (0 ms)
[  FAILED  ] AddKernel/1.Sums, where TypeParam = float (3 ms)
[==========] 3 tests from 2 test suites ran. (5 ms total)
[  PASSED  ] 1 test.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] AddKernel/0.Sums
[  FAILED  ] 1 test, listed below:
[  FAILED  ] AddKernel/1.Sums, where TypeParam = float
"""
BENCH = """
import json, sys
if "--help" in sys.argv: print("what TEXT:{train-step,infer,softmax} REQUIRED")
elif sys.argv[1] == "info": print(json.dumps({"version": "1", "models": {}}))
elif sys.argv[1] == "bench" and sys.argv[2] == "infer": sys.exit("depthstill: no device")
elif sys.argv[1] == "bench": print(json.dumps({"median_ms": 20.0, "peak_bytes": 100}))
elif sys.argv[1] == "train": sys.exit("depthstill: loss is not finite")
"""


def entry(test, kind, raw):
    return f"{test} {kind} {len(raw)}\n".encode() + raw


class GpuCheck(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        (self.root / "bin").mkdir()
        (self.root / "gpu_check.txt").write_text("commit abc\nbuilt now\n")

    def program(self, name, code):
        path = self.root / "bin" / name
        path.write_text(f"#!{sys.executable}\n{code}")
        path.chmod(0o755)

    def run_check(self, *arguments):
        out = self.root / "out.json"
        done = subprocess.run([sys.executable, HERE / "check.py", self.root, out, "--dry", *arguments],
                              capture_output=True, text=True, timeout=120)
        return done.returncode, json.loads(out.read_text())

    def test_failing_steps_do_not_stop_the_others(self):
        self.program("depthstill", BENCH)
        self.program("kernel_tests", f"import os, sys\nprint({GTEST!r})\n"
                     "open(os.environ['DEPTHSTILL_RECORD'], 'wb').write(b'AddKernel.A f4 4\\n' + b'\\0\\0\\x80\\x3f')\nsys.exit(1)")
        (self.root / "emulated.record").write_bytes(entry("AddKernel.A", "f4", struct.pack("<f", 1.5)))
        code, result = self.run_check("--only", "kernel_tests,deviations,engine_tests,bench,ratios,parity")
        self.assertEqual(code, 1)
        self.assertEqual(result["kernel_tests"], {"passed": 1, "failed": 1, "skipped": 1, "failures": ["AddKernel/1.Sums"],
                                                  "reason": "exit code 1"})
        self.assertAlmostEqual(result["deviations"]["kernels"]["add"]["f4"]["max_rel"], 1 / 3)
        self.assertIsNone(result["engine_tests"])
        self.assertIsNone(result["ratios"])
        reasons = {s["name"]: s.get("reason") for s in result["steps"]}
        self.assertEqual(reasons["engine_tests"], "engine_tests is not in the pack")
        self.assertEqual(reasons["kernel_tests"], None)
        rows = {(r["what"], r["options"]): r for r in result["bench"] if r["precision"] == "bf16"}
        self.assertEqual(rows["train-step", ""]["images_per_s"], 50)
        self.assertIsNone(rows["infer", ""]["median_ms"])
        self.assertIn("no device", rows["infer", ""]["reason"])
        self.assertEqual(result["no_graph_reason"], "this depthstill has no --no-graph")
        self.assertIn("loss is not finite", result["parity"]["fp32_reason"])

    def test_time_limits_end_a_step_and_what_it_started(self):
        self.program("depthstill", BENCH)
        self.program("kernel_tests", "import subprocess, time\nprint('[       OK ] A.B (1 ms)', flush=True)\n"
                     "subprocess.Popen(['sleep', '61.25'])\ntime.sleep(61)")
        start = time.time()
        code, result = self.run_check("--seconds", "6", "--only", "kernel_tests,engine_tests,parity")
        self.assertLess(time.time() - start, 30)
        self.assertEqual(code, 1)
        self.assertEqual(result["kernel_tests"]["passed"], 1)
        self.assertIn("stopped after", result["kernel_tests"]["reason"])
        self.assertIn("loss is not finite", result["parity"]["fp32_reason"])  # later steps had their share
        running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
        self.assertNotIn(b"sleep\x0061.25\0", running)

    def test_the_time_that_is_left_is_shared_by_the_steps_that_are_left(self):
        arguments = argparse.Namespace(folder=self.root, out=self.root / "out.json", dry=True, seconds=100, only=None)
        run, limits = check.Check(arguments), []
        self.addCleanup(shutil.rmtree, run.work)
        run.step = lambda entry, limit, function: limits.append((entry["name"], limit)) or function()

        def takes(seconds):
            run.deadline -= seconds

        run.run_steps([("a", 10, lambda: takes(2)), ("b", 30, lambda: takes(50)), ("c", 10, lambda: takes(48)),
                       ("d", 5, lambda: None)])
        for (name, limit), expected in zip(limits, [("a", 100 * 10 / 55), ("b", 98 * 30 / 45), ("c", 48 * 10 / 15), ("d", 0)]):
            self.assertEqual(name, expected[0])
            self.assertAlmostEqual(limit, expected[1], delta=1)

    def test_a_run_that_is_cut_off_leaves_what_it_had(self):
        self.program("depthstill", BENCH)
        started = self.root / "started"
        self.program("kernel_tests", f"import time\nopen({str(started)!r}, 'w').close()\ntime.sleep(5)")
        out = self.root / "out.json"
        run = subprocess.Popen([sys.executable, HERE / "check.py", self.root, out, "--dry", "--only",
                                "machine,kernel_tests,bench"], stdout=subprocess.DEVNULL)
        end = time.time() + 60
        while not started.exists() and time.time() < end:
            time.sleep(0.05)
        run.kill()
        run.wait()
        result = json.loads(out.read_text())
        self.assertEqual(result["machine"]["depthstill"], {"version": "1"})
        self.assertIsNone(result["kernel_tests"])
        self.assertIsNone(result["bench"])
        self.assertEqual([(s["name"], s["ok"], s.get("reason")) for s in result["steps"]],
                         [("machine", True, None), ("kernel_tests", False, "was under way when the run was cut off"),
                          ("bench", False, "was not reached")])

    def test_deviations(self):
        self.assertEqual(compare.kernel_of("LayerNormKernel/1.Formula"), "layer_norm")
        self.assertEqual(compare.kernel_of("Sizes/MaxPool2dKernel.Formula/3"), "max_pool2d")
        floats = lambda *values: struct.pack(f"<{len(values)}f", *values)
        halves = lambda *values: b"".join(struct.pack("<f", v)[2:] for v in values)
        a, b = self.root / "a", self.root / "b"
        nan = float("nan")
        a.write_bytes(entry("GeluKernel.A", "f4", floats(1, -4, nan, nan)) + entry("GeluKernel.A", "bf16", halves(2, 8)) +
                      entry("GeluKernel.B", "bytes", b"abcd") + entry("AddKernel.C", "f4", floats(1)) +
                      entry("AddKernel.D", "f8", struct.pack("<d", 1)))
        b.write_bytes(entry("GeluKernel.A", "f4", floats(1, -3, nan, 5)) + entry("GeluKernel.A", "bf16", halves(2, 8.5)) +
                      entry("GeluKernel.B", "bytes", b"abXd") + entry("AddKernel.D", "f8", struct.pack("<d", 1)) +
                      entry("AddKernel.E", "f4", floats(1))[:-2])
        table, unmatched = compare.deviations(compare.read(a), compare.read(b))
        self.assertEqual(unmatched, ["AddKernel.C"])
        self.assertEqual(table["gelu"]["f4"], {"arrays": 1, "values": 4, "equal": 2, "not_finite_on_one_side": 1,
                                               "max_abs": 1.0, "max_rel": 0.25})
        self.assertEqual(table["gelu"]["bf16"]["max_abs"], 0.5)
        self.assertEqual(table["gelu"]["bytes"]["equal"], 3)
        self.assertEqual(table["add"]["f8"]["equal"], 1)

    def test_usage_and_foreign_folders(self):
        script = HERE.parent.parent / "tools/gpu_check.sh"
        self.assertEqual(subprocess.run(["bash", script], capture_output=True).returncode, 2)
        done = subprocess.run(["bash", script, "--pack", self.root, "--dry"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("expected an empty folder or an earlier pack", done.stderr)


if __name__ == "__main__":
    unittest.main()
