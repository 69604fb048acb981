#!/usr/bin/env python3
"""The loss L_Dis of Distill Any Depth with hybrid normalisation, forward and backward, in eager PyTorch: its time and
what it keeps between the two passes.

Written as Hierarchical Depth Normalization is: a mask per context, medians of all contexts by one nanmedian, statistics
of the teacher without a tape. Usage: compare_context_loss.py [--maps 4] [--side 560] [--threads 2] [--rounds 5]
"""
import argparse
import statistics
import time

import torch


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


def loss_of(x, y):
    with torch.no_grad():
        masks = contexts(y)
        n = masks.sum(2, keepdim=True)
        target = normalise(y, masks, n)
    difference = (normalise(x, masks, n) - target).abs()
    return (torch.where(masks, difference, 0.0).sum(0) / 3).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=4)
    parser.add_argument("--side", type=int, default=560)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    y = 3 + torch.sin(torch.arange(args.side**2) * .013) + .5 * torch.rand(args.maps, args.side**2)
    x = (5 + 2 * y + torch.rand_like(y)).requires_grad_()
    kept, times = {}, []

    def pack(tensor):
        storage = tensor.storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(x, y)
    for name in (x, y):
        kept.pop(name.data_ptr(), None)
    for _ in range(args.rounds + 1):
        x.grad = None
        start = time.perf_counter()
        loss = loss_of(x, y)
        loss.backward()
        times.append(1e3 * (time.perf_counter() - start))
    print(f"PyTorch {torch.__version__}, {args.threads} threads, {args.maps} maps of {args.side} x {args.side}: "
          f"loss {loss.item():.6f}, {statistics.median(times[1:]):.1f} ms, kept between the passes "
          f"{sum(kept.values()) / 2**20:.1f} MiB besides x and y")


if __name__ == "__main__":
    main()
