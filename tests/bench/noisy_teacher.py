#!/usr/bin/env python3
"""Normalisations of L_sc side by side: a student learns from a teacher that is exact, or wrong in a box of each image,
and is scored against the truth by least squares in disparity.

Every run is tools/recipes/dad_small.toml, by default with the light U-Net, on the labelled NYU Depth v2 frames, and is
evaluated on their test list; runs of one seed differ in the normalisation alone. Teachers:

  recipe     as the recipe has it: the truth, with the recipe's L_grad
  exact      the inverse of the truth, L_sc alone, as the following
  small_box  a box of 1/8 to 1/4 of the sides of each image is 3 to 7 times nearer
  large_box  a box of 0.3 to 0.7 of the sides is e^0.5 to e^1.5 times nearer or farther

The error of an image is the same in all runs. All runs are printed: seeds are not to be chosen afterwards.

Usage: noisy_teacher.py DEPTHSTILL_BINARY NYU_FOLDER [--teachers exact,small_box,large_box] [--norms global,hybrid]
                        [--seeds 1,2,3] [--steps 300] [--model mobilenet_unet_small] [--threads 2] [--jobs 1]
Needs NumPy and Pillow.
"""
import argparse
import concurrent.futures
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from PIL import Image

RECIPE = Path(__file__).parents[2] / "tools/recipes/dad_small.toml"
BOXES = {"exact": None, "small_box": (0.125, 0.25), "large_box": (0.3, 0.7)}


def factor(teacher, rng):
    if teacher == "small_box":
        return rng.uniform(3, 7)
    return numpy.exp(rng.choice([-1, 1]) * rng.uniform(0.5, 1.5))


def write_maps(nyu, folder, teacher):
    """Inverse depth of every training frame, with this teacher's error."""
    folder.mkdir()
    rng = numpy.random.default_rng(0)
    for line in (nyu / "train.txt").read_text().split("\n"):
        if not line:
            continue
        image, depth = line.split()[:2]
        truth = numpy.asarray(Image.open(nyu / depth)).astype(numpy.float32) / 1000
        with numpy.errstate(divide="ignore"):
            y = numpy.where(truth > 0, 1 / truth, numpy.nan)
        if BOXES[teacher]:
            size = (numpy.array(y.shape) * rng.uniform(*BOXES[teacher], 2)).astype(int)
            top, left = (rng.integers(0, y.shape - size + 1))
            y[top:top + size[0], left:left + size[1]] *= factor(teacher, rng)
        numpy.save(folder / (Path(image).as_posix().replace("/", "_").rsplit(".", 1)[0] + ".npy"),
                   y.astype(numpy.float16))


def train(args, maps, teacher, norm, seed):
    """AbsRel of one run on the test list, and its seconds."""
    settings = {"distill.norm": norm, "train.seed": seed, "train.max_steps": args.steps, "model.name": args.model}
    if teacher != "recipe":
        settings |= {"distill.lambda_grad": 0, "distill.teachers": json.dumps([str(maps / teacher)]),
                     "data.teacher_naming": "flat"}
    out = maps / f"{teacher}_{norm}_{seed}"
    same = ["--data", str(args.nyu), "--threads", str(args.threads)]
    for key, value in settings.items():
        same += ["--set", f"{key}={value}"]
    start = time.monotonic()
    subprocess.run([args.binary, "train", str(RECIPE), "--out", str(out), "--allow-outside", *same, "--set",
                    "data.test.list="], check=True, capture_output=True)
    seconds = time.monotonic() - start
    scores = out / "scores.json"
    subprocess.run([args.binary, "eval", str(RECIPE), "--weights", str(out / "last.safetensors"), "--json",
                    str(scores), *same], check=True, capture_output=True)
    return json.loads(scores.read_text())["abs_rel"], seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("nyu", type=Path)
    parser.add_argument("--teachers", default="exact,small_box,large_box")
    parser.add_argument("--norms", default="global,hybrid")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--model", default="mobilenet_unet_small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    args.nyu = args.nyu.resolve()
    norms, seeds = args.norms.split(","), args.seeds.split(",")
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for teacher in args.teachers.split(","):
            if teacher != "recipe":
                write_maps(args.nyu, Path(folder) / teacher, teacher)
            runs = {(norm, seed): pool.submit(train, args, Path(folder), teacher, norm, seed)
                    for seed in seeds for norm in norms}
            found = {}
            for (norm, seed), run in runs.items():
                found[norm, seed], seconds = run.result()
                print(f"{args.model} {teacher:10} {norm:8} seed {seed}: AbsRel {found[norm, seed]:.4f}, "
                      f"{seconds:.0f} s", flush=True)
            first, *others = norms
            for norm in norms:
                mean = statistics.mean(found[norm, seed] for seed in seeds)
                print(f"{args.model} {teacher:10} {norm:8} mean {mean:.4f}", flush=True)
            for norm in others:
                won = sum(found[norm, seed] < found[first, seed] for seed in seeds)
                print(f"{args.model} {teacher:10} {norm} is better than {first} in {won} of {len(seeds)} seeds",
                      flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))}:\n{error.stderr.decode()}")
