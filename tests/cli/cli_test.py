#!/usr/bin/env python3
"""The program as a user or a script sees it: exit codes, one-line errors, stdout against stderr, the stable JSON keys,
and a run that is interrupted and resumed. Needs the standard library only.  Usage: cli_test.py DEPTHSTILL_BINARY"""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
import zlib
from pathlib import Path

BINARY = sys.argv.pop(1)
# A sanitizer makes steps of training ten times as long: what repeats the code paths of another test is left to the plain build.
plain_only = unittest.skipIf("ASAN_OPTIONS" in os.environ, "skipped: tested in the plain build")
COMMANDS = ["train", "eval", "predict", "teach", "pack", "convert", "export", "info", "check-data", "synth", "bench",
            "bench-data", "profile"]
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


class Cli(unittest.TestCase):
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
            "[model]\nbins = 17\n[loss]\ntop_rows = 8\n[data]\nteacher_naming = 'truth'\n"
            "teacher_units_per_metre = 256.0\n[data.train]\nlist = 'list.txt'\nteacher = '.'\n"
            "[data.val]\nlist = 'list.txt'\nteacher = '.'\n[augment]\ncrop_height = 32\ncrop_width = 48\n"
            "[train]\nepochs = 2\nbatch_size = 2\ncheckpoint_keep = 1\n")
        return self.root / "small.toml"

    def test_help_and_usage(self):
        for command in COMMANDS:
            result = run(command, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn("Usage:", result.stdout)
        for command in ("train", "bench", "profile"):
            text = run(command, "--help").stdout
            self.assertIn("--fused-head", text)
            self.assertIn("--stored-logits", text)
        self.assertEqual(run("--version").returncode, 0)
        self.assertEqual(run("paint").returncode, 2)
        self.assertEqual(run().returncode, 2)
        self.assertEqual(run("info", "--no-such-option").returncode, 2)

    def test_info_json(self):
        info = json.loads(run("info", "--json").stdout)
        student = info["models"]["mobilenet_unet"]
        self.assertEqual(student["parameters"], 17647618)
        self.assertEqual(student["parameters_executed"], 17646465)
        self.assertAlmostEqual(student["gmac"], 171.1, delta=0.1)
        stb = json.loads(run("info", "--json", env={**os.environ, "DEPTHSTILL_DECODER": "stb"}).stdout)["images"]
        self.assertEqual(stb, {"png": "stb_image", "jpeg": "stb_image"})
        for kind, name in info["images"].items():
            self.assertRegex(name, rf"^(stb_image|lib{kind}(-turbo)? [0-9.]+)$")
        self.assert_one_line(run("info", env={**os.environ, "DEPTHSTILL_DECODER": "other"}), 1, "expected libraries or stb")

    @plain_only
    def test_bench_json(self):
        for what, fused, *options in (("train-step", False, "--device", "cpu"), ("train-step", True, "--fused-head"),
                                      ("infer", True), ("infer", False, "--stored-logits")):
            result = run("bench", what, "--model", "mobilenet_unet", "--size", "32x64", "--batch", 1, "--precision",
                         "bf16", "--threads", 2, "--steps", 2, "--json", *options)
            self.assertEqual(result.returncode, 0, result.stderr)
            figures = json.loads(result.stdout)
            for key in ("median_ms", "min_ms", "max_ms", "peak_bytes", "steps"):
                self.assertGreater(figures[key], 0, key)
            self.assertIs(figures["fused_head"], fused, what)

    def test_bench_kernels(self):
        result = run("bench", "softmax", "layer_scale", "--steps", 2, "--threads", 2, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        figures = json.loads(result.stdout)
        self.assertGreater(figures["copy_bytes_per_s"], 0)
        self.assertEqual({k["kernel"] for k in figures["kernels"]}, {"softmax", "layer_scale"})
        for kernel in figures["kernels"]:
            self.assertGreater(kernel["percent_of_copy"], 0, kernel)
        for kernel, shape in (("linear", "8x16x16"), ("conv2d", "1x16x16x8x8x3")):
            self.assertIn("dweight", run("bench", kernel, "--shape", shape, "--steps", 1).stdout)
        self.assert_one_line(run("bench", "softmax", "train-step"), 2, "train-step or infer alone")

    @plain_only
    def test_profile_json(self):
        recipe = self.small_set()
        for arguments in (["--model", "mobilenet_unet", "--size", "32x64"], [recipe, "--data", self.root],
                          [recipe, "--random", "--set", "train.batch_size=1"]):
            result = run("profile", *arguments, "--steps", "2:3", "--threads", 2, "--json")
            self.assertEqual(result.returncode, 0, result.stderr)
            figures = json.loads(result.stdout)
            self.assertGreater(figures["step_ms"], 0)
            self.assertIs(figures["fused_head"], False)
            self.assertIn("decode_head.conv_list.3.convA.conv", {row["layer"] for row in figures["rows"]})
        self.assert_one_line(run("profile", "--steps", "3"), 2, "--steps")
        self.assertEqual(run("profile", recipe, "--model", "dpt_s").returncode, 2)

    def test_profile_estimate(self):
        student = ["--model", "mobilenet_unet", "--batch", 32, "--precision", "bf16"]
        printed = run("profile", "--estimate", *student)
        self.assertEqual(printed.returncode, 0, printed.stderr)
        self.assertEqual(printed.stderr, "")
        for text in ("An estimate, by arithmetic: nothing ran on a GPU", "989.4 TFLOP/s", "3350 GB/s", "by products",
                     "by memory", "kernels", "moments of the optimiser"):
            self.assertIn(text, printed.stdout)
        figures = lambda *more: json.loads(run("profile", "--estimate", *student, "--json", *more).stdout)
        stored, fused = figures(), figures("--fused-head")
        self.assertTrue(stored["estimate"])
        self.assertLess(fused["bound_by_memory_ms"], stored["bound_by_memory_ms"])
        slow = figures("--peak-tflops", 0.001, "--peak-gb", 3350e6)
        self.assertAlmostEqual(slow["bound_by_products_ms"] / (1e3 * stored["flops"] / 1e9), 1, places=4)
        recipe = self.small_set()  # source of settings: the data is not read
        given = run("profile", recipe, "--data", self.root / "nowhere", "--estimate", "--json")
        self.assertEqual(given.returncode, 0, given.stderr)
        self.assertEqual(json.loads(given.stdout)["size"], "32x48")
        self.assert_one_line(run("profile", "--estimate", "--device", "cpu"), 2, "--device")
        for wrong in (["--estimate", "--steps", "1:2"], ["--peak-tflops", 1], ["--peak-gb", 1],
                      ["--estimate", "--peak-gb", 0]):
            self.assertEqual(run("profile", *wrong).returncode, 2, wrong)

    def test_max_pixels(self):
        recipe = self.small_set()
        for env, options in (({}, ["--max-pixels", 2000]), ({"DEPTHSTILL_MAX_PIXELS": "2000"}, [])):
            result = run("check-data", recipe, "--data", self.root, *options, env={**os.environ, **env})
            self.assertEqual(result.returncode, 1)
            self.assertIn("list.txt:1: ", result.stdout + result.stderr)
            self.assertIn("at most 2000 pixels", result.stdout + result.stderr)
        self.assertEqual(run("check-data", recipe, "--data", self.root, "--max-pixels", 2048).returncode, 0)
        self.assertEqual(run("check-data", recipe, "--data", self.root, "--max-pixels", 0).returncode, 2)

    def test_scores_stored_predictions(self):
        height, width = 480, 640
        write_png(self.root / "rgb/a.png", width, height, 8, 3, [[128] * 3 * width] * height)
        write_png(self.root / "depth/a.png", width, height, 16, 1, [[2000] * width] * height)
        (self.root / "list.txt").write_text("rgb/a.png depth/a.png 518.8579\r\n")
        write_npy(self.root / "pred/rgb_a.npy", height, width, [2.2] * (height * width))
        result = run("eval", "--dataset", "nyu", "--root", self.root, "--list", self.root / "list.txt", "--pred",
                     self.root / "pred", "--json", self.root / "out.json")
        self.assertEqual(result.returncode, 0, result.stderr)
        figures = json.loads((self.root / "out.json").read_text())
        self.assertEqual(figures["images"], 1)
        self.assertAlmostEqual(figures["abs_rel"], 0.1, places=5)
        self.assertAlmostEqual(figures["rmse"], 0.2, places=5)
        self.assertEqual(figures["d1"], 1.0)
        self.assertTrue(all(key in figures for key in METRICS))
        with open("/dev/full", "w") as full:
            lost = subprocess.run([BINARY, *result.args[1:]], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(lost.returncode, 1, lost.stderr)
        self.assertIn("cannot write the results to stdout", lost.stderr)
        (self.root / "pred/rgb_a.npy").unlink()
        missing = run("eval", "--dataset", "nyu", "--root", self.root, "--list", self.root / "list.txt", "--pred",
                      self.root / "pred", "--json", self.root / "out.json")
        self.assert_one_line(missing, 1, "list.txt:1: expected the prediction")

    def test_interrupted_training_resumes_and_serves(self):
        recipe, out = self.small_set(), self.root / "run"
        log = out / "metrics.jsonl"

        def train_a_little(*options):
            size, deadline = log.stat().st_size if log.exists() else 0, time.time() + 300
            process = subprocess.Popen([BINARY, "train", recipe, "--data", self.root, "--out", out, "--set",
                                        "train.epochs=400", "--threads", "1", "--device", "cpu", *options],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while process.poll() is None and (not log.exists() or log.stat().st_size == size) and time.time() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=300)
            self.assertEqual(process.returncode, 130, errors)
            self.assertIn("--resume", errors)
            header = (out / "last.safetensors").read_bytes()
            metadata = json.loads(header[8:8 + int.from_bytes(header[:8], "little")])["__metadata__"]
            return metadata["fused_head"]

        self.assertEqual(train_a_little("--fused-head"), "1")
        self.assertEqual(train_a_little("--resume"), "1")  # the way that the run began with
        self.assertEqual(train_a_little("--resume", "--stored-logits"), "0")
        steps = sum('"type":"step"' in line for line in log.read_text().splitlines())
        resumed = run("train", recipe, "--data", self.root, "--out", out, "--set", "train.epochs=400", "--set",
                      "train.seed=71", "--resume")
        self.assert_one_line(resumed, 1, "seed 71")
        self.assertGreater(steps, 0)

        done = run("train", recipe, "--data", self.root, "--out", self.root / "short")
        self.assertEqual(done.returncode, 0, done.stderr)
        weights = self.root / "short/best.safetensors"
        report = (self.root / "short/report.html").read_text()
        self.assertIn("<svg", report)
        self.assertNotIn("http://", report.replace("http://www.w3.org", ""))
        predicted = run("predict", "--weights", weights, "--out", self.root / "maps", "--format", "png,npy,pfm,colour",
                        self.root / "images")
        self.assertEqual(predicted.returncode, 0, predicted.stderr)
        names = {path.suffix for path in (self.root / "maps").rglob("*") if path.is_file()}
        self.assertEqual(names, {".png", ".npy", ".pfm"})
        plain = self.root / "plain.safetensors"
        exported = run("export", self.root / "short/last.safetensors", "--out", plain, "--dtype", "fp16")
        self.assertEqual(exported.returncode, 0, exported.stderr)
        self.assertLess(plain.stat().st_size, weights.stat().st_size * 0.51)
        again = run("predict", "--weights", plain, "--out", self.root / "again", self.root / "images/0.png")
        self.assertEqual(again.returncode, 0, again.stderr)
        model = self.root / "model.onnx"
        onnx = run("export", weights, "--out", model, "--normalise")
        if "cannot write ONNX" not in onnx.stderr:
            self.assertEqual(onnx.returncode, 0, onnx.stderr)
            self.assertGreater(model.stat().st_size, weights.stat().st_size * 0.95)
        self.assert_one_line(run("export", weights, "--out", model, "--dtype", "fp16"), 2, "--dtype")
        self.assert_one_line(run("export", weights, "--out", plain, "--size", "32x64"), 2, "--size")
        self.assert_one_line(run("export", weights, "--out", self.root / "model.bin"), 2, "--format")
        flat = ["--set", "data.teacher_naming=\"flat\"", "--set", "data.teacher_extension=\".npy\"", "--set",
                "data.teacher_units_per_metre=1", "--set", f"data.train.teacher=\"{self.root}/taught\""]
        for line in ("4 written, 0 kept", "0 written, 4 kept"):
            taught = run("teach", recipe, "--data", self.root, "--weights", weights, "--half", *flat)
            self.assertEqual(taught.stdout.strip(), line, taught.stderr)
        (self.root / "here").mkdir()
        taught = run("teach", recipe, "--data", self.root, "--weights", weights, "--out", "below", *flat, cwd=self.root / "here")
        self.assertEqual(len(list((self.root / "here/below").iterdir())), 4, taught.stderr)
        learnt = run("train", recipe, "--data", self.root, "--out", self.root / "learnt", "--set", "train.epochs=1", *flat)
        self.assertEqual(learnt.returncode, 0, learnt.stderr)
        scored = run("eval", recipe, "--data", self.root, "--split", "val", "--weights", weights, "--json",
                     self.root / "m.json")
        self.assertEqual(scored.returncode, 0, scored.stderr)
        self.assertEqual(json.loads((self.root / "m.json").read_text())["images"], 4)

    trained = {}  # files of a run of one step, which several tests use

    def make_weights(self):
        recipe, run_folder = self.small_set(), self.root / "run"
        if not Cli.trained:
            done = run("train", recipe, "--data", self.root, "--out", run_folder, "--set", "train.max_steps=1")
            self.assertEqual(done.returncode, 0, done.stderr)
            Cli.trained.update({name: (run_folder / name).read_bytes() for name in ("best.safetensors", "recipe.toml")})
        run_folder.mkdir(exist_ok=True)
        for name, data in Cli.trained.items():
            (run_folder / name).write_bytes(data)
        return run_folder / "best.safetensors"

    def contents(self):
        """{path: bytes} of all files that the test has made, links and special files left out."""
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()}

    def test_inputs_are_never_written_over(self):
        weights, images = self.make_weights(), self.root / "images"
        recipe, listed = self.root / "small.toml", self.root / "list.txt"
        own = self.root / "recipe.toml"
        own.write_bytes(recipe.read_bytes())
        (self.root / "linked").mkdir()
        (self.root / "linked/0.png").symlink_to("../images/0.png")
        (self.root / "hard").mkdir()
        os.link(images / "1.png", self.root / "hard/1.png")
        predict = ["predict", "--weights", weights, "--format", "png"]
        source = ["eval", recipe, "--data", self.root, "--weights", weights]
        before = self.contents()
        for named, *command in (("images/0.png", *predict, "--out", images, images),
                                ("0.png", *predict, "--out", ".", "0.png"),
                                ("linked/0.png", *predict, "--out", self.root / "linked", images / "0.png", "--overwrite"),
                                ("hard/1.png", *predict, "--out", self.root / "hard", images / "1.png", "--skip-existing"),
                                ("best.safetensors", "export", weights, "--out", weights, "--overwrite"),
                                ("run/best.safetensors", "export", weights, "--out", "../run/../run/best.safetensors", "--overwrite"),
                                ("best.safetensors", "convert", weights, weights, "--overwrite"),
                                ("best.safetensors", *source, "--json", weights),
                                ("depth/3.png", *source, "--csv", self.root / "depth/3.png"),
                                ("small.toml", *source, "--json", recipe),
                                ("list.txt", *source, "--csv", listed),
                                ("recipe.toml", "train", own, "--data", self.root, "--out", self.root)):
            self.assert_one_line(run(*command, cwd=images), 2, named)
        self.assertEqual(self.contents(), before)

    def test_existing_outputs_are_kept_unless_said(self):
        weights, images, out = self.make_weights(), self.root / "images", self.root / "out"
        predict = lambda *more: run("predict", "--weights", weights, "--format", "png,npy", "--out", out, *more)
        self.assertEqual(predict(images / "0.png").returncode, 0)
        (out / "0.npy").write_bytes(b"mine")
        self.assert_one_line(predict(images), 2, "out/0.npy")
        rest = predict(images, "--skip-existing")
        self.assertEqual((rest.returncode, len(rest.stdout.splitlines())), (0, 3), rest.stderr)
        self.assertIn("1 of 4 images have their results already", rest.stderr)
        self.assertEqual((out / "0.npy").read_bytes(), b"mine")
        (out / "0.png").unlink()  # the other format alone
        self.assertEqual(predict(images / "0.png", "--skip-existing").returncode, 0)
        self.assertEqual(((out / "0.npy").read_bytes(), (out / "0.png").exists()), (b"mine", True))
        self.assertEqual(predict(images, "--overwrite").returncode, 0)
        self.assertNotEqual((out / "0.npy").read_bytes(), b"mine")
        self.assertEqual(predict(images, "--overwrite", "--skip-existing").returncode, 2)
        for command in (["export", weights, "--out"], ["convert", weights]):
            target = self.root / "model.safetensors"
            target.write_bytes(b"mine")
            self.assert_one_line(run(*command, target), 2, "model.safetensors")
            self.assertEqual(run(*command, target, "--skip-existing").returncode, 0)
            self.assertEqual(target.read_bytes(), b"mine")
            self.assertEqual(run(*command, target, "--overwrite").returncode, 0)
            self.assertGreater(target.stat().st_size, 1000)
        source = ["eval", self.root / "small.toml", "--data", self.root, "--weights", weights, "--save-pred", out]
        (out / "images_2.npy").write_bytes(b"mine")
        self.assert_one_line(run(*source), 2, "images_2.npy")
        self.assertEqual(run(*source, "--skip-existing").returncode, 0)
        self.assertEqual((out / "images_2.npy").read_bytes(), b"mine")
        self.assertTrue((out / "images_3.npy").exists())

    def test_two_outputs_of_one_name(self):
        weights, folder = self.make_weights(), self.root / "in"
        folder.mkdir()
        for name in ("left.png", "left_colour.png"):
            (folder / name).write_bytes((self.root / "images/0.png").read_bytes())
        clash = run("predict", "--weights", weights, "--out", self.root / "out", folder)
        self.assert_one_line(clash, 2, "out/left_colour.png")
        self.assertIn("in/left.png and ", clash.stderr)
        self.assertFalse((self.root / "out").exists())
        self.assertEqual(run("predict", "--weights", weights, "--out", self.root / "out", "--format", "npy,png", folder).returncode, 0)
        (folder / "two\nlines.png").write_bytes(b"x")
        done = run("predict", "--weights", weights, "--out", self.root / "more", folder, "--format", "npy")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"(?m)^/.*two\\x0alines.png: expected a PNG or JPEG file, found a text file")

    def test_folders_that_are_searched(self):
        weights, folder = self.make_weights(), self.root / "set"
        for name in ("set/b.png", "far/z.png", "photos/c.png"):
            (self.root / name).parent.mkdir()
            (self.root / name).write_bytes((self.root / "images/0.png").read_bytes())
        (folder / "far").symlink_to("../far")
        (self.root / "far/loop").symlink_to("../set")
        (folder / "c.png").symlink_to("../photos/c.png")
        for name in ("scan.tif", "web.webp"):
            (folder / name).write_bytes(b"x")
        before = self.contents()
        predict = lambda *more, **options: run("predict", "--weights", weights, "--out", folder / "depth", folder, *more, **options)
        for more in ([], ["--overwrite"], ["--skip-existing"]):
            done = predict(*more)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("left out: 1 .tif, 1 .webp\n", done.stderr)
            written = {str(path.relative_to(folder / "depth")) for path in (folder / "depth").rglob("*") if path.is_file()}
            self.assertEqual(written, {"b.png", "b_colour.png", "c.png", "c_colour.png", "far/z.png", "far/z_colour.png"})
        self.assertEqual({path: data for path, data in self.contents().items() if folder / "depth" not in path.parents}, before)

        user = {"user": 65534} if os.geteuid() == 0 else {}  # root may read anything
        try:
            run("--version", **user)
        except PermissionError:
            return  # the program lies where only root can go
        (folder / "locked").mkdir(mode=0)
        for path in (self.root, *self.root.rglob("*")):
            if path.name != "locked" and not path.is_symlink():
                path.chmod(0o777)
        done = predict("--overwrite", **user)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("set/locked: expected a readable folder, found: Permission denied", done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 3)
        (folder / "locked").rmdir()

    def test_results_go_where_they_are_sent(self):
        weights, recipe = self.make_weights(), self.root / "small.toml"
        source = ["eval", recipe, "--data", self.root, "--weights", weights, "--threads", 1]
        missing = run(*source, "--json", self.root / "missing/m.json")
        self.assert_one_line(missing, 1, "missing/m.json: expected a writable folder")
        self.assertNotIn(" on cpu", missing.stderr)  # before there is a model
        target = self.root / "m.json"
        target.write_text("earlier")
        target.chmod(0o600)
        (self.root / "link.json").symlink_to("m.json")
        os.mkfifo(self.root / "pipe")
        reader = subprocess.Popen(["cat", self.root / "pipe"], stdout=subprocess.PIPE)
        done = run(*source, "--json", self.root / "link.json", "--csv", self.root / "pipe")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(target.read_text())["images"], 4)
        self.assertEqual(target.stat().st_mode & 0o777, 0o600)
        self.assertTrue((self.root / "link.json").is_symlink())
        self.assertEqual(len(reader.communicate(timeout=60)[0].splitlines()), 5)
        with open(self.root / "printed", "w") as printed:
            subprocess.run([BINARY, *map(str, source), "--json", "/dev/stdout"], stdout=printed, stderr=subprocess.DEVNULL)
        text, brace, rest = (self.root / "printed").read_text().partition("{")
        self.assertIn("abs_rel", text)
        self.assertEqual(json.loads(brace + rest)["images"], 4)
        full = run(*source, "--json", "/dev/full")
        self.assertEqual(full.returncode, 1, full.stderr)
        self.assertIn("/dev/full: expected space to write", full.stderr)
        self.assertIn("abs_rel", full.stdout)  # what was computed is shown all the same
        full = run("export", weights, "--out", "/dev/full", "--format", "onnx")
        self.assert_one_line(full, 1, "cannot write ONNX" if "cannot write ONNX" in full.stderr else "/dev/full: expected space")

    def test_run_folders(self):
        recipe = self.small_set()
        train = ["train", recipe, "--data", self.root, "--set", "train.max_steps=1", "--out"]
        mine = self.root / "mine"
        mine.mkdir()
        (mine / "report.html").write_text("mine")
        self.assert_one_line(run(*train, mine), 2, "mine: expected an empty folder")
        self.assertEqual([path.name for path in mine.iterdir()], ["report.html"])
        first = subprocess.Popen([BINARY, "train", recipe, "--data", self.root, "--set", "train.epochs=400", "--threads", "1",
                                  "--out", self.root / "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 300
        while not (self.root / "run/metrics.jsonl").exists() and first.poll() is None and time.time() < deadline:
            time.sleep(0.02)
        self.assert_one_line(run(*train, self.root / "run"), 1, f"in use by process {first.pid}")
        first.send_signal(signal.SIGINT)
        self.assertEqual(first.wait(timeout=300), 130)
        self.assert_one_line(run(*train, self.root / "run"), 2, "holds a run already")
        (self.root / "copy").mkdir()  # links to another run's files, which must not follow this one
        for path in (self.root / "run").iterdir():
            (self.root / "copy" / path.name).symlink_to(path)
        self.assert_one_line(run(*train, self.root / "copy", "--resume"), 2, "expected a path below")

    def test_published_weights(self):
        ours = self.make_weights()
        tensors, metadata = read_safetensors(ours)
        write_pth(self.root / "model.pth", tensors)
        maps = {}
        for weights in (ours, self.root / "model.pth"):  # the second one says nothing of its architecture and head
            folder = self.root / f"maps_{weights.suffix[1:]}"
            predicted = run("predict", "--weights", weights, "--out", folder, "--format", "npy", self.root / "images/0.png")
            self.assertEqual(predicted.returncode, 0, predicted.stderr)
            maps[weights] = [path.read_bytes() for path in sorted(folder.rglob("*.npy"))]
        self.assertEqual(*maps.values())
        upright = [[(7 * x + 13 * y) % 256 for x in range(3 * 64)] for y in range(32)]  # images/0.png
        write_lying_png(self.root / "photo.png", 64, 32, upright)
        predicted = run("predict", "--weights", ours, "--out", self.root / "photo", "--format", "npy", self.root / "photo.png")
        self.assertEqual(predicted.returncode, 0, predicted.stderr)
        self.assertEqual((self.root / "photo/photo.npy").read_bytes(), maps[ours][0])

        converted = run("convert", self.root / "model.pth", self.root / "out.safetensors")
        self.assertEqual(converted.returncode, 0, converted.stderr)
        self.assertIn("mobilenet_unet", converted.stdout)
        back, described = read_safetensors(self.root / "out.safetensors")
        self.assertEqual(back, tensors)
        self.assertEqual(described["bins"], "17")
        half = run("convert", self.root / "model.pth", self.root / "half.safetensors", "--dtype", "fp16")
        self.assertEqual(half.returncode, 0, half.stderr)
        self.assertEqual({dtype for dtype, _, _ in read_safetensors(self.root / "half.safetensors")[0].values()},
                         {"F16", "I64"})

        name, (dtype, shape, data) = next((n, t) for n, t in tensors.items() if n.endswith("conv_out.0.bias"))
        write_pth(self.root / "wrong.pth", {**tensors, name: (dtype, [shape[0] - 1], data[:-4])})
        wrong = run("convert", self.root / "wrong.pth", self.root / "wrong.safetensors")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn(f"{name}: expected shape (17), found (16)", wrong.stderr)
        self.assertFalse((self.root / "wrong.safetensors").exists())
        write_pth(self.root / "harmful.pth", tensors, harmful=True)
        self.assert_one_line(run("convert", self.root / "harmful.pth", self.root / "x"), 1,
                             "refuses to construct `os.system`: only tensors, dictionaries, numbers and text are read")

    @plain_only
    def test_weights_give_the_same_map_wherever_they_lie(self):
        recipe, out, away = self.small_set(), self.root / "run", self.root / "away"
        away.mkdir()
        done = run("train", recipe, "--data", self.root, "--out", out, "--set", "train.max_steps=1", "--set",
                   'data.val.list=""', "--set", "data.resize_height=32", "--set", "data.resize_width=48", "--set",
                   "train.precision=bf16")
        self.assertEqual(done.returncode, 0, done.stderr)
        weights = out / "best.safetensors"
        data = weights.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8:8 + length])
        stated = header["__metadata__"]
        self.assertEqual((stated["input_size"], stated["flip"], stated["precision"]), ("48x32", "1", "bf16"))

        def map_of(path, *more):
            folder = Path(tempfile.mkdtemp(dir=self.root)) / "map"
            result = run("predict", "--weights", path, "--out", folder, "--format", "npy", self.root / "images/0.png", *more)
            self.assertEqual(result.returncode, 0, result.stderr)
            return (folder / "0.npy").read_bytes()

        expected = map_of(weights)
        moved = away / "w.safetensors"
        moved.write_bytes(data)
        self.assertEqual(map_of(moved), expected)
        for stranger in ("[package]\nname = 'x'\n", "no TOML [", "[model]\nname = 'dpt_s'\nhead = 'relative'\n"):
            (away / "recipe.toml").write_text(stranger)
            self.assertEqual(map_of(moved), expected, stranger)
        for command in (["convert", moved, away / "converted.safetensors"],
                        ["export", moved, "--out", away / "exported.safetensors"]):
            self.assertEqual(run(*command).returncode, 0)
        (away / "recipe.toml").unlink()
        for name in ("converted", "exported"):
            self.assertEqual(map_of(away / f"{name}.safetensors"), expected, name)

        # Weights of an older version: the recipe beside them says it.
        for key in ("input_size", "flip", "precision", "normalisation"):
            del stated[key]
        text = json.dumps(header).encode()
        old = struct.pack("<Q", len(text)) + text + data[8 + length:]
        (out / "old.safetensors").write_bytes(old)
        self.assertEqual(map_of(out / "old.safetensors"), expected)
        moved.write_bytes(old)
        self.assertNotEqual(map_of(moved), expected)
        self.assertEqual(map_of(moved, "--recipe", out / "recipe.toml"), expected)

    def test_weights_that_are_not_finite(self):
        good, recipe, bad = self.make_weights(), self.root / "small.toml", self.root / "bad.safetensors"
        data = bytearray(good.read_bytes())
        length = int.from_bytes(data[:8], "little")
        name, entry = next((n, e) for n, e in json.loads(data[8:8 + length]).items() if n.endswith("conv.weight"))
        at = 8 + length + entry["data_offsets"][0]
        data[at:at + 4] = struct.pack("<f", float("nan"))
        bad.write_bytes(data)
        image = self.root / "images/0.png"
        init = ["--set", f'model.init="{bad}"', "--out", self.root / "again"]
        for command in (["predict", "--weights", bad, "--out", self.root / "maps", image],
                        ["teach", recipe, "--data", self.root, "--weights", bad, "--out", self.root / "maps", "--set",
                         "data.teacher_naming=flat"],
                        ["eval", recipe, "--data", self.root, "--split", "val", "--weights", bad],
                        ["export", bad, "--out", self.root / "out.onnx"],
                        ["export", bad, "--out", self.root / "out.safetensors"],
                        ["train", recipe, "--data", self.root, *init]):
            self.assert_one_line(run(*command), 1, f"tensor '{name}'")
        converted = run("convert", bad, self.root / "out.safetensors")
        self.assertEqual(converted.returncode, 1)
        self.assertIn(f"tensor '{name}'", converted.stderr)
        self.assertEqual([path for path in self.root.glob("maps/**/*") if path.is_file()], [])
        self.assertEqual(list(self.root.glob("out.*")), [])

    @plain_only
    def test_packed_data_trains_the_same_weights(self):
        recipe, packed = self.small_set(), self.root / "packed"
        first = run("pack", recipe, "--data", self.root, "--out", packed)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertRegex(first.stdout, r"^4 written \(.*\), 0 kept; depth is exact\n$")
        self.assertIn(f"--set data.train.packed={packed}", first.stderr)
        self.assertTrue(run("pack", recipe, "--data", self.root, "--out", packed).stdout.startswith("0 written"))
        use = ["--set", f"data.train.packed={packed}"]
        for out, more in (("files", []), ("mapped", use)):
            done = run("train", recipe, "--data", self.root, "--out", self.root / out, "--threads", 1, *more)
            self.assertEqual(done.returncode, 0, done.stderr)
        weights = [read_safetensors(self.root / out / "best.safetensors")[0] for out in ("files", "mapped")]
        self.assertEqual(*weights)
        timed = json.loads(run("bench-data", recipe, "--packed", packed, "--workers", 1, "--seconds", 0.1, "--json").stdout)
        self.assertEqual((timed["source"], timed["samples"], timed["width"]), ("packed", 4, 64))
        self.assertGreater(timed["rates"][0]["images_per_s"], 0)
        train = ["train", recipe, "--data", self.root, "--out", self.root / "other", *use]
        self.assert_one_line(run(*train, "--set", "data.resize_height=32", "--set", "data.resize_width=64"), 1,
                             "packed with data.resize_height = 0, but the recipe says 32")
        shard = packed / "samples_00000000.shard"
        shard.write_bytes(shard.read_bytes()[:-9])
        self.assert_one_line(run(*train), 1, "samples_00000000.shard: expected")
        self.assert_one_line(run("pack", recipe, "--data", self.root, "--out", self.root / "images"), 1,
                             "expected packed data or an empty folder")

    def test_bad_input_is_one_line(self):
        recipe = self.small_set()
        train = lambda *more: run("train", recipe, "--data", self.root, "--out", self.root / "run", *more)
        self.assert_one_line(train("--set", "train.epoch=3"), 1, "unknown key 'train.epoch'")
        self.assert_one_line(run("train", self.root / "none.toml"), 1, "none.toml")
        (self.root / "broken.toml").write_bytes(b"\x5b\x00\x74\x72")
        self.assert_one_line(run("train", self.root / "broken.toml"), 1, "broken.toml")
        (self.root / "list.txt").write_text("images/0.png 500.0\n")
        self.assert_one_line(train(), 1, "list.txt:1: expected 3 columns")
        (self.root / "list.txt").write_text("")
        self.assert_one_line(train(), 1, "list.txt")
        (self.root / "boolean.toml").write_text("a = tr\n")
        self.assert_one_line(run("train", self.root / "boolean.toml", "--print-recipe"), 1, "boolean.toml:1: ")
        self.assert_one_line(run("train", self.root / "two\nlines.toml"), 1, "two\\x0alines.toml")
        (self.root / "below").mkdir()
        (self.root / "below/list.txt").write_text("../images/0.png None\n")
        arguments = [recipe, "--data", self.root / "below", "--set", "data.skip_without_depth=false", "--set",
                     "data.teacher_naming=beside", "--set", "data.train.teacher=maps"]
        for command in (["teach", "--weights", "none"], ["train"], ["pack", "--out", self.root / "packed"], ["bench-data"],
                        ["profile"], ["eval", "--weights", "none"]):
            if command[0] != "eval":
                self.assert_one_line(run(*command[:1], *arguments, *command[1:]), 1, "list.txt:1: expected a path below")
            self.assertIn("--allow-outside", run(command[0], "--help").stdout)
        self.assertFalse((self.root / "images/0.npy").exists())
        self.small_set()
        self.assert_one_line(train("--set", "model.init=none.pth"), 1, f"model.init: {os.getcwd()}/none.pth: expected weights")
        self.small_set()
        image = self.root / "images/2.png"
        image.write_bytes(image.read_bytes()[:200])
        self.assert_one_line(train(), 1, "images/2.png")
        checked = run("check-data", recipe, "--data", self.root)
        self.assertEqual(checked.returncode, 1)
        self.assertIn("list.txt:3", checked.stdout + checked.stderr)
        predict = ["predict", "--weights", image, "--out", self.root / "x", image]
        self.assert_one_line(run(*predict), 1, "2.png")
        self.assert_one_line(run(*predict, "--png-scale", 0), 2, "--png-scale: expected a number greater than 0, got 0")

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_unwritable_folder(self):
        self.assert_one_line(run("synth", "--out", "/proc/nowhere", "--train", 1, "--val", 1), 1, "/proc/nowhere")


if __name__ == "__main__":
    unittest.main()
