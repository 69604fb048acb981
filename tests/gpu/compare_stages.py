"""The second call: beside PyTorch, the tests with the deviations from the emulator, sanitizers, other networks, and what
else there is time for. What matters most stands first."""
import json
import math
import sys

from check import LIBRARIES, MAIN_BATCH, STRICT, UNTIMED, Check
from runner import Partial, Stopped

OTHER_BATCHES = [8, 1]
PRECISIONS = ("bf16", "fp32")
VARIANTS = ("eager_fp32", "eager_amp", "tuned", "tuned_graphs")  # variants of tests/bench/compare_pytorch_cuda.py
CANDIDATES = "*EveryCandidate*:*BothWays*"  # tests of the libraries' ways: each is built for each shape, for minutes
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


class Compare(Check):
    def stages(self):
        step = lambda variant: lambda: self.pytorch(variant, [MAIN_BATCH], "--what", "train-step")
        own_tests = f"--gtest_filter=-Layering*:{CANDIDATES}"
        memcheck, racecheck, synccheck = ((kind, 110, lambda kind=kind: self.sanitize_tests(kind))
                                          for kind in ("memcheck", "racecheck", "synccheck"))
        return [[("pytorch_eager_fp32", 45, step("eager_fp32"))],
                [("pytorch_tuned", 150, step("tuned"))],
                [("kernel_tests", 110, self.kernel_tests), memcheck, ("parity", 110, self.parity),
                 ("fused_nan", 110, lambda: self.tests("cudnn_tests", "--gtest_filter=FusedNan*")),
                 ("engine_tests", 110, lambda: self.tests("engine_tests", own_tests, **STRICT, **UNTIMED)),
                 racecheck, synccheck],
                [("deviations", 10, self.deviations)],
                [("dpt_s", 60, lambda: self.network("dpt_s", 32))],
                [("dpt_l", 60, lambda: self.network("dpt_l", 8))],
                [("pytorch_eager_amp", 30, step("eager_amp"))],
                [("bench_fp32", 60, lambda: self.bench_rows("bench_fp32", [("train-step", "fp32", self.main_batch(), [])], {}))],
                [("copy_bandwidth", 20, self.copy_bandwidth)],
                [("bench", 60, self.bench)],
                [("pytorch_more", 60, self.pytorch_more)],
                [("largest_batch", 60, self.largest_batch)],
                [("vendor_kernels", 30, self.vendor_kernels)],
                [("candidates", 30, lambda: self.tests("engine_tests", f"--gtest_filter={CANDIDATES}", **STRICT)),
                 ("cudnn_tests", 30, lambda: self.tests("cudnn_tests", "--gtest_filter=-FusedNan*"))]]

    def save(self):
        with self.lock:
            self.result["ratios"] = self.ratios()
        super().save()

    # ---- ours ----------------------------------------------------------------------------------------------------
    def network(self, model, batch):
        """A training step and a prediction, with the ways that the libraries rank first and with those that are measured."""
        wanted = [(what, "bf16", 1 if self.dry else batch, ["--model", model]) for what in ("train-step", "infer")]
        rows, missing = [], None
        for environment in (UNTIMED, {}):
            try:
                rows += self.bench_rows(model, wanted, environment)
            except Partial as partial:
                rows, missing = rows + partial.value, missing or str(partial)
        if missing:
            raise Partial(rows, missing)
        return rows

    def bench(self):
        """Predictions, other batches and what the options bring."""
        options = self.depthstill("bench", "--help", limit=20).out
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
        wanted += [("infer", precision, batch, ["--no-graph"]) for batch, precision in pairs]
        if "--stored-logits" in options:
            wanted += [("infer", "bf16", batch, ["--stored-logits"]) for batch in batches]
        return self.bench_rows("bench", wanted, {}, limit=120)

    def largest_batch(self):
        """The greatest batch whose training step fits into the device's memory, to about an eighth: without stored logits in
        bf16, and with workspaces that no large batch is short of."""
        if self.dry:
            raise Stopped("a dry run has no device memory to fill")
        found = {}
        for precision in PRECISIONS:
            head = ["--fused-head"] if precision == "bf16" else []
            fits, fails, reason = 0, 0, None
            while fails == 0 or fails - fits > max(1, fits // 8):
                batch = (fits + fails) // 2 if fails else 2 * fits or 32
                try:
                    self.depthstill_json("bench", "train-step", "--device", self.device, "--precision", precision,
                                         "--batch", batch, "--steps", 1, "--warmup", 1, *head, limit=30,
                                         DEPTHSTILL_WORKSPACE_MB="4096", **UNTIMED)
                    fits = batch
                except Stopped as stopped:
                    reason = str(stopped)
                    if "out of cuda memory" not in reason:  # the reason says nothing about the size
                        break
                    fails = batch
                    if batch == 1:
                        break
            found[precision] = {"batch": fits or None, "fails": fails or None, "reason": reason}
        none = [row["reason"] for row in found.values() if row["batch"] is None]
        if none:
            raise Partial(found, none[0])
        return found

    def vendor_kernels(self):
        """Choosing a library's way takes longer than all other kernels together."""
        timing = ["--steps", 2, "--warmup", 1] if self.dry else ["--steps", 20, "--batch", 8]
        return {precision: self.depthstill_json("bench", "conv2d", "linear", "--device", self.device, "--precision", precision,
                                                *timing) for precision in PRECISIONS}

    # ---- PyTorch -------------------------------------------------------------------------------------------------
    def copy_bandwidth(self):
        """Bytes read and written per second by a copy within device memory, through PyTorch."""
        done = self.call([sys.executable, "-c", COPY, self.device], ours=False)
        if done.code != 0:
            raise Stopped(done.why())
        return json.loads(done.out)

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

    def first(self):
        """The figures of the first call, if it was made."""
        file = self.folder_out / "first.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def ratios(self):
        """PyTorch's time per image and memory over ours, at the same precision, and the same batch if both have it."""
        ours = {}
        first = self.first()
        for rows in (first.get("untimed"), first.get("timed"), self.result.get("bench_fp32"), self.result.get("bench")):
            for row in rows or []:  # later ones replace earlier ones
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

    def sanitize_tests(self, kind):
        """Of our own kernels."""
        return self.sanitizer(kind, self.binary("kernel_tests"), "--gtest_color=no", f"--gtest_filter=-{LIBRARIES}", **UNTIMED)

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
