#!/usr/bin/env python3
"""Training steps and predictions of the TIE-KD student in PyTorch on a GPU; one JSON line per measurement.

  eager_fp32   as published: NCHW, activations in place, float32 with PyTorch's defaults (TF32 in convolutions, not in other
               products), softmax of all rows, the loss as many elementwise passes over densities and logarithms
  eager_amp    the same under bf16 autocast
  tuned        what a careful user gets: channels last, bf16 autocast, torch.compile of network and loss, the loss
               rewritten with the Gaussian's mass per bin and without needless copies, fused AdamW, cudnn.benchmark
  tuned_graphs the same, with forward and backward pass replayed as CUDA graphs, for small batches

Inputs are those of `depthstill bench`: uniform images, a ramp of depths with noise, 352 x 704, 110 rows without loss. A step
is forward pass, loss, backward pass, clipping by the global norm and AdamW. The student is that of
tests/oracle/make_student_fixture.py. Times are of the whole step between two waits for the device, after warm-up; the
first step, with what is compiled or tried out in it, stands in first_step_s. Where a batch of training does not fit,
three quarters, a half and so on of it are tried.

Usage: compare_pytorch_cuda.py VARIANT [--what train-step,infer] [--batches 32,8,1] [--skip WHAT:BATCH] [--size 352x704]
                               [--steps 10] [--largest] [--seconds S] [--device cpu [--compile]]"""
import argparse
import functools
import gc
import json
import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
import make_student_fixture as fixture
import torch
import torch.nn.functional as F

SIGMA, ALPHA, BETA = 0.5, 0.1, 10.0
NO_MEMORY = ["out of memory", "ALLOC_FAILED", "valid cuDNN algorithm", "No valid engine configs"]


def inputs(batch, height, width, device):
    generator = torch.Generator(device).manual_seed(1)
    image = 4 * torch.rand(batch, 3, height, width, device=device, generator=generator) - 2
    ramp = 0.06 * 80 * height / torch.arange(1, height + 1, device=device).view(1, -1, 1)
    noise = 0.9 + 0.2 * torch.rand(batch, height, width, device=device, generator=generator)
    return image, (ramp * noise).clamp_max(0.95 * 80)


def ssim_blur(device):
    g = torch.exp(-((torch.arange(11.0, device=device) - 5) ** 2) / (2 * 1.5**2))
    window = (g[:, None] * g[None] / g.sum() ** 2)[None, None]
    return lambda x: F.conv2d(x, window, padding=5)


def published_loss(top_rows, device):
    centres = fixture.CENTRES.float().to(device).view(1, -1, 1, 1)
    blur = ssim_blur(device)

    def loss(logits, teacher):
        q = torch.softmax(logits.float(), 1)
        depth = (q * centres).sum(1, keepdim=True)
        q, a, teacher = q[:, :, top_rows:], depth[:, :, top_rows:], teacher[:, None, top_rows:]
        density = torch.exp(-((centres - teacher) ** 2) / (2 * SIGMA**2)) / (SIGMA * math.sqrt(2 * math.pi))
        t = torch.softmax(torch.where(density < 1e-16, -1000.0, density), 1)
        kl = torch.where(q != 0, t * torch.log(t / (q + 1e-7) + 1e-7), 0.0).sum(1).mean()
        b = teacher
        ma, mb = blur(a), blur(b)
        va, vb, cov = (blur(a * a) - ma**2).abs(), (blur(b * b) - mb**2).abs(), (blur(a * b) - ma * mb).abs()
        ssim = ((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))).mean()
        return BETA * (ALPHA * kl + (1 - ALPHA) * (1 - ssim))

    return loss


def rewritten_loss(top_rows, device):
    edges, centres = fixture.EDGES.float().to(device), fixture.CENTRES.float().to(device)
    blur = ssim_blur(device)

    def loss(logits, teacher):  # logits (N, H, W, bins), as the network leaves them in memory
        teacher = teacher[:, top_rows:]
        log_q = torch.log_softmax(logits.permute(0, 2, 3, 1)[:, top_rows:].float(), -1)
        cdf = torch.erf((edges - teacher[..., None]) * (1 / (SIGMA * math.sqrt(2))))
        t = (0.5 * (cdf[..., 1:] - cdf[..., :-1])).clamp_min(1e-16)
        t = t / t.sum(-1, keepdim=True)
        kl = (t * (t.log() - log_q)).sum(-1).mean()
        a, b = (log_q.exp() * centres).sum(-1)[:, None], teacher[:, None]
        ma, mb = blur(a), blur(b)
        va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
        ssim = ((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))).mean()
        return BETA * (ALPHA * kl + (1 - ALPHA) * (1 - ssim))

    return loss


class Run:
    def __init__(self, args):
        self.args, self.device = args, torch.device(args.device)
        self.tuned, self.graphs = args.variant.startswith("tuned"), args.variant == "tuned_graphs"
        self.precision = "fp32" if args.variant == "eager_fp32" else "bf16"
        self.height, self.width = map(int, args.size.split("x"))
        self.deadline = time.monotonic() + args.seconds
        torch.manual_seed(1)
        torch.backends.cudnn.benchmark = True
        model = fixture.Student(fixture.MobileNetV2(), [128, 256, 512, 2048], 2, True).float().to(self.device)
        if self.tuned:
            model = model.to(memory_format=torch.channels_last)
        for module in model.modules():
            if isinstance(module, fixture.ConvModule) and module.act:
                module.act = functools.partial(module.act, inplace=True)
        self.model = model
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.95, 0.99), weight_decay=0.01,
                                           fused=self.tuned or None)
        top_rows = 110 * self.height // 352
        make_loss = rewritten_loss if self.tuned else published_loss
        loss = make_loss(top_rows, self.device)
        centres = fixture.CENTRES.float().to(self.device).view(1, -1, 1, 1)
        logits = lambda image: self.model(image).permute(0, 3, 1, 2)

        def total(image, teacher):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                out = logits(image)
            return loss(out, teacher)

        def depth(image):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                out = logits(image)
            return (torch.softmax(out.float(), 1) * centres).sum(1)

        compiled = self.tuned and (self.device.type == "cuda" or args.compile)
        compile = functools.partial(torch.compile, dynamic=False, mode="reduce-overhead" if self.graphs else None)
        self.total, self.depth = (compile(total), compile(depth)) if compiled else (total, depth)

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def train_step(self, image, teacher):
        self.optimiser.zero_grad(set_to_none=True)
        self.total(image, teacher).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 35.0)
        self.optimiser.step()

    def infer(self, image, _):
        with torch.no_grad():
            return self.depth(image)

    def timed(self, step, image, teacher):
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        self.wait()
        start = time.perf_counter()
        step(image, teacher)
        self.wait()
        return 1000 * (time.perf_counter() - start)

    def measure(self, what, batch, steps, warmup):
        row = {"what": what, "variant": self.args.variant, "precision": self.precision, "batch": batch,
               "size": self.args.size, "median_ms": None, "torch": torch.__version__}
        if time.monotonic() > self.deadline:
            return {**row, "reason": "no time was left"}
        self.model.train(what == "train-step")
        step = self.train_step if what == "train-step" else self.infer
        try:
            image, teacher = inputs(batch, self.height, self.width, self.device)
            if self.tuned:
                image = image.to(memory_format=torch.channels_last)
            row["first_step_s"] = self.timed(step, image, teacher) / 1000
            if self.device.type == "cuda":  # memory for compiling and trying out does not count
                torch.cuda.empty_cache()
            for _ in range(warmup - 1):
                self.timed(step, image, teacher)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times = []
            while len(times) < steps and (not times or time.monotonic() < self.deadline):
                times.append(self.timed(step, image, teacher))
            row.update(median_ms=statistics.median(times), min_ms=min(times), max_ms=max(times), steps=len(times),
                       images_per_s=1000 * batch / statistics.median(times))
            row["peak_bytes"] = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
            row["reserved_bytes"] = torch.cuda.max_memory_reserved() if self.device.type == "cuda" else None
        except Exception as error:  # libraries report missing memory in words of their own; the others still count
            text = f"{type(error).__name__}: {error}"
            short = isinstance(error, torch.OutOfMemoryError) or any(word in text for word in NO_MEMORY)
            row["reason"] = "out of memory" if short else text.strip()[:500]
        image = teacher = None
        self.optimiser.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return row

    def largest(self, known):
        """The greatest batch that one training step fits with, to about an eighth; compiled steps are not searched."""
        fits = max((b for b, ok in known.items() if ok), default=0)
        fails = min((b for b, ok in known.items() if not ok), default=0)
        row = {"what": "largest-batch", "variant": self.args.variant, "precision": self.precision, "batch": None}
        if self.tuned:
            return {**row, "reason": "every batch size would be compiled anew", "fits": fits, "fails": fails or None}
        while time.monotonic() < self.deadline and fits > 0 and (fails == 0 or fails - fits > max(1, fits // 8)):
            batch = 2 * fits if fails == 0 else (fits + fails) // 2
            if self.measure("train-step", batch, 1, 1).get("median_ms"):
                fits = batch
            else:
                fails = batch
        return {**row, "batch": fits or None, "fails": fails or None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=["eager_fp32", "eager_amp", "tuned", "tuned_graphs"])
    parser.add_argument("--what", default="train-step,infer")
    parser.add_argument("--batches", default="32,8,1")
    parser.add_argument("--skip", default="", help="WHAT:BATCH that is known")
    parser.add_argument("--size", default="352x704")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--largest", action="store_true")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--compile", action="store_true", help="on the CPU too")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU")
    run = Run(args)
    warmup = 3 if args.steps > 1 else 1
    known = {}
    for batch in map(int, args.batches.split(",")):
        for what in args.what.split(","):
            if f"{what}:{batch}" == args.skip:
                continue
            for parts in (4, 3, 2, 1):
                row = run.measure(what, max(batch * parts // 4, 1), args.steps, warmup)
                if parts < 4:
                    row["instead_of"] = batch
                if what == "train-step" and ("reason" not in row or row["reason"] == "out of memory"):
                    known[row["batch"]] = row["median_ms"] is not None
                print(json.dumps(row), flush=True)
                if row.get("reason") != "out of memory" or batch == 1:
                    break
    if args.largest:
        print(json.dumps(run.largest(known)), flush=True)


if __name__ == "__main__":
    main()
