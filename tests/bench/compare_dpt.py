#!/usr/bin/env python3
"""Depth Anything V2 small, prediction or training step, side by side: depthstill, PyTorch (transformers) and, for
prediction in fp32, onnxruntime on the file that `depthstill export` wrote. A B C A B C ..., medians and their ratios.

PyTorch runs channels last with an allocator that keeps its memory; an L1 loss, or with --loss distill_any_depth that of
compare_context_loss.py, AdamW and gradient clipping in training. Where its bf16 (autocast) is slower than its fp32,
compare with the latter.

Usage: compare_dpt.py DEPTHSTILL_BINARY [--what infer|train-step] [--precision fp32|bf16] [--size 518x518] [--batch 1]
                      [--loss l1|distill_any_depth] [--threads 2] [--rounds 3] [--steps 7]
Needs PyTorch, transformers and NumPy, and onnxruntime if it is to take part; versions are printed.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_context_loss import context_loss, gradient_matching
from compare_pytorch import KEEP_MEMORY, measured, report, run


def make_model(size, batch):
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(1)
    backbone = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14,
                            out_features=["stage3", "stage6", "stage9", "stage12"], reshape_hidden_states=False)
    config = DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=384, fusion_hidden_size=64,
                                 neck_hidden_sizes=[48, 96, 192, 384], head_hidden_size=32)
    return DepthAnythingForDepthEstimation(config), torch.randn(batch, 3, *size)


def torch_worker(args, size):
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    model, image = make_model(size, args.batch)
    training = args.what == "train-step"
    model = model.train(training).to(memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)
    target = torch.rand(args.batch, *size)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    times = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"), torch.set_grad_enabled(training):
            depth = model(image).predicted_depth
        if training:
            depth = depth.float()
            if args.loss == "l1":
                loss = (depth - target).abs().mean()
            else:
                loss = context_loss(depth, target) + 2 * gradient_matching(depth, target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
            optimiser.step()
        times.append(1000 * (time.perf_counter() - start))
    name = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps({**measured(times[1:]), "name": name}))


def onnx_worker(args, size):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    image = numpy.random.default_rng(1).standard_normal((1, 3, *size), dtype=numpy.float32)
    times = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        session.run(None, {"image": image})
        times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({**measured(times[1:]), "name": f"onnxruntime {onnxruntime.__version__}"}))


def export(binary, size, folder):
    """An ONNX file of a model with random weights."""
    model, _ = make_model(size, 1)
    model.save_pretrained(folder)
    path = Path(folder) / "dpt_s.onnx"
    subprocess.run([binary, "export", str(Path(folder) / "model.safetensors"), "--out", str(path), "--size",
                    "x".join(map(str, size))], check=True, capture_output=True)
    return str(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--what", choices=["infer", "train-step"], default="infer")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--size", default="518x518")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--loss", choices=["l1", "distill_any_depth"], default="l1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--worker", choices=["torch", "onnx"], help=argparse.SUPPRESS)
    parser.add_argument("--onnx", help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = tuple(map(int, args.size.split("x")))
    if args.worker:
        return {"torch": torch_worker, "onnx": onnx_worker}[args.worker](args, size)

    common = ["--precision", args.precision, "--threads", str(args.threads), "--steps", str(args.steps),
              "--size", args.size, "--batch", str(args.batch)]
    common += ["--loss", args.loss] if args.what == "train-step" else []
    with tempfile.TemporaryDirectory() as folder:
        workers = [["torch"]]
        if args.what == "infer" and args.precision == "fp32":
            try:
                import onnxruntime  # noqa: F401
                workers.append(["onnx", "--onnx", export(args.binary, size, folder)])
            except ImportError:
                print("onnxruntime is not installed and takes no part")
        sides = {}
        for _ in range(args.rounds):
            ours = run([args.binary, "bench", args.what, "--model", "dpt_s", "--json"] + common)
            sides.setdefault("depthstill", []).append(ours)
            for worker in workers:
                theirs = run([sys.executable, __file__, "--what", args.what, "--worker", *worker] + common,
                             **KEEP_MEMORY)
                sides.setdefault(theirs["name"], []).append(theirs)
    report(f"{args.what}, dpt_s, {args.size}, batch {args.batch}, {args.precision}, {args.threads} threads, "
           f"{args.rounds} rounds of {args.steps}", sides)


if __name__ == "__main__":
    main()
