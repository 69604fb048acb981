#!/usr/bin/env python3
"""What nvcc makes of kernels, without a GPU. Needs cuobjdump and nvdisasm (of the CUDA toolkit, or the wheels
nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm).

    python3 tests/gpu/sass.py kernels/depthwise/depthwise_conv2d.cu --only 'depthwise_kernel.*bf16, 8' --loops
    python3 tests/gpu/sass.py --check build/cuda          # the hot kernels of a CUDA build against tests/gpu/sass.json
    python3 tests/gpu/sass.py --update build/cuda         # writes what it finds there

Of one file: registers, spills, and in which order each kernel loads, computes and stores, in a line such as "L9 B f24
S": nine loads from global memory, a branch, 24 arithmetic instructions, a store (l and s: shared memory, |: a barrier).
Loads that stand apart, each before a branch and its arithmetic, wait for each other; loads side by side are under way
at once. --loops counts the instructions of a pass through each loop: an SM of an H100 issues at most 4 a clock, in
which memory moves 14 bytes for it.

--check prints of each hot kernel its registers, the blocks that an SM of an H100 or H200 holds at once, instructions per
element, and the issue ceiling: bytes or operations per second if nothing but issuing instructions took time. It fails
where registers or instructions have grown by a tenth, or a block less fits. Both sides of branches count, so that the
ceiling is rather too low. Another version of nvcc than the record's only prints."""
import argparse
import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[T\d]+\s+)?([A-Z0-9_.]+)(.*?);")
KINDS = [("LDG", "L"), ("STG", "S"), ("LDS", "l"), ("STS", "s"), ("BAR", "|"), ("BRA", "B")]
RECORD = ROOT / "tests/gpu/sass.json"
SMS, ISSUED, CLOCK = 132, 128, 1.755e9  # of an H100 or H200 SXM; thread instructions a clock and SM
REGISTERS, WARPS, BLOCKS, SHARED_BYTES = 65536, 64, 32, 228 << 10  # of an SM
SLACK = 1.1
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


def functions_of(path, cuobjdump, arch="sm_90", only=()):
    """(symbol, instructions) of every kernel in an object or cubin, or of those whose symbols are named."""
    command = [cuobjdump, "-sass", "-arch", arch, *(["-fun", ",".join(only)] if only else []), path]
    for function in re.split(r"Function : ", run(command))[1:]:
        yield (function.split("\n", 1)[0].strip(),
               [(int(a, 16), operation, operands) for a, operation, operands in INSTRUCTION.findall(function)])


def blocks_per_sm(registers, threads, shared_bytes):
    warps = -(-threads // 32)
    per_warp = -(-registers * 32 // 256) * 256
    limits = [REGISTERS // (per_warp * warps), WARPS // warps, BLOCKS]
    return min(limits + [SHARED_BYTES // shared_bytes] if shared_bytes else limits)


def measure(kernel, registers, shared_bytes, instructions):
    """What the record says of one of its kernels. "loops" are pairs: a loop's place among those that loops_of finds,
    and the elements that a pass makes; all of them together make an element."""
    loops = [count for count, _ in loops_of(instructions)]
    per_element = sum(loops[place] / elements for place, elements in kernel["loops"])
    found = {"registers": registers,
             "blocks": blocks_per_sm(registers, kernel["threads"], shared_bytes + kernel.get("dynamic_bytes", 0)),
             "instructions": round(per_element, 1)}
    for work, name in (("bytes", "ceiling_tb"), ("flops", "ceiling_tflop")):
        if work in kernel:
            found[name] = round(SMS * ISSUED * CLOCK / per_element * kernel[work] / 1e12, 1)
    return found


def measure_build(kernels, build, cuobjdump):
    """Pairs of every kernel of the record and what the objects of a CUDA build have of it."""
    for file in sorted({kernel["file"] for kernel in kernels}):
        path = f"{build}/kernels/CMakeFiles/depthstill_kernels_cuda.dir/{file}.o"
        used = {symbol: (int(registers), int(shared)) for symbol, registers, shared in re.findall(
            r"Function (\S+):\s+REG:(\d+).*?SHARED:(\d+)", run([cuobjdump, "-res-usage", "-arch", "sm_90", path]))}
        symbols = dict(zip(names_of(list(used)), used))
        wanted = [kernel for kernel in kernels if kernel["file"] == file]
        for kernel in wanted:
            if kernel["kernel"] not in symbols:
                sys.exit(f"{path}: no kernel {kernel['kernel']}")
        functions = dict(functions_of(path, cuobjdump, only=[symbols[kernel["kernel"]] for kernel in wanted]))
        for kernel in wanted:
            symbol = symbols[kernel["kernel"]]
            try:
                yield kernel, measure(kernel, *used[symbol], functions[symbol])
            except IndexError:
                sys.exit(f"{path}: {kernel['kernel']} has fewer loops than {RECORD.name} says")


def grown(before, now):
    """What is worse than the record says, in words."""
    for key in ("registers", "instructions"):
        if now[key] > SLACK * before[key]:
            yield f"{key} {before[key]} -> {now[key]}"
    if now["blocks"] < before["blocks"]:
        yield f"blocks per SM {before['blocks']} -> {now['blocks']}"


def nvcc_version():
    return re.search(r"release (\d+\.\d+)", run(["nvcc", "--version"]))[1]


def check_build(build, cuobjdump, update):
    record = json.loads(RECORD.read_text())
    comparable = record["nvcc"] == nvcc_version()
    failures = []
    print(f"{'kernel':<72} regs blocks instr./element  ceiling")
    for kernel, now in measure_build(record["kernels"], build, cuobjdump):
        ceiling = f"{now['ceiling_tb']} TB/s" if "ceiling_tb" in now else \
            f"{now['ceiling_tflop']} TFLOP/s" if "ceiling_tflop" in now else ""
        print(f"{kernel['kernel']:<72} {now['registers']:4} {now['blocks']:6} {now['instructions']:14}  {ceiling}")
        if not update and comparable:
            failures += [f"{kernel['kernel']}: {words}" for words in grown(kernel, now)]
        kernel.update(now)
    if update:
        record["nvcc"] = nvcc_version()
        rows = ",\n".join("  " + json.dumps(kernel) for kernel in record["kernels"])
        RECORD.write_text(f'{{"nvcc": "{record["nvcc"]}", "kernels": [\n{rows}\n]}}\n')
    elif not comparable:
        print(f"not compared: {RECORD.name} is of nvcc {record['nvcc']}, this is {nvcc_version()}")
    for failure in failures:
        print(f"FAILED: {failure}; if that is worth it: sass.py --update")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, nargs="?", help="a .cu file")
    parser.add_argument("--check", metavar="BUILD", help="compare the hot kernels of a CUDA build with the record")
    parser.add_argument("--update", metavar="BUILD", help="write the record")
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--only", default="", help="regular expression that the kernel's name must contain")
    parser.add_argument("--loops", action="store_true", help="also count the instructions of each loop")
    parser.add_argument("--cuobjdump", default="cuobjdump")
    arguments = parser.parse_args()
    if sum(map(bool, (arguments.file, arguments.check, arguments.update))) != 1:
        parser.error("expected one of a file, --check and --update")
    if arguments.check or arguments.update:
        sys.exit(check_build(arguments.check or arguments.update, arguments.cuobjdump, bool(arguments.update)))

    with tempfile.TemporaryDirectory() as folder:
        cubin = f"{folder}/kernels.cubin"
        report = run(["nvcc", "-std=c++20", "--expt-relaxed-constexpr", f"-arch={arguments.arch}", "-I", str(ROOT), "-cubin",
                      "-o", cubin, str(arguments.file), "-Xptxas=-v"])
        functions = list(functions_of(cubin, arguments.cuobjdump, arguments.arch))
    for (symbol, found), name in zip(functions, names_of([symbol for symbol, _ in functions])):
        if not re.search(arguments.only, name):
            continue
        used = re.search(re.escape(symbol) + r"'.*?(\d+) bytes spill stores.*?Used (\d+) registers", report, re.S)
        print(f"{name}: {used[2]} registers, {used[1]} bytes spilled, {len(found)} instructions")
        print("   ", order_of(operation for _, operation, _ in found))
        if arguments.loops:
            for count, kinds in loops_of(found):
                print(f"    loop of {count}:", ", ".join(f"{n} {kind}" for kind, n in kinds))


if __name__ == "__main__":
    main()
