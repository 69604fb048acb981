#!/usr/bin/env python3
"""The losses of Distill Any Depth, hybrid normalisation, forward and backward: depthstill and eager PyTorch side by
side, A B A B ..., medians and their ratio, and what each keeps between the two passes besides the maps.

PyTorch's are written as Hierarchical Depth Normalization is: a mask per context, medians of all contexts by one
nanmedian, statistics of the teacher without a tape. depthstill's time is that of the statistics, the loss and its
gradient.

Usage: compare_context_loss.py DEPTHSTILL_BINARY [--maps 4] [--side 560] [--threads 2] [--rounds 5] [--steps 5]
Needs PyTorch; its version is printed.
"""
import argparse
import json
import statistics
import sys
import time

import torch
from compare_pytorch import KEEP_MEMORY, run


def contexts(y):
    """Masks (7, N, P) from y (N, P): the intervals of S = 4, 2, 1."""
    low, high = y.amin(1, keepdim=True), y.amax(1, keepdim=True)
    masks = []
    for S in (4, 2, 1):
        for k in range(S):
            above = y >= ((S - k) * low + k * high) / S
            masks.append(above & (y < ((S - k - 1) * low + (k + 1) * high) / S) if k + 1 < S else above)
    return torch.stack(masks)


def normalise(v, masks, n):
    v = v[None].expand(len(masks), -1, -1)
    t = torch.where(masks, v, torch.nan).nanmedian(2, keepdim=True).values
    s = ((v - t).abs() * masks).sum(2, keepdim=True) / n
    return (v - t) / s.clamp(min=1e-6)


def context_loss(x, y):
    """L_sc of x, y (N, H, W): all pixels count."""
    x, y = x.flatten(1), y.flatten(1)
    with torch.no_grad():
        masks = contexts(y)
        n = masks.sum(2, keepdim=True)
        target = normalise(y, masks, n)
    difference = (normalise(x, masks, n) - target).abs()
    return (torch.where(masks, difference, 0.0).sum(0) / 3).mean()


def gradient_matching(x, y):
    """L_grad of x, y (N, H, W): four scales, normalised by image."""
    def normalised(v):
        flat = v.flatten(1)
        t = flat.median(1, keepdim=True).values
        s = (flat - t).abs().mean(1, keepdim=True).clamp(min=1e-6)
        return ((flat - t) / s).view_as(v)

    with torch.no_grad():
        target = normalised(y)
    difference, total = normalised(x) - target, 0
    for scale in range(4):
        d = difference[:, :: 2**scale, :: 2**scale]
        total = total + (d.diff(dim=2).abs().sum() + d.diff(dim=1).abs().sum()) / d.numel()
    return total


def worker(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    y = 3 + torch.sin(torch.arange(args.side**2) * .013) + .5 * torch.rand(args.maps, args.side**2)
    y = y.view(args.maps, args.side, args.side)
    x = (5 + 2 * y + torch.rand_like(y)).requires_grad_()
    kept, times = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        context_loss(x, y)
    for name in (x, y):
        kept.pop(name.data_ptr(), None)
    for _ in range(args.steps + 1):
        x.grad = None
        start = time.perf_counter()
        context_loss(x, y).backward()
        times.append(1e3 * (time.perf_counter() - start))
    print(json.dumps({"ms": statistics.median(times[1:]), "kept": sum(kept.values()), "torch": torch.__version__}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--maps", type=int, default=4)
    parser.add_argument("--side", type=int, default=560)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args)

    same = ["--threads", str(args.threads), "--steps", str(args.steps)]
    ours, theirs, shape = [], [], f"{args.maps}x{args.side}x{args.side}"
    for _ in range(args.rounds):
        done = run([args.binary, "bench", "context_statistics", "context_loss", "--batch", str(args.maps), "--json",
                    *same])
        ours.append(sum(k["median_ms"] for k in done["kernels"] if k["shape"] == shape))
        theirs.append(run([sys.executable, __file__, "--worker", "--maps", str(args.maps), "--side", str(args.side),
                           *same], **KEEP_MEMORY))
    pixels = args.maps * args.side**2
    ratios = [t["ms"] / o for o, t in zip(ours, theirs)]
    print(f"{args.maps} maps of {args.side} x {args.side}, {args.threads} threads, {args.rounds} rounds of {args.steps}\n"
          f"depthstill: median {statistics.median(ours):.2f} ms, keeps {pixels / 2**20:.2f} MiB\n"
          f"PyTorch {theirs[0]['torch']}: median {statistics.median(t['ms'] for t in theirs):.1f} ms, keeps "
          f"{theirs[0]['kept'] / 2**20:.1f} MiB\n"
          f"time {statistics.median(ratios):.1f} ({min(ratios):.1f} .. {max(ratios):.1f}), "
          f"memory {theirs[0]['kept'] / pixels:.0f} times depthstill's")


if __name__ == "__main__":
    main()
