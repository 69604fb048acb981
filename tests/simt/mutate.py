#!/usr/bin/env python3
"""Checks that the kernel tests need every barrier.

For each __syncthreads (all variants) and __syncwarp in the *.cu and *.cuh below ROOT/kernels, runs the kernel's tests with that
one barrier ignored by the emulator (DEPTHSTILL_SIMT_SKIP=file:line) and requires them to fail. A barrier that survives
is needless, or its tests are too small to need it; one that is never reached is not tested at all. Left out are
barriers with a comment "formal: ...": what they order is ordered in the emulator by something else, such as a product on
tensor cores, for which all lanes meet, that gives no such guarantee on a GPU.

Convention: layer_norm.cu is tested by the suites LayerNormKernel*, in one of the given binaries. A .cuh file
without suites of its own is tested by all suites of kernels in the first binary.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

BARRIER = re.compile(r"\b__sync(threads(_count|_or|_and)?|warp)\s*\(")
TIMEOUT_S = 120


def barriers_of(path):
    """Line numbers of the barriers in a file, comments aside."""
    lines = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code, _, comment = line.partition("//")
        found = 0 if comment.strip().startswith("formal: ") else len(BARRIER.findall(code))
        if found > 1:
            sys.exit(f"{path}:{number}: one barrier per line, please: they are told apart by their lines")
        if found:
            lines.append(number)
    return lines


def test_filter(path):
    return "".join(word.capitalize() for word in path.stem.split("_")) + "Kernel*"


def run(binary, pattern, skip=None):
    """(exit status or None when it ran out of time, output)"""
    environment = {k: v for k, v in os.environ.items() if k != "DEPTHSTILL_SIMT_SKIP"}
    environment["OMP_NUM_THREADS"] = "1"
    if skip:
        environment["DEPTHSTILL_SIMT_SKIP"] = skip
    command = [binary, f"--gtest_filter={pattern}", "--gtest_fail_fast", "--gtest_brief=1"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace",
                              timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def binary_with(pattern, binaries):
    """The first binary that has tests of this name, and whether they pass as they are."""
    for binary in binaries:
        command = [binary, "--gtest_list_tests", f"--gtest_filter={pattern}"]
        if "\n  " in subprocess.run(command, capture_output=True, text=True, check=True).stdout:
            return binary, run(binary, pattern)[0] == 0
    return None, False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, required=True, help="folder that has kernels/")
    parser.add_argument("--only", default="", help="check only files whose name contains this")
    parser.add_argument("--fewest", type=int, default=1, help="fail if fewer barriers are found")
    parser.add_argument("binaries", nargs="+", help="test binaries that run kernels in the emulator")
    arguments = parser.parse_args()

    problems, jobs = 0, []
    for path in sorted((arguments.root / "kernels").rglob("*.cu*")):
        lines = barriers_of(path) if arguments.only in path.name else []
        if not lines:
            continue
        pattern = test_filter(path)
        binary, passes = binary_with(pattern, arguments.binaries)
        if binary is None and path.suffix == ".cuh":
            pattern = "*Kernel*"
            binary, passes = binary_with(pattern, arguments.binaries)
        name = path.relative_to(arguments.root)
        if not passes:
            print(f"{'failing' if binary else 'untested'}  {name}: {len(lines)} barriers, tests {pattern}")
            problems += len(lines)
            continue
        jobs += [(path, f"{name}:{line}", binary, pattern) for line in lines]

    needed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(lambda job: run(job[2], job[3], skip=job[1]), jobs)
        for (path, place, _, pattern), (status, output) in zip(jobs, outcomes):
            reached = status is None or "simt: skips" in output
            if reached and status != 0:
                needed += 1
                continue
            source = path.read_text().splitlines()[int(place.rsplit(":", 1)[1]) - 1].strip()
            print(f"{'survived' if reached else 'unreached'}  {place}: {source}   (tests {pattern})")
            problems += 1

    found = needed + problems
    print(f"{found} barriers, {needed} needed, {problems} not")
    if found < arguments.fewest:
        print(f"expected at least {arguments.fewest} barriers below {arguments.root}/kernels, found {found}")
        return 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
