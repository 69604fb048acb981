"""The first call: does it start, is it right, how fast is it, and where does the time go."""
import json
import sys
from pathlib import Path

from check import LIBRARIES, STRICT, UNTIMED, Check
from runner import Partial, Stopped

SMALL = ("--batch", 1, "--size", "64x96")
# Our own kernels that a TIE-KD step spends its time in.
KERNELS = ("dpm", "dpm_head", "ssim", "depthwise_conv2d", "norm_depthwise", "batch_norm", "upsample_bilinear",
           "upsample_concat", "adamw")
COUNTERS = ("gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum",
            "dram__throughput.avg.pct_of_peak_sustained_elapsed", "sm__throughput.avg.pct_of_peak_sustained_elapsed",
            "launch__registers_per_thread")


class First(Check):
    def stages(self):
        return [[("machine", 60, self.machine)],
                [("device", 20, self.device_record)],
                [("smoke", 190, self.smoke)],
                [("untimed", 40, lambda: self.step("untimed", UNTIMED))],
                [("kernel_tests", 80, self.kernel_tests)],
                [("timed", 170, self.timed)],
                [("profile", 45, self.profile)],
                [("kernels", 45, self.kernels)],
                [("counters", 80, self.counters)]]

    def keep(self, name, text):
        (self.folder_out / name).write_text(text)

    def device_record(self):
        done = self.call([sys.executable, Path(__file__).parent / "device_record.py"])
        if done.code != 0:
            raise Stopped(done.why())
        self.keep("device.json", done.out)
        return json.loads(done.out)

    def smoke(self):
        """A small training step as a graph, in both precisions. Where it fails, the line that launched the fault is looked
        for, and nothing else is worth the time."""
        rows = []
        for precision, limit in (("bf16", 40), ("fp32", 30)):
            row = self.bench_row("train-step", precision, 1, UNTIMED, *SMALL, "--steps", 5, limit=limit)
            rows.append(row)
            if row["median_ms"] is None:
                raise Partial({"rows": rows, **self.diagnosis(precision)}, row["reason"], ends=True)
        bad = [row["precision"] for row in rows if row.get("captured") is False and not self.dry]
        if bad:
            raise Partial({"rows": rows}, f"{', '.join(bad)}: the step was not captured")
        return {"rows": rows}

    def diagnosis(self, precision):
        found = {}
        step = ["bench", "train-step", "--device", self.device, "--precision", precision, *SMALL, "--no-graph", "--steps", 1]
        try:
            found["launch_by_launch"] = self.call([self.binary("depthstill"), *step], 30, DEPTHSTILL_SYNC="1", **UNTIMED).why()
            found["memcheck"] = self.sanitizer("memcheck", self.binary("depthstill"), *step, **UNTIMED)
        except Partial as partial:
            found["memcheck"] = partial.value
        except Stopped as stopped:
            found["reason"] = str(stopped)
        return found

    def step(self, name, environment):
        return self.bench_rows(name, [("train-step", "bf16", self.main_batch(), [])], environment)

    def kernel_tests(self):
        """Of our own kernels."""
        return self.tests("kernel_tests", f"--gtest_filter=-{LIBRARIES}", **STRICT, **UNTIMED)

    def timed(self):
        """The first step chooses among the libraries' ways, for a minute or more; OUT/choices.txt says what was tried."""
        try:
            return self.step("timed", {"DEPTHSTILL_LOG_PLANS": "1"})
        finally:
            said = self.here.said.splitlines()
            self.keep("choices.txt", "".join(f"{line}\n" for line in said if "plan: " in line or "cudnn: " in line))

    def profile(self):
        """The table per layer and op, beside its bound."""
        steps = "1:1" if self.dry else "4:8"
        size = ["--size", "64x96"] if self.dry else []
        table = self.depthstill_json("profile", "--device", self.device, "--model", "mobilenet_unet", "--batch",
                                     self.main_batch(), "--precision", "bf16", "--steps", steps, *size)
        self.keep("profile.json", json.dumps(table, indent=1) + "\n")
        return {key: value for key, value in table.items() if not isinstance(value, list)}

    def kernels(self):
        """Single kernels beside the copy bandwidth that the same process measures."""
        names, timing = (KERNELS[2:3], ["--steps", 1]) if self.dry else (KERNELS, ["--steps", 20])
        table = self.depthstill_json("bench", *names, "--device", self.device, "--precision", "bf16", "--batch",
                                     self.main_batch(), *timing)
        self.keep("kernels.json", json.dumps(table, indent=1) + "\n")
        return table

    def counters(self):
        """Of every kernel of one step: is it memory that bounds it?"""
        done = self.call([self.tool("ncu"), "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "raw",
                          "--metrics", ",".join(COUNTERS), self.binary("depthstill"), "profile", "--device", self.device,
                          "--model", "mobilenet_unet", "--batch", self.main_batch(), "--precision", "bf16", "--steps", "4:4",
                          "--rows", 5])
        self.keep("counters.csv", done.out)
        if done.code != 0:
            raise Stopped(done.why())
        return {"lines": len(done.out.splitlines())}
