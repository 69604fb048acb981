#!/usr/bin/env python3
"""The run of tools/gpu_check.sh on the machine with the GPU: steps with a share of the time each, results in one JSON
file, which is complete at any time: what has not been reached yet is null.

Usage: check.py FOLDER OUT.json [--dry] [--seconds 570] [--only STEP,STEP]     FOLDER: an unpacked payload"""
import argparse
import datetime
import glob
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

BATCHES = [32, 8, 1]  # what matters most first
STRICT = {"DEPTHSTILL_FP32": "strict"}  # without it, tensor cores round the factors of fp32 products
UNTIMED = {"DEPTHSTILL_MEASURE": "0"}  # else the libraries' ways are built and timed for each of many small shapes
CANDIDATES = "*EveryCandidate*:*BothWays*"  # of the libraries: each is built for each shape, which takes minutes
COPY = """
import json, sys, time, torch
device = torch.device(sys.argv[1])
wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
a = torch.empty(1 << (28 if device.type == "cuda" else 22), dtype=torch.float32, device=device).normal_()
b = torch.empty_like(a)
times = []
for i in range(12):
    wait(); start = time.perf_counter(); b.copy_(a); wait(); times.append(time.perf_counter() - start)
print(json.dumps({"bytes_per_s": 2 * 4 * a.numel() / sorted(times[2:])[5], "bytes": 2 * 4 * a.numel()}))
"""


class Stopped(Exception):
    """A step that could not give its figures; the text says why."""


class Done:
    """What a program left: its exit code, or None where it ran out of time, after `seconds`."""

    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    def why(self):
        if self.code is None:
            return f"stopped after {self.seconds:.0f} s"
        lines = [line.strip() for line in self.err.strip().splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("depthstill: ")), lines[-1] if lines else "")
        return f"exit code {self.code}" + (f": {said[:300]}" if said else "")

    def reason(self):
        return {} if self.code == 0 else {"reason": self.why()}


class Check:
    def __init__(self, args):
        self.args = args
        self.folder = Path(args.folder).resolve()
        self.deadline = time.time() + args.seconds
        self.device = "cpu" if args.dry else "cuda"
        self.work = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        info = dict(line.split(" ", 1) for line in (self.folder / "gpu_check.txt").read_text().splitlines())
        self.result = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                       "dry": args.dry, "build": info, "steps": []}

    # ---- running things ------------------------------------------------------------------------------------------
    def environment(self, ours):
        env = dict(os.environ, DEPTHSTILL_TREE=str(self.folder), DEPTHSTILL_CACHE=str(self.work / "cache"),
                   OMP_WAIT_POLICY="passive")
        if ours:  # libraries of CUDA: the toolkit's, and for cuDNN those that PyTorch brings along
            wheels = [p for base in sys.path for p in glob.glob(f"{base}/nvidia/*/lib")]
            folders = [str(self.folder / "lib"), *wheels, "/usr/local/cuda/lib64", env.get("LD_LIBRARY_PATH", "")]
            env["LD_LIBRARY_PATH"] = ":".join(f for f in folders if f)
        return env

    def call(self, command, limit=math.inf, ours=True, **environment):
        """Done. The limit also ends with the step's or the run's time."""
        limit = min(limit, self.left())
        if limit < 1:
            raise Stopped("the time of the step was over" if self.step_end < self.deadline else
                          "the time of the whole run was over")
        with open(self.work / "stdout", "w+b") as out, open(self.work / "stderr", "w+b") as err:
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err, cwd=self.work,
                                       env={**self.environment(ours), **environment}, start_new_session=True)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = None
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode(errors="replace"))
        return Done(code, *texts, limit)

    def left(self):
        """Seconds of the step."""
        return self.step_end - time.time()

    def binary(self, name):
        path = self.folder / "bin" / name
        if not path.exists():
            raise Stopped(f"{name} is not in the pack")
        return path

    def depthstill_json(self, *arguments, limit=math.inf, **environment):
        done = self.call([self.binary("depthstill"), *arguments, "--json"], limit, **environment)
        if done.code != 0:
            raise Stopped(done.why())
        return json.loads(done.out)

    def step(self, entry, limit, function):
        """Puts function()'s value under the step's name; null and a reason if it has none."""
        start = time.time()
        self.step_end = min(start + limit, self.deadline)
        entry["reason"] = "was under way when the run was cut off"
        self.save()
        try:
            self.result[entry["name"]] = function()
            entry["ok"] = True
            del entry["reason"]
        except Stopped as stopped:
            entry["reason"] = str(stopped)
        except Exception as error:  # of this script: the other steps still count
            entry["reason"] = f"{type(error).__name__}: {error}"
        entry["seconds"] = round(time.time() - start, 1)
        print(f"{entry['seconds']:6.1f} s  {entry['name']}: {'done' if entry['ok'] else entry['reason']}", flush=True)
        self.save()

    def run_steps(self, steps):
        """steps: (name, weight, function), what matters most first. The time that remains is shared out by the weights of
        the steps that remain, so that none can take that of all others."""
        steps = [step for step in steps if not self.args.only or step[0] in self.args.only]
        entries = [{"name": name, "ok": False, "reason": "was not reached"} for name, _, _ in steps]
        self.result.update({name: None for name, _, _ in steps}, steps=entries)
        self.save()
        for i, (entry, (_, weight, function)) in enumerate(zip(entries, steps)):
            share = weight / sum(later for _, later, _ in steps[i:])
            self.step(entry, share * max(self.deadline - time.time(), 0), function)

    def save(self):
        out = Path(self.args.out)
        beside = out.with_name(out.name + ".tmp")
        beside.write_text(json.dumps(self.result, indent=1) + "\n")
        beside.replace(out)

    # ---- the steps -----------------------------------------------------------------------------------------------
    def machine(self):
        found = {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform(), "python": sys.version.split()[0],
                 "gpu": None, "driver": None, "memory_mib": None, "torch": None, "cudnn_of_torch": None, "nvcc": None}
        done = self.call(["bash", "-c", "nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm "
                          "--format=csv,noheader,nounits"], 20, ours=False)
        if done.code == 0:
            name, driver, memory, clock = done.out.strip().splitlines()[0].split(", ")
            found.update(gpu=name, driver=driver, memory_mib=int(memory), max_sm_mhz=int(clock))
        done = self.call([sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda, "
                          "torch.backends.cudnn.version())"], 60, ours=False)
        if done.code == 0:
            found["torch"], found["cuda_of_torch"], found["cudnn_of_torch"] = done.out.split()
        done = self.call(["bash", "-c", "(nvcc || /usr/local/cuda/bin/nvcc) --version 2>/dev/null || "
                          "/usr/local/cuda/bin/nvcc --version"], 20, ours=False)
        if done.code == 0:
            found["nvcc"] = re.search(r"V[\d.]+", done.out).group()
        done = self.call([self.binary("depthstill"), "info", "--json"], 30)
        found["depthstill"] = {k: v for k, v in json.loads(done.out).items() if k != "models"} if done.code == 0 else None
        return found

    def tests(self, name, *arguments, **environment):
        done = self.call([self.binary(name), "--gtest_color=no", *arguments], **environment)
        return {**test_figures(done.out), **done.reason()}

    def kernel_tests(self):
        """All kernel tests on the device, recorded."""
        return self.tests("kernel_tests", **STRICT, **UNTIMED, DEPTHSTILL_RECORD=str(self.work / "device.record"))

    def deviations(self):
        import compare
        if not (self.work / "device.record").exists():
            raise Stopped("the kernel tests left no record")
        table, unmatched = compare.deviations(compare.read(self.folder / "emulated.record"),
                                              compare.read(self.work / "device.record"))
        if not table:
            raise Stopped("nothing was recorded: no kernel ran on a device")
        return {"kernels": table, "not_comparable": unmatched}

    def kernels(self):
        """Time and bandwidth of single kernels, and the copy bandwidth that they are held against."""
        known = re.search(r"what TEXT:\{([^}]*)\}", self.call([self.binary("depthstill"), "bench", "--help"], 20).out)
        names = [n for n in known.group(1).split(",") if n not in ("train-step", "infer")] if known else []
        if not names:
            raise Stopped("this depthstill has no benchmarks of single kernels")
        tiny = ["--steps", 2, "--warmup", 1] if self.args.dry else ["--steps", 20, "--batch", 8]
        found = {}
        for precision in ("bf16", "fp32"):
            for name in names[:2] if self.args.dry else names:
                try:
                    run = self.depthstill_json("bench", name, "--device", self.device, "--precision", precision, *tiny)
                except Stopped as stopped:
                    run = {"reason": str(stopped)}
                found.setdefault(precision, {})[name] = run
        return found

    def bench(self):
        """Training steps and predictions of depthstill."""
        options = self.call([self.binary("depthstill"), "bench", "--help"], 20).out
        graphs = [[], ["--no-graph"]] if "--no-graph" in options else [[]]
        if len(graphs) == 1:
            self.result["no_graph_reason"] = "this depthstill has no --no-graph"
        size = ["--size", "64x96", "--steps", 1, "--warmup", 1] if self.args.dry else ["--steps", 10, "--warmup", 3]
        batches, precisions = [1] if self.args.dry else BATCHES, ("bf16", "fp32")
        wanted = [(batch, precision, what, extra) for batch in batches for precision in precisions
                  for what, extra in [("train-step", g) for g in graphs] + [("infer", [])]]
        wanted += [(batch, precision, "train-step", ["--all-rows"]) for batch in batches for precision in precisions]
        if "--fused-head" in options:  # in bf16 alone there are kernels for it on CUDA
            wanted += [(batch, "bf16", "train-step", ["--fused-head"]) for batch in batches]
            wanted += [(batch, "bf16", "infer", ["--stored-logits"]) for batch in batches]
        found, planned = [], set()
        for batch, precision, what, extra in wanted:
            # What was chosen for a shape is kept: the first run takes the time that choosing takes.
            shapes = (batch, precision, what, "--all-rows" in extra)
            limit = 40 if shapes in planned else 90
            planned.add(shapes)
            row = {"what": what, "precision": precision, "batch": batch, "options": " ".join(extra)}
            try:
                run = self.depthstill_json("bench", what, "--device", self.device, "--precision", precision, "--batch",
                                           batch, *size, *extra, limit=limit)
                row.update(run, images_per_s=1000 * batch / run["median_ms"])
            except Stopped as stopped:
                row.update(median_ms=None, reason=str(stopped))
            found.append(row)
            self.result["bench"] = found
            self.save()
        return found

    def largest_batch(self):
        """The greatest batch whose training step fits into the device's memory, to about an eighth."""
        if self.args.dry:
            raise Stopped("a dry run has no device memory to fill")
        found = {}
        for precision in ("bf16", "fp32"):
            fits, fails, reason = 0, 0, None
            end = time.time() + self.left() / (2 if precision == "bf16" else 1)
            while time.time() < end and (fails == 0 or fails - fits > max(1, fits // 8)):
                batch = (fits + fails) // 2 if fails else 2 * fits or 32
                try:
                    self.depthstill_json("bench", "train-step", "--device", self.device, "--precision", precision,
                                         "--batch", batch, "--steps", 1, "--warmup", 1, limit=20, **UNTIMED)
                    fits = batch
                except Stopped as stopped:
                    reason = str(stopped)
                    if "out of cuda memory" not in reason:  # says nothing about the size
                        break
                    fails = batch
                    if batch == 1:
                        break
            found[precision] = {"batch": fits or None, "fails": fails or None, "reason": reason}
        return found

    def copy_bandwidth(self):
        """Bytes read and written per second by a copy within device memory, through PyTorch."""
        done = self.call([sys.executable, "-c", COPY, self.device], ours=False)
        if done.code != 0:
            raise Stopped(done.why())
        return json.loads(done.out)

    def pytorch(self, variant):
        script = self.folder / "tests/bench/compare_pytorch_cuda.py"
        size = ["--size", "64x96", "--batches", "1", "--steps", "1"] if self.args.dry else ["--largest"]
        done = self.call([sys.executable, script, variant, "--device", self.device, *size,
                          "--seconds", str(max(self.left() - 10, 5))], ours=False)
        rows = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
        if not rows:
            raise Stopped(done.why())
        return {"rows": rows, **done.reason()}

    def ratios(self):
        """PyTorch's step time and memory over ours, at equal batches and the precision of the variant."""
        ours = {(r["what"], r["precision"], r["batch"]): r for r in self.result.get("bench") or []
                if r["options"] == "" and r.get("median_ms")}
        found = []
        for variant in ("eager_fp32", "eager_amp", "tuned"):
            for row in (self.result.get(f"pytorch_{variant}") or {}).get("rows", []):
                mine = ours.get((row["what"], row["precision"], row["batch"]))
                if mine and row.get("median_ms"):
                    found.append({"variant": variant, **{k: row[k] for k in ("what", "precision", "batch")},
                                  "time": row["median_ms"] / mine["median_ms"],
                                  "memory": row["peak_bytes"] / mine["peak_bytes"] if row.get("peak_bytes") else None})
        if not found:
            raise Stopped("no benchmark of ours has a counterpart in PyTorch")
        return found

    def parity(self):
        """20 training steps on simulated data, on the CPU and on the device."""
        data = self.work / "data"
        done = self.call([self.binary("depthstill"), "synth", "--out", data, "--train", 6, "--val", 1, "--size", "120x240"])
        if done.code != 0:
            raise Stopped("synth: " + done.why())
        steps = 2 if self.args.dry else 20
        settings = {"data.crop": "none", "data.resize_height": 96, "data.resize_width": 192, "data.val.list": "''",
                    "augment.crop_height": 96, "augment.crop_width": 160, "loss.top_rows": 30, "train.log_every": 1,
                    "train.max_steps": steps, "train.epochs": 50, "train.checkpoint_keep": 1, "select.on": "val"}
        assignments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]

        def losses(name, device, **environment):
            out = self.work / f"train_{name}"
            done = self.call([self.binary("depthstill"), "train", self.folder / "tools/recipes/demo.toml", "--data", data,
                              "--out", out, "--device", device, "--precision", name.split("_")[1], *assignments],
                             0.5 * self.left(), **environment)
            if done.code != 0:
                raise Stopped(f"{device}: {done.why()}")
            records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
            return [r["losses"]["total"] if "losses" in r else r["total"] for r in records if r["type"] == "step"]

        found = {}
        for precision in ("fp32", "bf16"):
            try:
                cpu = losses(f"cpu_{precision}", "cpu")
                found[f"{precision}_cpu"] = cpu
                for name, environment in ({"fp32_strict": STRICT, "fp32": {}} if precision == "fp32" else
                                          {"bf16": {}}).items():
                    device = losses(f"device_{name}", self.device, **UNTIMED, **environment)
                    relative = [abs(a - b) / abs(a) for a, b in zip(cpu, device)]
                    found[name] = {"steps": len(relative), "device": device, "first_rel": relative[0],
                                   "max_rel": max(relative), "last_rel": relative[-1],
                                   "finite": all(map(math.isfinite, device))}
            except Stopped as stopped:
                found[f"{precision}_reason"] = str(stopped)
        return found

    def sanitizer(self):
        tool = shutil.which("compute-sanitizer") or next(iter(glob.glob("/usr/local/cuda/bin/compute-sanitizer")), None)
        if tool is None:
            raise Stopped("compute-sanitizer was not found")
        found = {}
        for kind, share in (("memcheck", 0.5), ("racecheck", 0.67), ("synccheck", 1)):  # of what is left then
            try:
                done = self.call([tool, "--tool", kind, "--error-exitcode", 99, self.binary("kernel_tests"),
                                  "--gtest_color=no"], share * self.left(), **UNTIMED)
                errors = re.findall(r"========= ((?:Invalid|Error|Race|Uninit|Barrier).*)", done.out)
                summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", done.out)
                found[kind] = {**test_figures(done.out), "summary": summary[-1] if summary else None,
                               "first_errors": errors[:10], **done.reason()}
            except Stopped as stopped:
                found[kind] = {"reason": str(stopped)}
        return found

    def run(self):
        untimed = f"--gtest_filter=-Layering*:{CANDIDATES}"
        self.run_steps([
            ("machine", 25, self.machine),
            ("kernel_tests", 50, self.kernel_tests),
            ("deviations", 5, self.deviations),
            ("engine_tests", 50, lambda: self.tests("engine_tests", untimed, **STRICT, **UNTIMED)),
            ("fused_nan", 10, lambda: self.tests("cudnn_tests", "--gtest_filter=FusedNan*")),
            ("parity", 55, self.parity),
            ("bench", 120, self.bench),
            ("copy_bandwidth", 10, self.copy_bandwidth),
            ("pytorch_eager_fp32", 30, lambda: self.pytorch("eager_fp32")),
            ("pytorch_tuned", 75, lambda: self.pytorch("tuned")),
            ("pytorch_eager_amp", 30, lambda: self.pytorch("eager_amp")),
            ("ratios", 2, self.ratios),
            ("sanitizer", 70, self.sanitizer),
            ("kernels", 45, self.kernels),
            ("candidates", 25, lambda: self.tests("engine_tests", f"--gtest_filter={CANDIDATES}", **STRICT)),
            ("largest_batch", 25, self.largest_batch),
            ("cudnn_tests", 20, lambda: self.tests("cudnn_tests", "--gtest_filter=-FusedNan*")),
        ])
        shutil.rmtree(self.work, ignore_errors=True)
        return 0 if all(s["ok"] for s in self.result["steps"]) else 1


def test_figures(log):
    """What GoogleTest printed, also when it was stopped on the way."""
    count = lambda mark: len(re.findall(rf"^\[{mark}\] \S+(?: \(\d+ ms\)|, where .*\(\d+ ms\))$", log, re.M))
    failures = re.findall(r"^\[  FAILED  \] (\S+?),? .*\(\d+ ms\)$", log, re.M)
    return {"passed": count("       OK "), "failed": len(failures), "skipped": count("  SKIPPED "), "failures": failures}


def cpu_name():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--seconds", type=float, default=570)
    parser.add_argument("--only", type=lambda text: text.split(","))
    return Check(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
