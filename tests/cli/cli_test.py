#!/usr/bin/env python3
"""The program as a user or a script sees it: exit codes, one-line errors, stdout against stderr, the
stable JSON keys.
Usage: SCRIPT DEPTHSTILL_BINARY [TOO_NEW]   (TOO_NEW: a program built for FMA4, with the same check at its start)"""
import json
import os
import struct
import subprocess
import sys
import unittest

from command import CommandTest, BINARY, COMMANDS, METRICS, plain_only, run, write_npy, write_png

TOO_NEW = sys.argv.pop(1) if len(sys.argv) > 1 and os.path.isfile(sys.argv[1]) else None


class Cli(CommandTest):
    def test_a_processor_below_the_baseline_is_named(self):
        if TOO_NEW is None:
            self.skipTest("skipped: no x86-64")
        result = subprocess.run([TOO_NEW], capture_output=True, text=True, timeout=60)
        self.assert_one_line(result, 1, "found one without fma4 (build on this machine")

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

    def test_own_folder(self):
        """The commands of docs/own-data.md, on frames of which one has no depth at all and one a far background."""
        width, height = 64, 48
        for i in range(4):
            far = 65535 if i == 2 else 3000
            write_png(self.root / f"frames/{i}.color.png", width, height, 8, 3,
                      [[(5 * x + 11 * y + 37 * i) % 256 for x in range(3 * width)] for y in range(height)])
            write_png(self.root / f"frames/{i}.depth.png", width, height, 16, 1,
                      [[0 if i == 3 else far if y < 9 else 1000 + 20 * x for x in range(width)] for y in range(height)])
        pairs = [f"{i}.color.png {i}.depth.png\n" for i in range(4)]
        (self.root / "frames/train.txt").write_text("".join(pairs))
        (self.root / "frames/val.txt").write_text(pairs[0])
        recipe = self.root / "mine.toml"
        recipe.write_text("model.head = 'regression'\nmodel.max_depth = 10.0\nloss.name = 'baseline'\n"
                          "data.root = 'frames'\ndata.train.list = 'train.txt'\ndata.val.list = 'val.txt'\n"
                          "train.epochs = 1\ntrain.batch_size = 2\n")
        checked = run("check-data", recipe, cwd=self.root)
        self.assertEqual(checked.returncode, 0, checked.stdout)
        self.assertIn(f"{9 * width} pixels beyond left out", checked.stdout)
        empty = "3.depth.png: expected depths between 0.001 and 10 m, found none"
        self.assertIn("note: ", checked.stdout)
        self.assertIn(empty, checked.stdout)
        trained = run("train", recipe, "--out", "run", cwd=self.root)
        self.assertEqual(trained.returncode, 0, trained.stderr)
        self.assertIn("train.txt:4: 3.color.png: expected depths between", trained.stderr)
        self.assertEqual(run("predict", "--weights", "run/best.safetensors", "--out", "depths", "frames/0.color.png",
                             cwd=self.root).returncode, 0)
        (self.root / "frames/train.txt").write_text(pairs[3])
        for command in (["check-data", recipe, "--set", "train.batch_size=1"],
                        ["train", recipe, "--out", "other", "--set", "train.batch_size=1"]):
            self.assertEqual(run(*command, cwd=self.root).returncode, 1, command)
        for command in ("check-data", "train"):
            large = run(command, recipe, cwd=self.root)
            self.assertEqual(large.returncode, 1)
            self.assertIn("train.batch_size: loader: expected at least one batch of 2, found 1",
                          large.stdout + large.stderr)

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

    def test_loss_of_stored_maps(self):
        recipe, pred, teacher, grad = (self.root / name for name in ("r.toml", "x.npy", "y.npy", "dx.npy"))
        recipe.write_text('[loss]\nname = "distill_any_depth"\n')
        write_npy(pred, 3, 4, [1, 2, 4, 3, 5, 9, 7, 6, 8, 2.5, 3.5, 1.5])
        write_npy(teacher, 3, 4, [1, 3, 4, 2, 5, 8, 7, 6, 9, 2.5, 3.5, float("nan")])
        maps = ["--pred", pred, "--teacher", teacher]
        hybrid = json.loads(run("loss", recipe, *maps, "--json", "--grad", grad).stdout)
        self.assertEqual(list(hybrid), ["total", "sc", "grad"])
        self.assertAlmostEqual(hybrid["total"], hybrid["sc"] + 2 * hybrid["grad"], places=5)
        dx = struct.unpack("<12f", grad.read_bytes()[-48:])
        self.assertEqual(dx[11], 0)
        self.assertGreater(max(map(abs, dx)), 0)
        plain = json.loads(run("loss", recipe, *maps, "--json", "--set", "distill.norm=none", "--set",
                               "distill.lambda_grad=0").stdout)
        self.assertEqual(list(plain), ["total", "sc"])
        self.assertAlmostEqual(plain["sc"], 4 / 11, places=6)  # four pixels are off by 1
        square, windows, patches = (self.root / name for name in ("s.npy", "w.npy", "p.npy"))
        write_npy(square, 3, 3, [1, 2, 4, 3, 5, 9, 7, 6, 8])
        write_npy(windows, 1, 4, [0, 1, 0, 3])
        header = patches.with_suffix(".2d.npy")
        write_npy(header, 2, 2, [3, 4, 7, 8])
        patches.write_bytes(header.read_bytes().replace(b"(2, 2), }  ", b"(1, 2, 2),}"))
        both = ["--pred", square, "--teacher", square, "--patches", patches]
        lg = json.loads(run("loss", recipe, *both, "--windows", windows, "--json", "--set", "distill.patch_norm=none").stdout)
        self.assertEqual(list(lg), ["total", "sc", "lg", "grad"])
        self.assertAlmostEqual(lg["lg"], 3 / 4, places=6)  # 3, 5, 7, 6 against 3, 4, 7, 8
        self.assertAlmostEqual(lg["total"], lg["lg"] / 2, places=6)
        alone = run("loss", recipe, *both)
        self.assertEqual(alone.returncode, 2)
        self.assertIn("--patches requires --windows", alone.stderr)
        write_npy(windows, 1, 4, [0, 2, 0, 3])
        self.assert_one_line(run("loss", recipe, *both, "--windows", windows), 1, "found image 0, row 2, column 0, side 3")
        self.assert_one_line(run("loss", recipe, *maps, "--patches", patches, "--windows", windows), 1, "x.npy: expected square")
        l1 = json.loads(run("loss", recipe, *maps, "--json", "--set", "loss.name=l1", "--set", "loss.mask=true").stdout)
        self.assertEqual(list(l1), ["total", "l1"])
        self.assertAlmostEqual(l1["l1"], 4 / 11, places=6)
        write_npy(teacher, 4, 3, [1] * 12)
        self.assert_one_line(run("loss", recipe, *maps), 1, "y.npy: expected maps (1, 3, 4)")
        self.assert_one_line(run("loss", recipe, "--pred", pred, "--teacher", pred, "--set", "loss.name=dpm"), 1, "dpm")
        self.assertEqual(run("loss", recipe, *maps, "--grad", pred).returncode, 2)

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
