#!/usr/bin/env python3
"""One full-size training step, depthstill and PyTorch side by side: A B A B ..., medians and their ratio.

The PyTorch student is that of tests/oracle/make_student_fixture.py in float32 (bf16: autocast), channels last, with the
TIE-KD loss written without needless copies, torch.optim.AdamW, and an allocator that keeps its memory between steps:
each worth 1.1x to 2x to PyTorch on a CPU.

Usage: compare_pytorch.py DEPTHSTILL_BINARY [--precision fp32|bf16] [--threads 2] [--rounds 3] [--steps 5]
Needs PyTorch and NumPy; their versions are printed with the figures.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HEIGHT, WIDTH, TOP_ROWS, SIGMA = 352, 704, 110, 0.8


def worker(args):
    sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
    import make_student_fixture as fixture
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = fixture.Student(fixture.MobileNetV2(), [128, 256, 512, 2048], 2, True)
    model = model.float().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.95, 0.99), weight_decay=0.01)
    edges, centres = fixture.EDGES.float().view(1, -1, 1, 1), fixture.CENTRES.float().view(1, -1, 1, 1)
    image = torch.randn(1, 3, HEIGHT, WIDTH).to(memory_format=torch.channels_last)
    teacher = (2 + 70 * torch.rand(1, 1, HEIGHT, WIDTH))[:, :, TOP_ROWS:]
    g = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
    window = (g[:, None] * g[None] / g.sum() ** 2)[None, None]
    blur = lambda x: F.conv2d(x, window, padding=5)

    def loss_of(logits):
        q = torch.softmax(logits[:, :, TOP_ROWS:].float(), 1)
        with torch.no_grad():
            cdf = 0.5 * torch.erf((edges - teacher) / (SIGMA * math.sqrt(2)))
            t = (cdf[:, 1:] - cdf[:, :-1]).clamp_min(1e-16)
            t /= t.sum(1, keepdim=True)
        kl = (t * torch.log(t / (q + 1e-7) + 1e-7)).sum(1).mean()
        a, b = (q * centres).sum(1, keepdim=True), teacher
        ma, mb = blur(a), blur(b)
        va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
        ssim = ((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))).mean()
        return kl + 9 * (1 - ssim)

    times = []
    for step in range(args.steps + 1):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
            logits = model(image).permute(0, 3, 1, 2)
        loss_of(logits).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
        optimiser.step()
        times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({**measured(times[1:]), "torch": torch.__version__}))


KEEP_MEMORY = dict(MALLOC_TOP_PAD_="268435456", MALLOC_TRIM_THRESHOLD_="100000000000",
                   MALLOC_MMAP_THRESHOLD_="100000000000")


def run(command, **environment):
    done = subprocess.run(command, env=dict(os.environ, **environment), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measured(times):
    # This is not ru_maxrss, which starts with what the parent process had.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times), "peak_bytes": peak}


def report(title, sides):
    """sides: name -> the runs of each round; the first is ours."""
    print(title)
    for name, runs in sides.items():
        print(f"{name:24} median {statistics.median(r['median_ms'] for r in runs):8.0f} ms   "
              f"min {min(r['min_ms'] for r in runs):8.0f}   max {max(r['max_ms'] for r in runs):8.0f}   "
              f"peak {max(r['peak_bytes'] for r in runs) / 1e6:6.0f} MB")
    (_, ours), *others = sides.items()
    for name, theirs in others:
        ratios = [t["median_ms"] / o["median_ms"] for o, t in zip(ours, theirs)]
        memory = max(r["peak_bytes"] for r in ours) / max(r["peak_bytes"] for r in theirs)
        print(f"{name} / depthstill: time {statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f}), "
              f"memory of depthstill {100 * memory:.0f} % of theirs")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args)

    common = ["--precision", args.precision, "--threads", str(args.threads), "--steps", str(args.steps)]
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(run([args.binary, "bench", "train-step", "--model", "mobilenet_unet", "--size",
                         f"{HEIGHT}x{WIDTH}", "--batch", "1", "--json"] + common))
        theirs.append(run([sys.executable, __file__, "--worker"] + common, **KEEP_MEMORY))
    report(f"training step, {HEIGHT}x{WIDTH}, batch 1, {args.precision}, {args.threads} threads, "
           f"{args.rounds} rounds of {args.steps} steps",
           {"depthstill": ours, "PyTorch " + theirs[0]["torch"]: theirs})


if __name__ == "__main__":
    main()
