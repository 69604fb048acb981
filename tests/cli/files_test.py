#!/usr/bin/env python3
"""What the program writes, and that it writes over nothing else.  Usage: SCRIPT DEPTHSTILL_BINARY"""
import json
import os
import signal
import subprocess
import time
import unittest

from command import CommandTest, BINARY, run


class Cli(CommandTest):
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
                                ("small.toml", *source, "--picture", recipe),
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


if __name__ == "__main__":
    unittest.main()
