#!/usr/bin/env python3
"""The two calls of tools/gpu_check.sh on the machine with the GPU.

Usage: check.py first|compare FOLDER OUT [--dry] [--seconds S] [--only STAGE,STAGE]
FOLDER: an unpacked payload. OUT: a folder. OUT/first.json and OUT/compare.json are complete at any time: what has not been
reached yet is null. Beside them, .log has what the programs said, and plans-*.txt the libraries' ways that were chosen."""
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
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from runner import Partial, Runner, Stopped

SECONDS = {"first": 300, "compare": 400}
MAIN_BATCH = 32
STRICT = {"DEPTHSTILL_FP32": "strict"}  # without it, tensor cores round the factors of fp32 products
UNTIMED = {"DEPTHSTILL_MEASURE": "0"}  # without it, ways are built and timed for each of many small shapes
LIBRARIES = "Conv2dKernel*:LinearKernel*:*/Conv2dKernel*:*/LinearKernel*"  # kernel tests of NVIDIA's kernels


class Check(Runner):
    """What both calls need."""

    def __init__(self, call, args):
        super().__init__(call, args.out, args.seconds - float(os.environ.get("GPU_CHECK_SPENT", 0)), args.only)
        self.folder, self.dry = Path(args.folder).resolve(), args.dry
        self.device = "cpu" if args.dry else "cuda"
        text = (self.folder / "gpu_check.txt").read_text()
        info = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
        self.result.update(date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                           dry=args.dry, build=info)
        self.cache = self.work / "cache"
        self.cache.mkdir()
        for file in self.folder_out.glob("plans-*.txt"):  # of the first call
            shutil.copy(file, self.cache)

    def run(self):
        good = self.run_stages(self.stages())
        self.print_table()
        shutil.rmtree(self.work, ignore_errors=True)
        return 0 if good else 1

    def environment(self, ours):
        env = dict(os.environ, DEPTHSTILL_TREE=str(self.folder), DEPTHSTILL_CACHE=str(self.cache),
                   OMP_WAIT_POLICY="passive")
        if ours:  # libraries of CUDA: those that PyTorch brings along, cuDNN among them, else the toolkit's
            wheels = sorted(p for base in sys.path for p in glob.glob(f"{base}/nvidia/*/lib"))
            folders = [str(self.folder / "lib"), *wheels, *sorted(glob.glob("/usr/local/cuda*/lib64")),
                       *sorted(glob.glob("/usr/local/cuda*/lib")), "/usr/local/nvidia/lib64", env.get("LD_LIBRARY_PATH", "")]
            env["LD_LIBRARY_PATH"] = ":".join(f for f in folders if f)
        return env

    def save(self):
        with self.lock:
            for file in self.cache.glob("plans-*.txt"):
                shutil.copy(file, self.folder_out)
        super().save()

    def binary(self, name):
        path = self.folder / "bin" / name
        if not path.exists():
            raise Stopped(f"{name} is not in the pack")
        return path

    def tool(self, name):
        """One of the CUDA toolkit's."""
        path = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/local/cuda*/bin/{name}"))), None)
        if path is None:
            raise Stopped(f"{name} was not found")
        return path

    def depthstill(self, *arguments, limit=math.inf, **environment):
        """What the program printed, and said."""
        done = self.call([self.binary("depthstill"), *arguments], limit, **environment)
        if done.code != 0:
            raise Stopped(done.why())
        return done

    def depthstill_json(self, *arguments, limit=math.inf, **environment):
        return json.loads(self.depthstill(*arguments, "--json", limit=limit, **environment).out)

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
        start = self.call([self.binary("depthstill"), "info", "--json"], 60)  # the program reads gigabytes of libraries
        found["depthstill"] = {k: v for k, v in json.loads(start.out).items() if k != "models"} if start.code == 0 else None
        if start.code != 0:
            linked = self.call(["ldd", self.binary("depthstill")], 10)
            found["libraries_not_found"] = re.findall(r"(\S+) => not found", linked.out)
        done = self.call(["bash", "-c", "nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,"
                          "clocks.max.mem,power.limit --format=csv,noheader,nounits"], 20, ours=False)
        if done.code == 0:
            values = [text.strip() for text in done.out.strip().splitlines()[0].split(",")]
            names = ("gpu", "driver", "memory_mib", "sm_mhz", "max_sm_mhz", "max_memory_mhz", "power_limit_w")
            found.update(zip(names, map(number_or_text, values)))
        done = self.call(["bash", "-c", "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc) --version"], 20, ours=False)
        version = re.search(r"V[\d.]+", done.out)
        found["nvcc"] = version.group() if version else None
        done = self.call([sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda, "
                          "torch.backends.cudnn.version())"], 60, ours=False)
        if done.code == 0:
            found["torch"], found["cuda_of_torch"], found["cudnn_of_torch"] = done.out.split()
        if start.code != 0:
            raise Stopped("depthstill does not start: " + start.why())

    # ---- benchmarks and tests ------------------------------------------------------------------------------------
    def main_batch(self):
        return 1 if self.dry else MAIN_BATCH

    def bench_row(self, what, precision, batch, environment, *extra, limit=math.inf):
        row = {"what": what, "precision": precision, "batch": batch, "options": " ".join(map(str, extra))}
        timing = ["--size", "64x96", "--steps", 1, "--warmup", 1] if self.dry else ["--steps", 10, "--warmup", 3]
        timing = [] if "--steps" in extra else timing
        try:
            run = self.depthstill_json("bench", what, "--device", self.device, "--precision", precision, "--batch", batch,
                                       *timing, *extra, limit=limit, **environment)
            row.update(run, images_per_s=1000 * batch / run["median_ms"])
        except Stopped as stopped:
            row.update(median_ms=None, reason=str(stopped))
        return row

    def bench_rows(self, name, wanted, environment, limit=math.inf):
        """wanted: (what, precision, batch, options)."""
        rows = []
        for what, precision, batch, extra in wanted:
            rows.append(self.bench_row(what, precision, batch, environment, *extra, limit=limit))
            self.result[name] = rows
            self.save()
        missing = [r for r in rows if r["median_ms"] is None]
        if missing:
            raise Partial(rows, f"{len(missing)} of {len(rows)} have no figure, the first: {missing[0]['reason']}")
        return rows

    def tests(self, name, *arguments, **environment):
        done = self.call([self.binary(name), "--gtest_color=no", *arguments], **environment)
        found = {**test_figures(done.out), **done.reason()}
        if done.code != 0:
            raise Partial(found, done.why())
        return found

    def sanitizer(self, kind, program, *arguments, **environment):
        done = self.call([self.tool("compute-sanitizer"), "--tool", kind, "--error-exitcode", 99, program, *arguments],
                         **environment)
        errors = re.findall(r"========= ((?:Invalid|Error|Race|Uninit|Barrier|Program hit).*)", done.out)
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", done.out)
        found = {**test_figures(done.out), "summary": summary[-1] if summary else None, "first_errors": errors[:10],
                 **done.reason()}
        if done.code != 0:
            raise Partial(found, done.why())
        return found

    def print_table(self):
        for name, value in self.result.items():
            for row in value if isinstance(value, list) else (value or {}).get("rows", []) if isinstance(value, dict) else []:
                if isinstance(row, dict) and row.get("median_ms"):
                    options = row.get("options") or ("(fused head)" if row.get("fused_head") else "")
                    print(f"{name:20} {row['what']:11} {row['precision']} batch {row['batch']:<3} {options:28}"
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


def make(call, args):
    from compare_stages import Compare
    from first_stages import First
    return {"first": First, "compare": Compare}[call](call, args)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("call", choices=list(SECONDS))
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--only", type=lambda text: text.split(","))
    args = parser.parse_args()
    args.seconds = args.seconds or SECONDS[args.call]
    check = make(args.call, args)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, check.stop)
    return check.run()


if __name__ == "__main__":
    sys.exit(main())
