#!/usr/bin/env python3
"""What nvcc makes of the kernels of one file, without a GPU: registers, spills, and in which order a kernel loads,
computes and stores. Needs nvcc and cuobjdump (of the CUDA toolkit, or named by --cuobjdump).

    python3 tests/gpu/sass.py kernels/depthwise/depthwise_conv2d.cu --only 'depthwise_kernel.*bf16, 8' --loops

Per kernel a line such as "L9 B f24 S": nine loads from global memory, a branch, 24 arithmetic instructions, a store
(l and s: shared memory, |: a barrier). Loads that stand apart, each before a branch and its arithmetic, wait for each
other; loads side by side are under way at once. --loops counts the instructions of a pass through each loop: an SM of
an H100 issues at most 4 a clock, in which memory moves 14 bytes for it."""
import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T\d]+\s+)?([A-Z0-9_.]+)(.*?);")
KINDS = [("LDG", "L"), ("STG", "S"), ("LDS", "l"), ("STS", "s"), ("BAR", "|"), ("BRA", "B")]
ARITHMETIC = ("FFMA", "FADD", "FMUL", "FMNMX", "MUFU", "HMMA", "DADD", "DFMA", "DMUL")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout + done.stderr


def names_of(symbols):
    """Readable names of mangled symbols, without their parameters."""
    if not symbols or shutil.which("c++filt") is None:
        return list(symbols)
    text = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout
    names = []
    for line in text.splitlines():
        line = re.sub(r"depthstill::|\(anonymous namespace\)::|cuda::", "", line)
        depth, end = 0, len(line)
        for i, c in enumerate(line):
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                end = i
                break
        names.append(line[:end].removeprefix("void "))
    return names


def order_of(operations):
    letters = []
    for operation in operations:
        kind = next((k for start, k in KINDS if operation.startswith(start)), None)
        letters.append(kind or ("f" if operation.startswith(ARITHMETIC) else ""))
    runs = re.sub(r"(.)\1{2,}", lambda m: f"{m[1]}{len(m[0])} ", "".join(letters))
    return re.sub(r"(?<=\D)(?=\D\d)", " ", runs).strip()


def loops_of(instructions):
    """(instructions, counts by kind) of every backward branch's range that spans more than 16 instructions."""
    for address, operation, operands in instructions:
        target = re.search(r"0x([0-9a-f]+)", operands) if operation.startswith("BRA") else None
        if target is None or int(target[1], 16) > address - 16 * 16:
            continue
        inside = [o.split(".")[0] for a, o, _ in instructions if int(target[1], 16) <= a <= address]
        yield len(inside), collections.Counter(inside).most_common(10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, help="a .cu file")
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--only", default="", help="regular expression that the kernel's name must contain")
    parser.add_argument("--loops", action="store_true", help="also count the instructions of each loop")
    parser.add_argument("--cuobjdump", default="cuobjdump")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/kernels.cubin"
        report = run(["nvcc", "-std=c++20", "--expt-relaxed-constexpr", f"-arch={arguments.arch}", "-I", str(ROOT), "-cubin",
                      "-o", cubin, str(arguments.file), "-Xptxas=-v"])
        functions = re.split(r"Function : ", run([arguments.cuobjdump, "-sass", cubin]))[1:]
    symbols = [function.split("\n", 1)[0].strip() for function in functions]
    for symbol, name, function in zip(symbols, names_of(symbols), functions):
        if not re.search(arguments.only, name):
            continue
        used = re.search(re.escape(symbol) + r"'.*?(\d+) bytes spill stores.*?Used (\d+) registers", report, re.S)
        found = [(int(a, 16), operation, operands) for a, operation, operands in INSTRUCTION.findall(function)]
        print(f"{name}: {used[2]} registers, {used[1]} bytes spilled, {len(found)} instructions")
        print("   ", order_of(operation for _, operation, _ in found))
        if arguments.loops:
            for count, kinds in loops_of(found):
                print(f"    loop of {count}:", ", ".join(f"{n} {kind}" for kind, n in kinds))


if __name__ == "__main__":
    main()
