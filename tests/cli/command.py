"""What the tests of the program share: how it is run, and the files that it is given. The first argument of a test script
is the program."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile
import zlib
from pathlib import Path

BINARY = sys.argv.pop(1)
# A sanitizer makes steps of training ten times as long: what repeats the code paths of another test is left to the plain build.
plain_only = unittest.skipIf("ASAN_OPTIONS" in os.environ, "skipped: tested in the plain build")
COMMANDS = ["train", "sweep", "eval", "tables", "predict", "teach", "pack", "convert", "export", "info", "check-data", "synth",
            "bench", "bench-data", "profile", "loss"]
METRICS = ["abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "d1", "d2", "d3"]


def run(*arguments, **options):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=600, **options)


def write_png(path, width, height, depth, channels, rows):
    """rows: height lists of width * channels integers."""
    size = depth // 8
    raw = b"".join(b"\0" + b"".join(v.to_bytes(size, "big") for v in row) for row in rows)
    chunk = lambda kind, data: (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 3: 2}[channels], 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) +
                     chunk(b"IEND", b""))


def write_lying_png(path, width, height, rows):
    """The picture of `rows`, stored lying on its left side with an EXIF tag that says to turn it clockwise."""
    lying = [sum((rows[y][3 * x:3 * x + 3] for y in range(height)), []) for x in reversed(range(width))]
    write_png(path, height, width, 8, 3, lying)
    tiff = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    chunk = struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", zlib.crc32(b"eXIf" + tiff))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])


def write_npy(path, height, width, values):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() +
                     struct.pack(f"<{len(values)}f", *values))


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}, metadata"""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    cut = lambda entry: data[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]]
    return {name: (entry["dtype"], entry["shape"], cut(entry)) for name, entry in header.items()}, metadata


def write_pth(path, tensors, harmful=False):
    """As torch.save writes {"meta": ..., "state_dict": ..., "optimizer": ...}, with the standard library only."""
    text = lambda value: b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    number = lambda value: b"\x8a\x08" + struct.pack("<q", value)
    out, stored = [b"\x80\x02}(" + text("meta") + b"}" + text("state_dict") + b"}("], []
    for i, (name, (dtype, shape, data)) in enumerate(tensors.items()):
        strides = [1]
        for size in reversed(shape[1:]):
            strides.insert(0, strides[0] * size)
        storage, item = {"F32": (b"FloatStorage", 4), "I64": (b"LongStorage", 8)}[dtype]
        ints = lambda values: b"(" + b"".join(map(number, values)) + b"t"
        out.append(text("module." + name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\n" + storage +
                   b"\n" + text(str(i)) + text("cuda:0") + number(len(data) // item) + b"tQK\x00" + ints(shape) +
                   ints(strides[:len(shape)]) + b"\x89ccollections\nOrderedDict\n)RtR")
        stored.append(data)
    out.append(b"u" + text("optimizer") + (b"cos\nsystem\n" if harmful else b"") + b"}u.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"".join(out))
        for i, data in enumerate(stored):
            archive.writestr(f"archive/data/{i}", data)


class CommandTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = Path(self.folder.name)

    def assert_one_line(self, result, code, text):
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        lines = [line for line in result.stderr.splitlines() if line.startswith("depthstill: ")]
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertIn(text, lines[0])

    def small_set(self, width=64, height=32, count=4):
        lines = []
        for i in range(count):
            write_png(self.root / f"images/{i}.png", width, height, 8, 3,
                      [[(7 * x + 13 * y + 29 * i) % 256 for x in range(3 * width)] for y in range(height)])
            depth = [[1000 + 100 * (x % 16) + 50 * i for x in range(width)] for _ in range(height)]
            write_png(self.root / f"depth/{i}.png", width, height, 16, 1, depth)
            lines.append(f"images/{i}.png depth/{i}.png 500.0")
        (self.root / "list.txt").write_text("\n".join(lines))  # no final newline
        (self.root / "small.toml").write_text(
            "[model]\nbins = 17\ndecoder_widths = [32, 32, 64, 128]\n[loss]\ntop_rows = 8\n[data]\nteacher_naming = 'truth'\n"
            "depth_units_per_metre = 256.0\n"
            "teacher_units_per_metre = 256.0\n[data.train]\nlist = 'list.txt'\nteacher = '.'\n"
            "[data.val]\nlist = 'list.txt'\nteacher = '.'\n[augment]\ncrop_height = 32\ncrop_width = 48\n"
            "[train]\nepochs = 2\nbatch_size = 2\ncheckpoint_keep = 1\n")
        return self.root / "small.toml"

    trained = {}  # files of a run of one step, which several tests use

    def make_weights(self):
        recipe, run_folder = self.small_set(), self.root / "run"
        if not CommandTest.trained:
            done = run("train", recipe, "--data", self.root, "--out", run_folder, "--set", "train.max_steps=1")
            self.assertEqual(done.returncode, 0, done.stderr)
            CommandTest.trained.update({name: (run_folder / name).read_bytes() for name in ("best.safetensors", "recipe.toml")})
        run_folder.mkdir(exist_ok=True)
        for name, data in CommandTest.trained.items():
            (run_folder / name).write_bytes(data)
        return run_folder / "best.safetensors"

    def contents(self):
        """{path: bytes} of all files that the test has made, links and special files left out."""
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()}
