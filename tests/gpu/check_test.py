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
elif sys.argv[1] == "profile": print(json.dumps({"step_ms": 3, "layers": [1, 2]}))
elif sys.argv[1] == "bench" and sys.argv[2] == "train-step": print("depthstill: plan: a map: 1 of 2, engine 3, 0.5 ms", "other", sep="\\n", file=sys.stderr); print(json.dumps({"median_ms": 20.0, "peak_bytes": 100, "fused_head": "--stored-logits" not in sys.argv}))
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

    def run_check(self, call, *arguments, dry=True):
        done = subprocess.run([sys.executable, HERE / "check.py", call, self.root, self.root / "out", *arguments,
                               *(["--dry"] if dry else [])], capture_output=True, text=True, timeout=120)
        return done.returncode, json.loads((self.root / "out" / f"{call}.json").read_text())

    def states(self, result):
        return {stage["name"]: stage["state"] for stage in result["stages"]}

    def test_failing_stages_do_not_stop_the_others(self):
        self.program("depthstill", BENCH)
        self.program("kernel_tests", f"import os, sys\nprint({GTEST!r})\n"
                     "open(os.environ['DEPTHSTILL_RECORD'], 'wb').write(b'AddKernel.A f4 4\\n' + b'\\0\\0\\x80\\x3f')\nsys.exit(1)")
        (self.root / "emulated.record").write_bytes(entry("AddKernel.A", "f4", struct.pack("<f", 1.5)))
        code, result = self.run_check("compare", "--only", "kernel_tests,deviations,engine_tests,bench_fp32,bench,parity")
        self.assertEqual(code, 1)
        self.assertEqual(result["kernel_tests"], {"passed": 1, "failed": 1, "skipped": 1, "failures": ["AddKernel/1.Sums"],
                                                  "reason": "exit code 1"})
        self.assertAlmostEqual(result["deviations"]["kernels"]["add"]["f4"]["max_rel"], 1 / 3)
        self.assertIsNone(result["engine_tests"])
        self.assertEqual(result["ratios"], [])
        reasons = {s["name"]: s.get("reason") for s in result["stages"]}
        self.assertEqual(self.states(result), {"kernel_tests": "failed", "parity": "failed", "engine_tests": "failed",
                                               "deviations": "ok", "bench_fp32": "ok", "bench": "failed"})
        self.assertEqual(reasons["engine_tests"], "engine_tests is not in the pack")
        self.assertEqual(result["bench_fp32"][0]["images_per_s"], 50)
        rows = {(r["what"], r["options"]): r for r in result["bench"] if r["precision"] == "bf16"}
        self.assertEqual(set(rows), {("infer", ""), ("infer", "--no-graph"), ("train-step", "--no-graph"),
                                     ("train-step", "--fused-head"), ("train-step", "--stored-logits"),
                                     ("infer", "--stored-logits")})
        self.assertTrue(result["bench_fp32"][0]["fused_head"])  # the step's choice
        self.assertFalse(rows["train-step", "--stored-logits"]["fused_head"])
        self.assertIsNone(rows["infer", ""]["median_ms"])
        self.assertIn("no device", rows["infer", ""]["reason"])
        self.assertIn("have no figure", reasons["bench"])
        self.assertIn("loss is not finite", result["parity"]["fp32_reason"])
        log = (self.root / "out/compare.log").read_text()
        self.assertIn("[  FAILED  ] AddKernel/1.Sums", log)
        self.assertIn("exit code 1", log)

    def test_without_a_gpu_every_stage_fails_at_once_and_leaves_a_whole_log(self):
        said = "depthstill: device cuda is not available: no CUDA-capable device is detected"
        for name in ("depthstill", "kernel_tests", "engine_tests", "cudnn_tests"):
            self.program(name, f"import sys\nsys.exit({said!r})")
        fake = self.root / "site"  # a PyTorch that sees no GPU, and is there at once
        fake.mkdir()
        (fake / "torch.py").write_text("raise ImportError('no GPU')")
        for call in ("first", "compare"):
            start = time.monotonic()
            os.environ["PYTHONPATH"] = str(fake)
            code, result = self.run_check(call, dry=False)
            del os.environ["PYTHONPATH"]
            self.assertLess(time.monotonic() - start, 100)  # a few seconds where nothing else runs
            self.assertEqual(code, 1)
            states = self.states(result)
            ended = ["untimed", "kernel_tests", "timed", "profile", "kernels", "counters"] if call == "first" else []
            self.assertEqual({name for name, state in states.items() if state == "not reached"}, set(ended))
            self.assertNotIn("ok", states.values())
            for stage in result["stages"]:
                self.assertIn("smoke failed" if stage["name"] in ended else "", stage["reason"])
            log = (self.root / "out" / f"{call}.log").read_text()
            self.assertGreaterEqual(log.count(said), 3)
            for stage in result["stages"]:  # not errors of the script itself
                self.assertNotRegex(stage["reason"], r"^\w+Error: ")
        self.assertIn(said, result["stages"][2]["reason"])
        self.assertIn(said, json.loads((self.root / "out/first.json").read_text())["smoke"]["launch_by_launch"])

    def test_first_keeps_what_it_finds(self):
        self.program("depthstill", BENCH)
        self.program("kernel_tests", f"print({GTEST!r})")
        code, result = self.run_check("first", "--only", "smoke,untimed,kernel_tests,timed,profile,kernels")
        self.assertEqual(set(self.states(result).values()), {"ok"}, result["stages"])
        self.assertEqual(code, 0)
        out = self.root / "out"
        self.assertEqual((out / "choices.txt").read_text(), "depthstill: plan: a map: 1 of 2, engine 3, 0.5 ms\n")
        self.assertEqual(json.loads((out / "kernels.json").read_text()), {"kernels": "ssim"})
        self.assertEqual(json.loads((out / "profile.json").read_text())["layers"], [1, 2])
        # The second call sets PyTorch's figures beside these.
        code, result = self.run_check("compare", "--only", "deviations")
        run = self.check("compare")
        run.result["pytorch_eager_amp"] = {"rows": [{"what": "train-step", "precision": "bf16", "batch": 1, "median_ms": 80.0,
                                                     "peak_bytes": 300}]}
        self.assertEqual([(r["time"], r["memory"]) for r in run.ratios()], [(4, 3)])

    def test_time_limits_end_a_stage_and_what_it_started(self):
        self.program("depthstill", BENCH)
        self.program("kernel_tests", "import subprocess, time\nprint('[       OK ] A.B (1 ms)', flush=True)\n"
                     "subprocess.Popen(['sleep', '61.25'])\ntime.sleep(61)")
        run = self.check("compare", only=["kernel_tests", "bench_fp32"])
        self.assertFalse(run.run_stages([[("kernel_tests", 5, run.kernel_tests)], [("bench_fp32", 60, lambda: run.bench_rows(
            "bench_fp32", [("train-step", "fp32", 1, [])], {}))]]))
        self.assertEqual(run.result["kernel_tests"]["passed"], 1)
        self.assertIn("stopped after", run.result["kernel_tests"]["reason"])
        self.assertEqual(self.states(run.result), {"kernel_tests": "failed", "bench_fp32": "ok"})
        self.assertNotIn(b"sleep\x0061.25\0", running())

    def test_what_is_not_reached_has_not_failed(self):
        self.program("depthstill", BENCH)
        self.program("kernel_tests", "import time\nprint('[       OK ] A.B (1 ms)', flush=True)\ntime.sleep(61)")
        start = time.monotonic()
        code, result = self.run_check("compare", "--seconds", "4", "--only", "kernel_tests,bench_fp32,bench")
        self.assertLess(time.monotonic() - start, 60)
        self.assertEqual(code, 0)
        self.assertEqual(result["kernel_tests"]["passed"], 1)
        self.assertEqual(self.states(result), {"kernel_tests": "not reached", "bench_fp32": "not reached",
                                               "bench": "not reached"})

    def check(self, call, seconds=100, only=None):
        run = check.make(call, argparse.Namespace(folder=self.root, out=self.root / "out", dry=True, seconds=seconds,
                                                  only=only))
        self.addCleanup(shutil.rmtree, run.work, True)
        return run

    def runner(self, **arguments):
        run = runner.Runner("run", self.root, 100, **arguments)
        self.addCleanup(shutil.rmtree, run.work)
        return run

    def test_stages_of_a_group_run_side_by_side(self):
        run = self.runner()
        met = threading.Barrier(2, timeout=30)
        run.run_stages([[("a", 1, lambda: met.wait() >= 0), ("b", 1, lambda: met.wait() >= 0)]])
        self.assertTrue(run.result["a"] and run.result["b"])

    def test_plans_travel_to_the_second_call(self):
        self.program("depthstill", BENCH.replace('sys.argv[2] == "train-step": print', 'sys.argv[2] == "train-step": note(); print')
                     .replace("import json, sys", "import json, os, sys\ndef note():\n"
                              "  with open(os.environ['DEPTHSTILL_CACHE'] + '/plans-H100.txt', 'a') as f: f.write('x')"))
        self.run_check("first", "--only", "timed")
        self.assertEqual((self.root / "out/plans-H100.txt").read_text(), "x")
        self.run_check("compare", "--only", "bench_fp32")
        self.assertEqual((self.root / "out/plans-H100.txt").read_text(), "xx")

    def test_ratios(self):
        run = self.check("compare")
        ours = {"what": "train-step", "precision": "fp32", "batch": 32, "options": "", "median_ms": 64, "peak_bytes": 10}
        row = {"what": "train-step", "precision": "fp32", "batch": 24, "instead_of": 32, "median_ms": 96, "peak_bytes": 30}
        run.result.update(bench_fp32=[ours], pytorch_eager_fp32={"rows": [
            dict(row, batch=32, median_ms=None, reason="out of memory"), row]}, pytorch_more={"tuned": {"rows": [
                dict(row, batch=32, median_ms=128)]}})
        self.assertEqual([(r["variant"], r["batch"], r["our_batch"], r["time"], r["memory"]) for r in run.ratios()],
                         [("eager_fp32", 24, 32, 2, None), ("tuned", 32, 32, 2, 3)])

    def test_a_machine_that_cannot_run_the_pack_is_told_from_one_that_can(self):
        self.program("depthstill", "import sys\nsys.exit('libcudnn_graph.so.9: cannot open shared object file')")
        code, result = self.run_check("first", "--only", "machine")
        self.assertIn("depthstill does not start", result["stages"][0]["reason"])
        self.assertIn("libcudnn_graph", result["stages"][0]["reason"])
        self.assertEqual(result["machine"]["libraries_not_found"], [])

    def start_run(self, *arguments, script=()):
        """With kernel tests that say when they have started, and do not end by themselves."""
        self.program("depthstill", BENCH)
        started = self.root / "started"
        self.program("kernel_tests", f"import time\nprint('[       OK ] A.B (1 ms)', flush=True)\n"
                     f"open({str(started)!r}, 'w').close()\ntime.sleep(20)")
        command = script or [sys.executable, HERE / "check.py", "first", self.root]
        run = subprocess.Popen([*command, self.root / "out", "--dry", "--only", "machine,kernel_tests,timed"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not started.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return run, self.root / "out/first.json"

    def test_a_run_that_is_cut_off_leaves_what_it_had(self):
        run, out = self.start_run()
        run.kill()
        run.wait()
        result = json.loads(out.read_text())
        self.assertEqual(result["machine"]["depthstill"], {"version": "1"})
        self.assertIsNone(result["kernel_tests"])
        self.assertIsNone(result["timed"])
        self.assertEqual([(s["name"], s["state"], s.get("reason")) for s in result["stages"]],
                         [("machine", "ok", None), ("kernel_tests", "not reached", "was under way when the run was cut off"),
                          ("timed", "not reached", "the time was over before")])

    def test_a_run_that_is_told_to_stop_ends_at_once_and_says_so(self):
        (self.root / "pack").mkdir()
        for name in ("check.py", "compare.py", "runner.py", "first_stages.py", "compare_stages.py"):
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
        run, out = self.start_run(script=["bash", script, "first", self.root / "pack"])
        run.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait(20), 0, "nothing has failed")
        result = json.loads(out.read_text())
        self.assertEqual(result["kernel_tests"]["passed"], 1)
        self.assertEqual([s["state"] for s in result["stages"]], ["ok", "not reached", "not reached"])
        self.assertIn("SIGTERM", result["stages"][2]["reason"])

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
