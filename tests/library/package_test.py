#!/usr/bin/env python3
"""Installs the build into a folder and uses it as another program would: with find_package, with pkg-config, and header by
header. Runs the examples. Needs the standard library only.  Usage: package_test.py BUILD_DIR SOURCE_DIR"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD, SOURCE = (pathlib.Path(p).resolve() for p in sys.argv[1:3])
COMPILER = os.environ.get("CXX", "g++")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="depthstill_package_"))
        cls.prefix = cls.folder / "prefix"
        run("cmake", "--install", BUILD, "--prefix", cls.prefix)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    def test_examples_are_built_against_the_package_and_run(self):
        examples = self.folder / "examples"
        run("cmake", "-S", SOURCE / "tools/library/examples", "-B", examples, "-G", "Ninja",
            f"-DCMAKE_PREFIX_PATH={self.prefix}", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", examples)
        self.assertIn("by difference", run(examples / "own_op"))

        data = self.folder / "data"
        run(self.prefix / "bin/depthstill", "synth", "--out", data, "--train", 4, "--val", 1, "--seed", 3)
        weights = self.folder / "own.safetensors"
        steps = run(examples / "own_loss", data, "train.txt", weights, 3).splitlines()
        self.assertEqual([line.split(":")[0] for line in steps], ["step 1", "step 2", "step 3"])

        image = next((data / "raw").rglob("*.png"))
        depth = self.folder / "depth.npy"
        self.assertIn("depth in metres", run(examples / "depth_of_image", weights, image, depth))
        self.assertEqual(depth.read_bytes()[:6], b"\x93NUMPY")
        done = subprocess.run([examples / "depth_of_image", data / "train.txt", image, depth], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_pkg_config_names_what_a_program_needs(self):
        if not shutil.which("pkg-config"):
            self.skipTest("skipped: no pkg-config")
        pkg_config = dict(os.environ, PKG_CONFIG_PATH=str(next(self.prefix.rglob("pkgconfig"))))
        flags = run("pkg-config", "--cflags", "--libs", "depthstill", env=pkg_config).split()
        run(COMPILER, SOURCE / "tools/library/examples/own_op.cpp", "-o", self.folder / "own_op", *flags)
        run(self.folder / "own_op")

    def test_every_header_stands_alone(self):
        root = self.prefix / "include/depthstill"
        headers = sorted(path.relative_to(root) for path in root.rglob("*.h"))
        self.assertGreater(len(headers), 80)
        for header in headers:
            text = (root / header).read_text()
            for word in ("__AVX", "immintrin", "tools/"):
                code = [line for line in text.splitlines() if not line.lstrip().startswith("//")]
                self.assertNotIn(word, "\n".join(code), f"{header}: installed headers are for any processor")
        source = self.folder / "all.cpp"
        source.write_text("".join(f'#include "{header}"\n' for header in headers))
        run(COMPILER, "-std=c++20", "-Wall", "-Wextra", "-fsyntax-only", f"-I{root}", source)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
