#!/usr/bin/env python3
"""What sass.py makes of machine code, without a compiler: stand-ins take the place of cuobjdump and nvcc.
Usage: sass_test.py"""
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sass

SYMBOL, NAME = "_ZN10depthstill12_GLOBAL__N_11fILi8EEEvi", "f<8>"


def machine_code(in_loop):
    """A kernel of 2 + in_loop + 2 instructions with a loop of in_loop + 1."""
    operations = ["S2R R0, SR_TID.X", "MOV R1, R2"] + ["FFMA R1, R2, R3, R1"] * in_loop + ["@P0 BRA 0x20", "EXIT"]
    lines = [f"        /*{16 * i:04x}*/   {operation} ;   /* 0x0 */" for i, operation in enumerate(operations)]
    return f"\t\tFunction : {SYMBOL}\n" + "\n".join(lines) + "\n"


class SassTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.record = self.root / "sass.json"
        for name, text in (("nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'"),
                           ("cuobjdump", f'case "$*" in *-res-usage*) cat {self.root}/usage;; *) cat {self.root}/sass;; esac')):
            (self.root / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.root / name).chmod(0o755)
        for patch in (mock.patch.dict(os.environ, PATH=f"{self.root}:{os.environ['PATH']}"),
                      mock.patch.object(sass, "RECORD", self.record)):
            patch.start()
            self.addCleanup(patch.stop)
        self.build(registers=64, in_loop=79)
        self.write_record("13.0", {"loops": [[0, 8]], "bytes": 4})
        self.assertEqual(self.run_check(update=True)[0], 0)

    def build(self, registers, in_loop):
        (self.root / "usage").write_text(f" Function {SYMBOL}:\n  REG:{registers} STACK:0 SHARED:1024 LOCAL:0\n")
        (self.root / "sass").write_text(machine_code(in_loop))

    def write_record(self, nvcc, kernel):
        kernel = {"kernel": NAME, "file": "f.cu", "threads": 256, **kernel}
        self.record.write_text(json.dumps({"nvcc": nvcc, "kernels": [kernel]}))

    def run_check(self, update=False):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = sass.check_build("build", "cuobjdump", update)
        return code, out.getvalue()

    def test_the_record_holds_what_was_measured(self):
        kernel = json.loads(self.record.read_text())["kernels"][0]
        self.assertEqual([kernel[key] for key in ("registers", "blocks", "instructions", "ceiling_tb")], [64, 4, 10.0, 11.9])
        self.assertEqual(self.run_check()[0], 0)

    def test_a_tenth_more_fails(self):
        for registers, in_loop, words in ((64, 87, ""), (64, 89, "instructions 10.0 -> 11.2"), (70, 79, "blocks per SM 4 -> 3"),
                                          (71, 79, "registers 64 -> 71"), (40, 20, "")):
            with self.subTest(registers=registers, in_loop=in_loop):
                self.build(registers, in_loop)
                code, text = self.run_check()
                self.assertEqual(code, 1 if words else 0, text)
                self.assertIn(words, text)

    def test_another_compiler_is_not_compared(self):
        self.record.write_text(self.record.read_text().replace('"13.0"', '"12.8"'))
        self.build(registers=128, in_loop=200)
        code, text = self.run_check()
        self.assertEqual(code, 0)
        self.assertIn("not compared: sass.json is of nvcc 12.8, this is 13.0", text)

    def test_a_kernel_or_loop_that_is_gone_is_named(self):
        for kernel, words in (({"loops": [[1, 8]]}, "fewer loops"), ({"loops": [[0, 8]], "kernel": "g<8>"}, "no kernel g<8>")):
            self.write_record("13.0", kernel)
            with self.assertRaisesRegex(SystemExit, words):
                self.run_check()

    def test_blocks_of_an_sm(self):
        # By registers, by warps, by their number, by shared memory.
        for registers, threads, shared, blocks in ((168, 128, 17408, 3), (169, 128, 17408, 2), (32, 256, 0, 8), (16, 32, 0, 32),
                                                   (208, 256, 137 << 10, 1), (32, 128, 100 << 10, 2)):
            self.assertEqual(sass.blocks_per_sm(registers, threads, shared), blocks, (registers, threads, shared))


if __name__ == "__main__":
    unittest.main()
