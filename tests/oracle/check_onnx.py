#!/usr/bin/env python3
"""onnxruntime on an exported model against depthstill itself, by the largest difference over the largest value.

  check_onnx.py DEPTHSTILL WEIGHTS [--sizes 64x96,96x160] [--random]

Compares the output before the last activation (`predict --raw-input --raw-output`) and, for models that take images of
these sizes as they are, depth (`predict` on an 8-bit image against the model exported with --normalise). Depth
Anything is exported once per size. --random replaces the weights first by values that keep every layer's output of order one.
Exit code 1 if an error exceeds 1e-4; without onnxruntime it says "skipped: no onnxruntime".
Measured with numpy 2, onnxruntime 1.31.1 and safetensors 0.8."""
import argparse
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

LIMIT = 1e-4


def run(*command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {result.stderr.strip()}")


def write_png(path, pixels):
    height, width, _ = pixels.shape
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def randomise(source, target):
    """Weights of variance gain / fan-in, scales and variances around 1, shifts around 0."""
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file
    rng = np.random.default_rng(1)
    with safe_open(source, "np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    for name, value in tensors.items():
        if value.dtype != np.float32:
            continue
        if value.ndim >= 2 and "embed" not in name and "token" not in name:
            gain = 2.0 if "head" in name or "scratch" in name else 1.0  # residual blocks add up
            spread = np.sqrt(gain / np.prod(value.shape[1:]))
            tensors[name] = rng.normal(0, spread, value.shape).astype(np.float32)
        elif name.endswith(("running_var", "gamma")) or f"{name[:-len('weight')]}running_var" in tensors:
            tensors[name] = rng.uniform(0.7, 1.3, value.shape).astype(np.float32)
        elif "norm" in name and name.endswith("weight"):
            tensors[name] = rng.uniform(0.7, 1.3, value.shape).astype(np.float32)
        else:
            tensors[name] = rng.normal(0, 0.2, value.shape).astype(np.float32)
    save_file(tensors, target, metadata)


class Check:
    def __init__(self, binary, weights, folder):
        self.binary, self.weights, self.folder, self.worst = binary, weights, folder, 0.0

    def session(self, *options):
        import onnxruntime
        path = self.folder / "model.onnx"
        run(self.binary, "export", self.weights, "--out", path, "--overwrite", *options)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 2
        return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def report(self, what, found, expected):
        import numpy as np
        if found.shape != expected.shape:
            sys.exit(f"{what}: onnxruntime gives {found.shape}, depthstill {expected.shape}")
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        self.worst = max(self.worst, error if error == error else float("inf"))
        print(f"{what:40s} max |x| {np.abs(expected).max():9.4g}   spread {expected.std():9.4g}   error {error:.2e}",
              flush=True)

    def raw(self, session, height, width):
        import numpy as np
        image = np.random.default_rng(2).normal(0, 1, (3, height, width)).astype(np.float32)
        np.save(self.folder / "in.npy", image)
        run(self.binary, "predict", "--weights", self.weights, "--raw-input", self.folder / "in.npy", "--raw-output",
            self.folder / "out.npy", "--overwrite", "--device", "cpu", "--precision", "fp32")
        expected = np.load(self.folder / "out.npy")
        found = session.run(None, {"image": image[None]})[0][0]
        self.report(f"raw {height}x{width}", found.reshape(expected.shape), expected)

    def depth(self, session, height, width):
        import numpy as np
        pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
        write_png(self.folder / "image.png", pixels)
        run(self.binary, "predict", "--weights", self.weights, "--out", self.folder, "--format", "npy", "--overwrite", "--device", "cpu",
            "--precision", "fp32", self.folder / "image.png")
        image = pixels.transpose(2, 0, 1)[None].astype(np.float32)
        self.report(f"depth {height}x{width}", session.run(None, {"image": image})[0][0],
                    np.load(self.folder / "image.npy"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("weights")
    parser.add_argument("--sizes", default="64x96,100x164")
    parser.add_argument("--random", action="store_true")
    args = parser.parse_args()
    try:
        import numpy
        import onnxruntime
    except ImportError:
        print("skipped: no onnxruntime")
        return 0
    print(f"onnxruntime {onnxruntime.__version__}, numpy {numpy.__version__}, {args.weights}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = Path(args.weights)
        if args.random:
            weights = folder / "random.safetensors"
            randomise(args.weights, weights)
        check = Check(args.binary, weights, folder)
        sizes = [tuple(map(int, size.split("x"))) for size in args.sizes.split(",")]
        for height, width in sizes:
            fixed = ["--size", f"{height}x{width}"]
            session = check.session("--head-output", "raw", *(fixed if needs_size(args, weights) else []))
            check.raw(session, height, width)
            if takes_any_size(session):
                check.depth(check.session("--normalise"), height, width)
    print(f"worst {check.worst:.2e}, limit {LIMIT:g}")
    return int(not check.worst <= LIMIT)


def architecture(weights):
    from safetensors import safe_open
    with safe_open(weights, "np") as file:
        return file.metadata()["architecture"]


def needs_size(args, weights):
    return architecture(weights).startswith("dpt")


def takes_any_size(session):
    return session.get_modelmeta().custom_metadata_map["architecture"].endswith("_unet")


if __name__ == "__main__":
    sys.exit(main())
