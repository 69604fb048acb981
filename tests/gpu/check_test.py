#!/usr/bin/env python3
"""The logic of tools/gpu_check.sh without a GPU: time limits, steps that fail, figures that are missing, deviations. The
programs of the pack are stand-ins. Needs the standard library only.  Usage: check_test.py"""
import argparse
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import check
import compare
import runner

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
if "--help" in sys.argv: print("what TEXT:{train-step,infer,softmax,dpm,ssim,conv2d} REQUIRED --no-graph --fused-head,!--stored-logits")
elif sys.argv[1] == "info": print(json.dumps({"version": "1", "models": {}}))
elif sys.argv[1] == "bench" and sys.argv[2] == "infer": sys.exit("depthstill: no device")
elif sys.argv[1] == "bench" and sys.argv[2] == "train-step": print(json.dumps({"median_ms": 20.0, "peak_bytes": 100, "fused_head": "--stored-logits" not in sys.argv}))
elif sys.argv[1] == "bench" and "dpm" in sys.argv and "ssim" in sys.argv: sys.exit("depthstill: dpm failed")
elif sys.argv[1] == "bench": print(json.dumps({"kernels": sys.argv[2]}))
elif sys.argv[1] == "train": sys.exit("depthstill: loss is not finite")
"""


def running():
    return [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]


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
        code, result = self.run_check("--only", "kernel_tests,deviations,engine_tests,bench_fp32,bench,losses,parity")
        self.assertEqual(code, 1)
        self.assertEqual(result["kernel_tests"], {"passed": 1, "failed": 1, "skipped": 1, "failures": ["AddKernel/1.Sums"],
                                                  "reason": "exit code 1"})
        self.assertAlmostEqual(result["deviations"]["kernels"]["add"]["f4"]["max_rel"], 1 / 3)
        self.assertIsNone(result["engine_tests"])
        self.assertEqual(result["ratios"], [])
        reasons = {s["name"]: s.get("reason") for s in result["steps"]}
        self.assertEqual(reasons["engine_tests"], "engine_tests is not in the pack")
        self.assertEqual(reasons["kernel_tests"], None)
        self.assertEqual(result["bench_fp32"][0]["images_per_s"], 50)
        rows = {(r["what"], r["options"]): r for r in result["bench"] if r["precision"] == "bf16"}
        self.assertEqual(set(rows), {("infer", ""), ("train-step", "--no-graph"), ("train-step", "--fused-head"),
                                     ("train-step", "--stored-logits"), ("infer", "--stored-logits")})
        self.assertTrue(result["bench_fp32"][0]["fused_head"])  # the step's choice
        self.assertFalse(rows["train-step", "--stored-logits"]["fused_head"])
        self.assertIsNone(rows["infer", ""]["median_ms"])
        self.assertIn("no device", rows["infer", ""]["reason"])
        self.assertIn("have no figure", reasons["bench"])
        self.assertEqual(result["losses"]["bf16"]["alone"], {"dpm": {"kernels": "dpm"}, "ssim": {"kernels": "ssim"}})
        self.assertEqual(reasons["losses"], "exit code 1: depthstill: dpm failed")
        self.assertIn("loss is not finite", result["parity"]["fp32_reason"])
        log = (self.root / "out.log").read_text()
        self.assertIn("[  FAILED  ] AddKernel/1.Sums", log)
        self.assertIn("exit code 1", log)

    def test_time_limits_end_a_step_and_what_it_started(self):
        self.program("depthstill", BENCH)
        self.program("kernel_tests", "import subprocess, time\nprint('[       OK ] A.B (1 ms)', flush=True)\n"
                     "subprocess.Popen(['sleep', '61.25'])\ntime.sleep(61)")
        start = time.monotonic()
        code, result = self.run_check("--seconds", "8", "--only", "kernel_tests,engine_tests,bench_fp32")
        self.assertLess(time.monotonic() - start, 30)
        self.assertEqual(code, 1)
        self.assertEqual(result["kernel_tests"]["passed"], 1)
        self.assertIn("stopped after", result["kernel_tests"]["reason"])
        self.assertFalse(next(s for s in result["steps"] if s["name"] == "kernel_tests")["ok"])
        self.assertEqual(result["bench_fp32"][0]["median_ms"], 20)  # later steps had their share
        self.assertNotIn(b"sleep\x0061.25\0", running())

    def runner(self, **arguments):
        run = runner.Runner(self.root / "out.json", 100, **arguments)
        self.addCleanup(shutil.rmtree, run.work)
        return run

    def test_what_matters_has_its_time_and_what_is_left_is_shared(self):
        run, limits = self.runner(), []
        run.step = lambda entry, limit, function: limits.append((entry["name"], limit)) or function()

        def takes(seconds):
            run.deadline -= seconds

        run.run_steps([[("a", 10, lambda: takes(2))], [("b", 30, lambda: takes(50)), ("b2", 20, lambda: None)],
                       [("c", 10, lambda: takes(48))], [("d", 5, lambda: None)]])
        whole = 100 / runner.FULL
        expected = {"a": 100 * 10 / 55, "b": 98 * 30 / 45, "b2": 98 * 30 / 45, "c": 48 * 10 / 15, "d": 5 * whole}
        self.assertEqual({name for name, _ in limits}, set(expected))
        for name, limit in limits:
            self.assertAlmostEqual(limit, expected[name], delta=1, msg=name)

    def test_steps_of_a_group_run_side_by_side(self):
        run = self.runner()
        met = threading.Barrier(2, timeout=30)
        run.run_steps([[("a", 1, lambda: met.wait() >= 0), ("b", 1, lambda: met.wait() >= 0)]])
        self.assertTrue(run.result["a"] and run.result["b"])

    def test_a_later_run_takes_what_an_earlier_one_has(self):
        self.runner().run_steps([[("a", 1, lambda: "first")], [("b", 1, lambda: (_ for _ in ()).throw(
            runner.Partial("half", "no time")))]])
        os.rename(self.root / "out.json", self.root / "earlier.json")
        run = self.runner(after=self.root / "earlier.json")
        run.run_steps([[("a", 1, lambda: "second")], [("b", 1, lambda: run.earlier["b"] + " whole")], [("c", 1, lambda: 3)]])
        result = json.loads((self.root / "out.json").read_text())
        self.assertEqual([result[name] for name in "abc"], ["first", "half whole", 3])
        self.assertTrue(all(step["ok"] for step in result["steps"]))

    def test_plans_and_figures_travel_from_run_to_run(self):
        self.program("depthstill", BENCH.replace('sys.argv[2] == "train-step": print', 'sys.argv[2] == "train-step": note(); print')
                     .replace("import json, sys", "import json, os, sys\ndef note():\n"
                              "  with open(os.environ['DEPTHSTILL_CACHE'] + '/plans-H100.txt', 'a') as f: f.write('x')"))
        self.run_check("--only", "bench_fp32")
        self.assertEqual((self.root / "out.plans-H100.txt").read_text(), "x")
        for name in ("out.json", "out.plans-H100.txt"):
            shutil.copy(self.root / name, self.root / name.replace("out", "one"))
        code, result = self.run_check("--only", "bench_fp32,bench_bf16", "--after", self.root / "one.json")
        self.assertEqual(code, 0)
        self.assertEqual((self.root / "out.plans-H100.txt").read_text(), "xx")
        (self.root / "gpu_check.txt").write_text("commit other\n")
        out = subprocess.run([sys.executable, HERE / "check.py", self.root, self.root / "o.json", "--dry", "--after",
                              self.root / "one.json"], capture_output=True, text=True)
        self.assertIn("expected a run of this pack", out.stderr)

    def test_ratios(self):
        run = check.Check(argparse.Namespace(folder=self.root, out=self.root / "out.json", dry=True, seconds=100, only=None,
                                             after=None))
        self.addCleanup(shutil.rmtree, run.work)
        ours = {"what": "train-step", "precision": "fp32", "batch": 32, "options": "", "median_ms": 64, "peak_bytes": 10}
        row = {"what": "train-step", "precision": "fp32", "batch": 24, "instead_of": 32, "median_ms": 96, "peak_bytes": 30}
        run.result.update(bench_untimed=[dict(ours, median_ms=100)], bench_fp32=[ours], pytorch_eager_fp32={"rows": [
            dict(row, batch=32, median_ms=None, reason="out of memory"), row]}, pytorch_more={"tuned": {"rows": [
                dict(row, batch=32, median_ms=128)]}})
        self.assertEqual([(r["variant"], r["batch"], r["our_batch"], r["time"], r["memory"]) for r in run.ratios()],
                         [("eager_fp32", 24, 32, 2, None), ("tuned", 32, 32, 2, 3)])

    def test_a_machine_that_cannot_run_the_pack_is_told_from_one_that_can(self):
        self.program("depthstill", "import sys\nsys.exit('libcudnn_graph.so.9: cannot open shared object file')")
        code, result = self.run_check("--only", "machine")
        self.assertIn("depthstill does not start", result["steps"][0]["reason"])
        self.assertIn("libcudnn_graph", result["steps"][0]["reason"])
        self.assertEqual(result["machine"]["libraries_not_found"], [])

    def start_run(self, *arguments, script=()):
        """With kernel tests that say when they have started, and do not end by themselves."""
        self.program("depthstill", BENCH)
        started = self.root / "started"
        self.program("kernel_tests", f"import time\nprint('[       OK ] A.B (1 ms)', flush=True)\n"
                     f"open({str(started)!r}, 'w').close()\ntime.sleep(20)")
        out = self.root / "out.json"
        command = script or [sys.executable, HERE / "check.py", self.root]
        run = subprocess.Popen([*command, out, "--dry", "--only", "machine,kernel_tests,bench"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not started.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return run, out

    def test_a_run_that_is_cut_off_leaves_what_it_had(self):
        run, out = self.start_run()
        run.kill()
        run.wait()
        result = json.loads(out.read_text())
        self.assertEqual(result["machine"]["depthstill"], {"version": "1"})
        self.assertIsNone(result["kernel_tests"])
        self.assertIsNone(result["bench"])
        self.assertEqual([(s["name"], s["ok"], s.get("reason")) for s in result["steps"]],
                         [("machine", True, None), ("kernel_tests", False, "was under way when the run was cut off"),
                          ("bench", False, "was not reached")])

    def test_a_run_that_is_told_to_stop_ends_at_once_and_says_so(self):
        (self.root / "pack").mkdir()
        for name in ("check.py", "compare.py", "runner.py"):
            (self.root / "tests/gpu").mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / name, self.root / "tests/gpu")
        self.program("depthstill", BENCH)
        self.program("kernel_tests", "")
        script = HERE.parent.parent / "tools/gpu_check.sh"
        pack = lambda: subprocess.run(["tar", "-C", self.root, "--exclude", "./pack", "-czf", self.root / "pack/payload.tar.gz",
                                       "."], check=True)
        real = self.program  # the pack must hold the programs that start_run makes

        def program(name, code):
            real(name, code)
            pack()

        self.program = program
        run, out = self.start_run(script=["bash", script, "--run", self.root / "pack"])
        run.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait(20), 1)
        result = json.loads(out.read_text())
        self.assertEqual(result["kernel_tests"]["passed"], 1)
        self.assertEqual([s["ok"] for s in result["steps"]], [True, False, False])
        self.assertIn("SIGTERM", result["steps"][2]["reason"])

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

    def test_a_thinned_recording_compares_as_the_whole_one(self):
        whole, thinned = self.root / "a", self.root / "b"
        values = range(3 * compare.MOST + 5)
        whole.write_bytes(entry("AddKernel.A", "f4", struct.pack(f"<{len(values)}f", *values)) +
                          entry("AddKernel.A", "bf16", bytes(2 * len(values))) + entry("AddKernel.A", "bytes", b"abc"))
        compare.thin(whole, thinned)
        self.assertEqual(compare.read(whole), compare.read(thinned))
        self.assertLess(thinned.stat().st_size, 0.4 * whole.stat().st_size)
        kind, count, kept = compare.read(thinned)["AddKernel.A"][0]
        self.assertEqual((kind, count, list(kept)), ("f4", len(values), list(values)[::3]))
        shorter = self.root / "c"
        shorter.write_bytes(entry("AddKernel.A", "f4", bytes(4)))
        self.assertEqual(compare.deviations(compare.read(thinned), compare.read(shorter))[1], ["AddKernel.A"])

    def test_usage_and_foreign_folders(self):
        script = HERE.parent.parent / "tools/gpu_check.sh"
        self.assertEqual(subprocess.run(["bash", script], capture_output=True).returncode, 2)
        done = subprocess.run(["bash", script, "--pack", self.root, "--dry"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("expected an empty folder or an earlier pack", done.stderr)


if __name__ == "__main__":
    unittest.main()
