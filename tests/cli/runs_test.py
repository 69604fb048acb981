#!/usr/bin/env python3
"""Runs that are interrupted and resumed, what serves afterwards, and weights on their way.  Usage: SCRIPT DEPTHSTILL_BINARY"""
import json
import os
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from command import CommandTest, BINARY, METRICS, plain_only, read_safetensors, run, write_lying_png, write_pth


class Cli(CommandTest):
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

        near = ["--set", "model.max_depth=12"]  # what it predicts after a few steps is then a plausible teacher
        done = run("train", recipe, "--data", self.root, "--out", self.root / "short", *near)
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
                     self.root / "m.json", "--picture", self.root / "p.png", *near)
        self.assertEqual(scored.returncode, 0, scored.stderr)
        figures = json.loads((self.root / "m.json").read_text())
        self.assertEqual(figures["images"], 4)
        self.assertTrue((self.root / "p.png").read_bytes().startswith(b"\x89PNG"))
        for baseline in ("constant", "row_median"):
            self.assertTrue(set(METRICS) <= figures["baselines"][baseline].keys())
        self.assertIn("without looking at an image, from list.txt, 4 images:", scored.stdout)

    @plain_only
    def test_a_student_learns_from_labels_of_regions(self):
        weights, recipe = self.make_weights(), self.root / "distil.toml"
        recipe.write_text(
            "[model]\nname = 'mobilenet_unet_small'\nhead = 'relative'\n[loss]\nname = 'distill_any_depth'\n[distill]\n"
            "lambda_lg = 0.0\nsize = 32\npatch = 32\nleast = 32\nteachers = ['labels', 'whole']\n"
            "[data]\nteacher_extension = '.npy'\n[data.train]\nlist = 'list.txt'\n[data.test]\nlist = 'list.txt'\n"
            "[optimiser]\nlr = 1e-3\n[train]\nepochs = 2\nbatch_size = 2\ncheckpoint_keep = 1\nprecision = 'fp32'\n"
            "[eval]\nalign = 'disparity-ls'\n")
        same, out = ["--data", self.root], self.root / "student"
        train = ["train", recipe, *same, "--out", out]
        self.assert_one_line(run(*train), 1, "labels: expected a folder of maps, found none")
        taught = run("teach", recipe, *same, "--weights", weights, "--out", self.root / "whole")
        self.assertEqual(taught.stdout.strip(), "4 written, 0 kept", taught.stderr)
        regions = ["teach", recipe, *same, "--regions", "--weights", weights]
        self.assert_one_line(run(*regions), 2, "expected --teacher, one of labels, whole")
        self.assert_one_line(run(*regions, "--teacher", "other"), 2, "one of labels, whole, found 'other'")
        self.assert_one_line(run(*regions, "--set", "distill.teachers=['a.pth']"), 2, "found weights alone")
        self.assert_one_line(run(*regions, "--teacher", "labels", "--half"), 2, "expected none of")
        self.assert_one_line(run(*regions, "--teacher", "whole"), 1, "expected labels of regions or an empty folder")
        counts = []
        for _ in range(2):
            taught = run(*regions, "--teacher", "labels")
            self.assertEqual(taught.returncode, 0, taught.stderr)
            counts.append([int(number) for number in taught.stdout.split()[::2]])
        labels = sorted((self.root / "labels").glob("e*/*.npy"))
        self.assertGreater(len(labels), 0)
        self.assertEqual(counts, [[len(labels), 0], [0, len(labels)]])
        listed = run("teach", recipe, *same, "--regions", "--teacher", "labels", "--list", self.root / "labels.csv")
        self.assert_one_line(listed, 1, "holds labels of other weights")
        self.assertEqual(run("check-data", recipe, *same).returncode, 0)
        done = run(*train)
        self.assertEqual(done.returncode, 0, done.stderr)
        teachers = [json.loads(line)["figures"]["teacher"] for line in (out / "metrics.jsonl").read_text().splitlines()
                    if '"type":"step"' in line]
        self.assertEqual(teachers.count(0), len(labels) / 2)
        scored = run("eval", recipe, *same, "--weights", out / "best.safetensors", "--json", self.root / "m.json")
        self.assertEqual(scored.returncode, 0, scored.stderr)
        self.assertEqual(json.loads((self.root / "m.json").read_text())["align"], "disparity-ls")
        labels[0].unlink()
        self.assert_one_line(run(*train[:-1], self.root / "again"), 1, f"missing are 1, the first {labels[0]}")
        checked = run("check-data", recipe, *same)
        self.assertEqual(checked.returncode, 1)
        self.assertIn("missing are 1", checked.stdout)

    @plain_only
    def test_a_sweep_that_was_killed_goes_on(self):
        recipe, out = self.small_set(), self.root / "sweep"
        common = ["sweep", recipe, "--data", self.root, "--set", "train.epochs=1", "--threads", "1", "--over"]
        command = [*common, "optimiser.lr=1e-3,5e-4,1e-4", "--over", "train.seed=1,2", "--out", out]
        lines = lambda folder: (folder / "sweep.csv").read_text().splitlines()[1:]
        states = lambda: [line.split('",')[1].split(",")[0] for line in lines(out)]
        first = lambda: (out / "optimiser.lr=0.001,train.seed=1/report.html").stat().st_mtime_ns
        for killed, done in ("optimiser.lr=0.001,train.seed=2", 1), ("optimiser.lr=5e-04,train.seed=2", 3):
            process = subprocess.Popen([BINARY, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.time() + 300
            while process.poll() is None and not (out / killed / "recipe.toml").exists() and time.time() < deadline:
                time.sleep(0.01)
            process.kill()
            process.wait()
            self.assertEqual(states(), done * ["done"] + (6 - done) * ["waiting"])
            written = first()
        again = run(*command)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(states(), 6 * ["done"])
        self.assertEqual(first(), written)
        self.assertIn("best d1", again.stdout)
        whole = run(*common, "optimiser.lr=1e-3,5e-4", "--over", "train.seed=2", "--out", self.root / "whole")
        self.assertEqual(whole.returncode, 0, whole.stderr)
        self.assertEqual(lines(self.root / "whole"), [lines(out)[1], lines(out)[3]], "the runs that were killed")
        self.assert_one_line(run(*command, "--set", "train.batch_size=1"), 2, "the recipe of this sweep")

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


if __name__ == "__main__":
    unittest.main()
