#!/usr/bin/env python3
"""The run of tools/gpu_check.sh on the machine with the GPU. Results are in one JSON file, which is complete at any time:
what has not been reached yet is null. Beside it, OUT.log has what the programs said, and OUT.plans-*.txt the libraries'
ways that were chosen there.

Usage: check.py FOLDER OUT.json [--dry] [--seconds 570] [--only STEP,STEP] [--after EARLIER.json]
FOLDER: an unpacked payload. --after: an earlier run of the same pack on the same kind of machine, whose figures are taken
over and whose missing ones are taken now."""
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
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from runner import FULL, Partial, Runner, Stopped

MAIN_BATCH, OTHER_BATCHES = 32, [8, 1]
PRECISIONS = ("bf16", "fp32")
VARIANTS = ("eager_fp32", "eager_amp", "tuned", "tuned_graphs")  # variants of tests/bench/compare_pytorch_cuda.py
STRICT = {"DEPTHSTILL_FP32": "strict"}  # without it, tensor cores round the factors of fp32 products
UNTIMED = {"DEPTHSTILL_MEASURE": "0"}  # without it, ways are built and timed for each of many small shapes
CANDIDATES = "*EveryCandidate*:*BothWays*"  # tests of the libraries' ways: each is built for each shape, for minutes
LIBRARIES = "Conv2dKernel*:LinearKernel*:*/Conv2dKernel*:*/LinearKernel*"  # kernel tests of NVIDIA's kernels
LOSSES = ("dpm", "ssim", "dpm_head")  # kernels that are timed first
BY_LIBRARY = ("conv2d", "linear")  # kernels timed last: choosing a library's way takes longer than all the others
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


class Check(Runner):
    def __init__(self, args):
        super().__init__(args.out, args.seconds - float(os.environ.get("GPU_CHECK_SPENT", 0)), args.only, args.after)
        self.folder, self.dry = Path(args.folder).resolve(), args.dry
        self.device = "cpu" if args.dry else "cuda"
        text = (self.folder / "gpu_check.txt").read_text()
        info = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        if self.earlier.get("build", info) != info:
            sys.exit(f"{args.after}: expected a run of this pack, {info}, found {self.earlier['build']}")
        self.result.update(date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                           dry=args.dry, build=info)
        self.cache = self.work / "cache"
        self.cache.mkdir()
        if args.after:
            for file in Path(args.after).parent.glob(f"{Path(args.after).stem}.plans-*.txt"):
                shutil.copy(file, self.cache / file.name[len(Path(args.after).stem) + 1:])

    def environment(self, ours):
        env = dict(os.environ, DEPTHSTILL_TREE=str(self.folder), DEPTHSTILL_CACHE=str(self.cache),
                   OMP_WAIT_POLICY="passive")
        if ours:  # libraries of CUDA: those that PyTorch brings along, cuDNN among them, else the toolkit's
            wheels = sorted(p for base in sys.path for p in glob.glob(f"{base}/nvidia/*/lib"))
            folders = [str(self.folder / "lib"), *wheels, *sorted(glob.glob("/usr/local/cuda*/lib64")),
                       *sorted(glob.glob("/usr/local/cuda*/lib")), "/usr/local/nvidia/lib64", env.get("LD_LIBRARY_PATH", "")]
            env["LD_LIBRARY_PATH"] = ":".join(f for f in folders if f)
        return env

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

    def save(self):
        with self.lock:
            self.result["ratios"] = self.ratios()
            for file in self.cache.glob("plans-*.txt"):
                shutil.copy(file, self.out.with_name(f"{self.out.stem}.{file.name}"))
        super().save()

    # ---- the machine ---------------------------------------------------------------------------------------------
    def machine(self):
        found = {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform(), "python": sys.version.split()[0],
                 "libc": " ".join(platform.libc_ver()), "gpu": None, "driver": None, "memory_mib": None, "torch": None,
                 "cudnn_of_torch": None, "nvcc": None}
        try:
            self.ask_machine(found)
        except Stopped as stopped:
            raise Partial(found, str(stopped))
        return found

    def ask_machine(self, found):
        done = self.call([self.binary("depthstill"), "info", "--json"], 60)  # the program reads gigabytes of libraries
        found["depthstill"] = {k: v for k, v in json.loads(done.out).items() if k != "models"} if done.code == 0 else None
        if done.code != 0:
            linked = self.call(["ldd", self.binary("depthstill")], 10)
            found["libraries_not_found"] = re.findall(r"(\S+) => not found", linked.out)
        start = done
        done = self.call(["bash", "-c", "nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm "
                          "--format=csv,noheader,nounits"], 20, ours=False)
        if done.code == 0:
            values = [text.strip() for text in done.out.strip().splitlines()[0].split(",")]
            found.update(zip(("gpu", "driver", "memory_mib", "max_sm_mhz"), map(number_or_text, values)))
        done = self.call(["bash", "-c", "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc) --version"], 20, ours=False)
        version = re.search(r"V[\d.]+", done.out)
        found["nvcc"] = version.group() if version else None
        done = self.call([sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda, "
                          "torch.backends.cudnn.version())"], 60, ours=False)
        if done.code == 0:
            found["torch"], found["cuda_of_torch"], found["cudnn_of_torch"] = done.out.split()
        if start.code != 0:
            raise Stopped("depthstill does not start: " + start.why())

    def smoke(self):
        """A small training step: launched, captured as a graph, and in both precisions."""
        rows = [self.bench_row("train-step", precision, 1, UNTIMED, *extra, size="64x96")
                for precision in PRECISIONS for extra in ([], ["--no-graph"])[:1 if self.dry else 2]]
        bad = [row["reason"] for row in rows if row["median_ms"] is None]
        bad += [f"{row['precision']}: the step was not captured" for row in rows
                if row.get("captured") is False and not row["options"] and not self.dry]
        if bad:
            raise Partial(rows, bad[0])
        return rows

    # ---- benchmarks ----------------------------------------------------------------------------------------------
    def bench_row(self, what, precision, batch, environment, *extra, size=None, limit=math.inf):
        row = {"what": what, "precision": precision, "batch": batch, "options": " ".join(extra)}
        if self.dry:
            timing = ["--size", "64x96", "--steps", 1, "--warmup", 1]
        else:
            timing = ["--steps", 10, "--warmup", 3, *(["--size", size] if size else [])]
        try:
            run = self.depthstill_json("bench", what, "--device", self.device, "--precision", precision, "--batch", batch,
                                       *timing, *extra, limit=limit, **environment)
            row.update(run, images_per_s=1000 * batch / run["median_ms"])
        except Stopped as stopped:
            row.update(median_ms=None, reason=str(stopped))
        return row

    def bench_rows(self, name, wanted, environment, limit=math.inf):
        """wanted: (what, precision, batch, options). Rows that an earlier run has are taken from there."""
        key = lambda r: (r["what"], r["precision"], r["batch"], r["options"])
        had = {key(r): r for r in self.earlier.get(name) or [] if r["median_ms"] is not None}
        rows = []
        for what, precision, batch, extra in wanted:
            row = had.get((what, precision, batch, " ".join(extra)))
            rows.append(row or self.bench_row(what, precision, batch, environment, *extra, limit=limit))
            self.result[name] = rows
            self.save()
        missing = [r for r in rows if r["median_ms"] is None]
        if missing:
            raise Partial(rows, f"{len(missing)} of {len(rows)} have no figure, the first: {missing[0]['reason']}")
        return rows

    def main_batch(self):
        return 1 if self.dry else MAIN_BATCH

    def bench_untimed(self):
        """Steps with the plans that the libraries rank first: figures within seconds."""
        wanted = [("train-step", precision, self.main_batch(), []) for precision in PRECISIONS]
        return self.bench_rows("bench_untimed", wanted, UNTIMED)

    def bench_main(self, precision):
        """Its first run also builds and times the libraries' ways, for a minute or more; they are kept."""
        wanted = [("train-step", precision, self.main_batch(), [])]
        return self.bench_rows(f"bench_{precision}", wanted, {})

    def bench(self):
        """Predictions, other batches and what the options bring."""
        options = self.call([self.binary("depthstill"), "bench", "--help"], 20).out
        batches = [self.main_batch(), *([] if self.dry else OTHER_BATCHES)]
        pairs = [(batch, precision) for batch in batches for precision in PRECISIONS]
        wanted = [("infer", precision, batch, []) for batch, precision in pairs]
        wanted += [("train-step", precision, batch, []) for batch, precision in pairs if batch != self.main_batch()]
        # The head runs both ways in bf16, of which alone there are fused kernels on CUDA: what a step chooses by itself
        # is "fused_head" in the row without options.
        for option, precisions in (("--no-graph", PRECISIONS), ("--fused-head", ["bf16"]), ("--stored-logits", ["bf16"]),
                                   ("--all-rows", PRECISIONS)):
            if option in options:
                wanted += [("train-step", precision, batch, [option]) for batch, precision in pairs if precision in precisions]
        if "--stored-logits" in options:
            wanted += [("infer", "bf16", batch, ["--stored-logits"]) for batch in batches]
        return self.bench_rows("bench", wanted, {}, limit=120)

    def largest_batch(self):
        """The greatest batch whose training step fits into the device's memory, to about an eighth."""
        if self.dry:
            raise Stopped("a dry run has no device memory to fill")
        found = {}
        for precision in PRECISIONS:
            fits, fails, reason = 0, 0, None
            while fails == 0 or fails - fits > max(1, fits // 8):
                batch = (fits + fails) // 2 if fails else 2 * fits or 32
                try:
                    self.depthstill_json("bench", "train-step", "--device", self.device, "--precision", precision,
                                         "--batch", batch, "--steps", 1, "--warmup", 1, limit=30, **UNTIMED)
                    fits = batch
                except Stopped as stopped:
                    reason = str(stopped)
                    if "out of cuda memory" not in reason:  # the reason says nothing about the size
                        break
                    fails = batch
                    if batch == 1:
                        break
            found[precision] = {"batch": fits or None, "fails": fails or None, "reason": reason}
        return found

    def kernel_times(self, names):
        """{precision: {kernel: rows}} of single kernels, beside the copy bandwidth and the products' rate measured there.
        Together in one process; each alone where that fails."""
        tiny = ["--steps", 2, "--warmup", 1] if self.dry else ["--steps", 20, "--batch", 8]
        found = {}
        for precision in PRECISIONS:
            one = lambda *some: self.depthstill_json("bench", *some, "--device", self.device, "--precision", precision, *tiny)
            try:
                found[precision] = one(*names)
            except Stopped as stopped:
                if self.left() < 1:
                    raise Partial(found, str(stopped)) if found else stopped
                found[precision] = {"reason": str(stopped), "alone": {}}
                for name in names:
                    try:
                        found[precision]["alone"][name] = one(name)
                    except Stopped as alone:
                        found[precision]["alone"][name] = {"reason": str(alone)}
        failed = [run["reason"] for run in found.values() if "reason" in run]
        if failed:
            raise Partial(found, failed[0])
        return found

    def kernels(self, among):
        text = self.call([self.binary("depthstill"), "bench", "--help"], 20).out
        known = re.search(r"what TEXT:\{([^}]*)\}", text)
        names = [n for n in known.group(1).split(",") if n not in ("train-step", "infer") and among(n)] if known else []
        if not names:
            raise Stopped("this depthstill has no such benchmarks")
        return self.kernel_times(names[:2] if self.dry else names)

    def copy_bandwidth(self):
        """Bytes read and written per second by a copy within device memory, through PyTorch."""
        done = self.call([sys.executable, "-c", COPY, self.device], ours=False)
        if done.code != 0:
            raise Stopped(done.why())
        return json.loads(done.out)

    # ---- PyTorch -------------------------------------------------------------------------------------------------
    def pytorch(self, variant, batches, *options, limit=math.inf):
        script = self.folder / "tests/bench/compare_pytorch_cuda.py"
        batches = [1] if self.dry else batches
        size = ["--size", "64x96", "--steps", "1"] if self.dry else []
        seconds = max(min(self.left(), limit) - 10, 5)
        done = self.call([sys.executable, script, variant, "--device", self.device, "--seconds", f"{seconds:.0f}",
                          "--batches", ",".join(map(str, batches)), *size, *options], limit, ours=False)
        rows = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
        if not rows:
            raise Stopped(done.why())
        found = {"rows": rows, **done.reason()}
        if done.code != 0:
            raise Partial(found, done.why())
        return found

    def pytorch_more(self):
        """Predictions and other batches. What was compiled before comes from the compiler's cache on disk."""
        found = {}
        for i, variant in enumerate(VARIANTS):
            main = [] if variant == "tuned_graphs" else [MAIN_BATCH]
            try:
                found[variant] = self.pytorch(variant, [*main, *OTHER_BATCHES], "--skip", f"train-step:{MAIN_BATCH}",
                                              "--largest", limit=self.left() / (len(VARIANTS) - i))
            except Partial as partial:
                found[variant] = partial.value
            except Stopped as stopped:
                found[variant] = {"rows": [], "reason": str(stopped)}
        missing = [f"{variant}: {run['reason']}" for variant, run in found.items() if "reason" in run]
        if missing:
            raise Partial(found, "; ".join(missing))
        return found

    def ratios(self):
        """PyTorch's time per image and memory over ours, at the same precision, and the same batch if both have it."""
        ours = {}
        for name in ("bench_untimed", "bench_fp32", "bench_bf16", "bench"):  # later ones replace earlier ones
            for row in self.result.get(name) or []:
                if row["options"] == "" and row.get("median_ms"):
                    ours[row["what"], row["precision"], row["batch"]] = row
        more = self.result.get("pytorch_more") or {}
        found = []
        for variant in VARIANTS:
            runs = [self.result.get(f"pytorch_{variant}") or {}, more.get(variant) or {}]
            for row in [row for run in runs for row in run.get("rows", [])]:
                wanted = row.get("instead_of") or row["batch"]  # instead_of: the batch that did not fit
                mine = ours.get((row["what"], row["precision"], row["batch"])) or \
                    ours.get((row["what"], row["precision"], wanted))
                if not mine or not row.get("median_ms"):
                    continue
                same = mine["batch"] == row["batch"]
                found.append({"variant": variant, **{k: row[k] for k in ("what", "precision", "batch")},
                              "our_batch": mine["batch"],
                              "time": row["median_ms"] / row["batch"] / (mine["median_ms"] / mine["batch"]),
                              "memory": row["peak_bytes"] / mine["peak_bytes"] if same and row.get("peak_bytes") else None})
        return found

    # ---- correctness ---------------------------------------------------------------------------------------------
    def tests(self, name, *arguments, **environment):
        done = self.call([self.binary(name), "--gtest_color=no", *arguments], **environment)
        found = {**test_figures(done.out), **done.reason()}
        if done.code is None:
            raise Partial(found, done.why())
        return found

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

    def sanitizer(self, kind):
        """Of our own kernels."""
        tool = shutil.which("compute-sanitizer") or next(iter(glob.glob("/usr/local/cuda*/bin/compute-sanitizer")), None)
        if tool is None:
            raise Stopped("compute-sanitizer was not found")
        done = self.call([tool, "--tool", kind, "--error-exitcode", 99, self.binary("kernel_tests"), "--gtest_color=no",
                          f"--gtest_filter=-{LIBRARIES}"], **UNTIMED)
        errors = re.findall(r"========= ((?:Invalid|Error|Race|Uninit|Barrier|Program hit).*)", done.out)
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", done.out)
        found = {**test_figures(done.out), "summary": summary[-1] if summary else None, "first_errors": errors[:10],
                 **done.reason()}
        if done.code is None:
            raise Partial(found, done.why())
        return found

    def parity(self):
        """20 training steps on simulated data, on the CPU and on the device."""
        data = self.work / "data"
        done = self.call([self.binary("depthstill"), "synth", "--out", data, "--train", 6, "--val", 1, "--size", "120x240"])
        if done.code != 0:
            raise Stopped("synth: " + done.why())
        settings = {"data.crop": "none", "data.resize_height": 96, "data.resize_width": 192, "data.val.list": "''",
                    "augment.crop_height": 96, "augment.crop_width": 160, "loss.top_rows": 30, "train.log_every": 1,
                    "train.max_steps": 2 if self.dry else 20, "train.epochs": 50, "train.checkpoint_keep": 1,
                    "select.on": "val"}
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
                cpu = found[f"{precision}_cpu"] = losses(f"cpu_{precision}", "cpu")
                settings_of = {"fp32_strict": STRICT, "fp32": {}} if precision == "fp32" else {"bf16": {}}
                for name, environment in settings_of.items():
                    device = losses(f"device_{name}", self.device, **UNTIMED, **environment)
                    relative = [abs(a - b) / abs(a) for a, b in zip(cpu, device)]
                    found[name] = {"steps": len(relative), "device": device, "first_rel": relative[0],
                                   "max_rel": max(relative), "last_rel": relative[-1],
                                   "finite": all(map(math.isfinite, device))}
            except Stopped as stopped:
                found[f"{precision}_reason"] = str(stopped)
        missing = [found[key] for key in found if key.endswith("_reason")]
        if missing:
            raise Partial(found, missing[0])
        return found

    def run(self):
        untimed = f"--gtest_filter=-Layering*:{CANDIDATES}"
        own = lambda n: n not in LOSSES and n not in BY_LIBRARY
        self.run_steps([
            [("machine", 60, self.machine)],
            [("smoke", 40, self.smoke)],
            [("bench_untimed", 60, self.bench_untimed)],
            [("pytorch_eager_fp32", 45, lambda: self.pytorch("eager_fp32", [MAIN_BATCH], "--what", "train-step"))],
            [("bench_bf16", 200, lambda: self.bench_main("bf16"))],
            [("pytorch_tuned", 150, lambda: self.pytorch("tuned", [MAIN_BATCH], "--what", "train-step"))],
            [("losses", 45, lambda: self.kernels(lambda n: n in LOSSES))],
            [("pytorch_eager_amp", 30, lambda: self.pytorch("eager_amp", [MAIN_BATCH], "--what", "train-step"))],
            [("kernel_tests", 110, self.kernel_tests),  # none of them is timed
             ("engine_tests", 110, lambda: self.tests("engine_tests", untimed, **STRICT, **UNTIMED)),
             ("fused_nan", 110, lambda: self.tests("cudnn_tests", "--gtest_filter=FusedNan*")),
             ("parity", 110, self.parity),
             *((kind, 110, lambda kind=kind: self.sanitizer(kind)) for kind in ("memcheck", "racecheck", "synccheck"))],
            [("deviations", 10, self.deviations)],
            [("bench_fp32", 60, lambda: self.bench_main("fp32"))],
            [("copy_bandwidth", 20, self.copy_bandwidth)],
            [("kernels", 30, lambda: self.kernels(own))],
            [("bench", 60, self.bench)],
            [("pytorch_more", 40, self.pytorch_more)],
            [("largest_batch", 15, self.largest_batch)],
            [("library_kernels", 15, lambda: self.kernels(lambda n: n in BY_LIBRARY))],
            [("candidates", 15, lambda: self.tests("engine_tests", f"--gtest_filter={CANDIDATES}", **STRICT)),
             ("cudnn_tests", 15, lambda: self.tests("cudnn_tests", "--gtest_filter=-FusedNan*"))],
        ])
        self.print_table()
        shutil.rmtree(self.work, ignore_errors=True)
        return 0 if all(s["ok"] for s in self.result["steps"]) else 1

    def print_table(self):
        rows = [(name, row) for name in ("bench_untimed", "bench_bf16", "bench_fp32", "bench")
                for row in self.result.get(name) or []]
        rows += [(f"pytorch_{v}", row) for v in VARIANTS for row in (self.result.get(f"pytorch_{v}") or {}).get("rows", [])]
        for name, row in rows:
            if row.get("median_ms"):
                options = row.get("options") or ("(fused head)" if row.get("fused_head") else "")
                print(f"{name:20} {row['what']:11} {row['precision']} batch {row['batch']:<3} {options:16}"
                      f"{row['median_ms']:9.2f} ms  {(row.get('peak_bytes') or 0) / 1e9:6.2f} GB")


def test_figures(log):
    """What GoogleTest printed, also when it was stopped on the way."""
    count = lambda mark: len(re.findall(rf"^\[{mark}\] \S+(?: \(\d+ ms\)|, where .*\(\d+ ms\))$", log, re.M))
    failures = re.findall(r"^\[  FAILED  \] (\S+?),? .*\(\d+ ms\)$", log, re.M)
    return {"passed": count("       OK "), "failed": len(failures), "skipped": count("  SKIPPED "), "failures": failures}


def number_or_text(text):
    try:
        return int(text)
    except ValueError:
        return text


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
    parser.add_argument("--seconds", type=float, default=FULL)
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--after")
    check = Check(parser.parse_args())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, check.stop)
    return check.run()


if __name__ == "__main__":
    sys.exit(main())
