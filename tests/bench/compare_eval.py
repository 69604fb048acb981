#!/usr/bin/env python3
"""Scoring of stored predictions, side by side: `depthstill eval` and Marigold's formulas in NumPy, on maps made here.

nyu    654 pairs of 640x480, truth PNG16, predictions .npy: protocol marigold, least squares in inverse depth
eth3d  pairs of 6048x4032, both float32: the same, with the most anonymous memory (RssAnon) that the process had

The programs take turns and must agree in abs_rel; the least time of each counts, and CPU time beside it. NumPy runs in one process, as
Marigold's eval.py does, and in one per core. Files are read before, so that the disk does not count.

Usage: compare_eval.py DEPTHSTILL_BINARY FOLDER [--what nyu|eth3d] [--images N] [--rounds 2] [--threads N]
FOLDER gets the maps (0.9 GB for nyu, 0.2 GB per pair for eth3d) and keeps them for another run.
Needs NumPy and, for nyu, Pillow; versions are printed.
"""
import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # processes side by side are the threads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

SETS = {"nyu": (480, 640, 654), "eth3d": (4032, 6048, 2)}


def make(folder, what, images):
    height, width, _ = SETS[what]
    lines = []
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for k in range(images):
        name = f"{k:04}"
        truth_name = f"{name}.png" if what == "nyu" else f"{name}.JPG"
        lines.append(f"{name}_rgb.png {truth_name}")
        if (folder / f"{name}_rgb.npy").exists():
            continue
        random = np.random.default_rng(k)
        a, b, c = random.uniform(0.5, 2, 3)
        truth = 3 + a * np.sin(x / 90 + b) * np.cos(y / 70 + c) + 1.5 * y / height
        disparity = 40 / truth + 6 + 0.4 * random.standard_normal(truth.shape, dtype=np.float32)
        holes = random.random(truth.shape, dtype=np.float32) < 0.1
        if what == "nyu":
            from PIL import Image
            Image.fromarray(np.where(holes, 0, np.rint(1000 * truth)).astype(np.uint16)).save(folder / truth_name)
        else:
            np.where(holes, np.inf, truth).astype("<f4").tofile(folder / truth_name)
        np.save(folder / f"{name}_rgb.npy", disparity.astype(np.float32))
    (folder / "list.txt").write_text("\n".join(lines))
    return [tuple(folder / part for part in (line.split()[1], line.split()[0].replace(".png", ".npy")))
            for line in lines]


def score(task):
    """One pair by Marigold's eval.py and src/util: mask, fit in inverse depth, clip, metrics."""
    what, truth_file, prediction_file = task
    height, width, _ = SETS[what]
    prediction = np.load(prediction_file)
    if what == "nyu":
        from PIL import Image
        truth = np.asarray(Image.open(truth_file)).astype(np.float32) / 1000
        valid = (truth > np.float32(1e-3)) & (truth < 10)
        box = np.zeros_like(valid)
        box[45:471, 41:601] = True
        valid &= box
        low, high = 1e-3, 10
    else:
        truth = np.fromfile(truth_file, dtype="<f4").reshape(height, width)
        truth[np.isinf(truth)] = 0
        valid = truth > np.float32(1e-5)
        low, high = 1e-5, np.inf
    inverse = np.where(truth > 0, 1 / np.maximum(truth, 1e-9), 0)
    fit = valid & (truth > 0) & (prediction > 0)
    p, g, f = prediction, inverse, fit
    if what == "eth3d":  # every row of the columns that a nearest interpolation to a long side of 1024 takes
        ratio = 1024 / max(height, width)
        columns = np.minimum(np.floor(np.arange(int(width * ratio), dtype=np.float32) * np.float32(1 / ratio)).astype(int),
                             width - 1)
        p, g, f = p[:, columns], g[:, columns], f[:, columns]
    x = p[f].reshape(-1, 1)
    line = np.concatenate([x, np.ones_like(x)], axis=-1)
    scale, shift = np.linalg.lstsq(line, g[f].reshape(-1, 1), rcond=None)[0].ravel()
    aligned = np.clip(prediction * scale + shift, 1e-3, None)
    depth = np.maximum(np.clip(1 / aligned, low, high), 1e-6)
    d, t = depth[valid].astype(np.float64), truth[valid].astype(np.float64)
    error = np.log(d) - np.log(t)
    ratio = np.maximum(d / t, t / d)
    return [np.mean(np.abs(d - t) / t), np.mean((d - t) ** 2 / t), np.sqrt(np.mean((d - t) ** 2)),
            np.sqrt(np.mean(error ** 2)), np.mean(np.abs(np.log10(d) - np.log10(t))),
            np.sqrt(np.mean(error ** 2) - np.mean(error) ** 2) * 100, *(np.mean(ratio < 1.25 ** k) for k in (1, 2, 3))]


def cpu_seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def numpy_run(what, pairs, processes):
    tasks = [(what, *pair) for pair in pairs]
    start = time.perf_counter()
    if processes == 1:
        rows = [score(task) for task in tasks]
    else:
        with multiprocessing.Pool(processes) as pool:
            rows = pool.map(score, tasks, chunksize=4 if what == "nyu" else 1)
    return time.perf_counter() - start, float(np.mean(rows, axis=0)[0])


def depthstill_run(args, folder, pairs):
    height, width, _ = SETS[args.what]
    command = [args.binary, "eval", "--dataset", args.what, "--root", folder, "--list", folder / "list.txt", "--pred", folder,
               "--protocol", "marigold", "--align", "disparity-ls", "--pred-names", "image", "--truth-size",
               f"{height}x{width}", "--threads", str(args.threads), "--json", folder / "out.json"]
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        try:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    most = max(most, int(line.split()[1]))
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(0.002)
    seconds = time.perf_counter() - start
    assert process.wait() == 0, "depthstill failed"
    return seconds, json.loads((folder / "out.json").read_text())["abs_rel"], most / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--what", choices=SETS, default="nyu")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    folder = args.folder / args.what
    folder.mkdir(parents=True, exist_ok=True)
    images = args.images or SETS[args.what][2]
    pairs = make(folder, args.what, images)
    for pair in pairs:
        for file in pair:
            file.read_bytes()
    found = {"depthstill": [], "NumPy, 1 process": [], f"NumPy, {args.threads} processes": []}
    memory = 0
    for _ in range(args.rounds):
        before = cpu_seconds()
        seconds, ours, anonymous = depthstill_run(args, folder, pairs)
        memory = max(memory, anonymous)
        found["depthstill"].append((seconds, cpu_seconds() - before))
        for name, processes in zip(list(found)[1:], (1, args.threads)):
            before = cpu_seconds()
            seconds, theirs = numpy_run(args.what, pairs, processes)
            found[name].append((seconds, cpu_seconds() - before))
            assert abs(ours - theirs) < 5e-5 * max(1, theirs), (ours, theirs)
    print(f"{args.what}: {images} pairs, {args.threads} threads, NumPy {np.__version__}, abs_rel {ours:.6f} by both")
    least = [min(times) for times in zip(*found["depthstill"])]
    for name, times in found.items():
        wall, cpu = (min(column) for column in zip(*times))
        print(f"  {name:20} {wall:8.2f} s, CPU {cpu:8.2f} s  {1000 * wall / images:8.1f} ms a pair"
              f"  {wall / least[0]:6.1f} times depthstill's, CPU {cpu / least[1]:6.1f} times")
    print(f"  most RssAnon of depthstill {memory:.0f} MiB")


if __name__ == "__main__":
    main()
