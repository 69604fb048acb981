"""Reads what kernel tests recorded (tests/kernels/record.h) and compares two recordings, per kernel and type. Of long
arrays about MOST values are compared, evenly spaced.

Usage: compare.py RECORD THINNED     writes what of a recording is compared"""
import math
import re
import sys
from array import array

MOST = 4096


def to_floats(kind, raw):
    if kind == "bf16":  # the upper halves of floats
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        return array("f", bytes(wide))
    return array({"f4": "f", "f8": "d"}.get(kind, "B"), raw)


def entries(path):
    """(test, type, values in the test, bytes of those that are compared). In a thinned file the line ends with the count."""
    width = {"f4": 4, "f8": 8, "bf16": 2}
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        test, kind, size, *count = data[at:end].decode().split(" ")
        raw = data[end + 1:end + 1 + int(size)]
        if len(raw) < int(size):
            return  # the test program was stopped
        at = end + 1 + int(size)
        w = width.get(kind, 1)
        if count:
            yield test, kind, int(count[0]), raw
            continue
        n = len(raw) // w
        step = max(1, n // MOST)
        yield test, kind, n, raw if step == 1 else b"".join(raw[i:i + w] for i in range(0, n * w, step * w))


def read(path):
    """{test: [(type, count, values)]}, in the order of recording."""
    records = {}
    for test, kind, count, raw in entries(path):
        records.setdefault(test, []).append((kind, count, to_floats(kind, raw)))
    return records


def thin(path, to):
    with open(to, "wb") as file:
        for test, kind, count, raw in entries(path):
            file.write(f"{test} {kind} {len(raw)} {count}\n".encode() + raw)


def kernel_of(test):
    """"SoftmaxKernel/1.MatchesTheFormulas" -> "softmax"; parameterised suites may have a prefix before a slash."""
    suite = next((part for part in test.split(".")[0].split("/") if "Kernel" in part), test.split(".")[0])
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"Kernel.*$", "", suite)).lower()


def add_array(row, kind, a, b):
    row["arrays"] += 1
    row["values"] += len(a)
    if a.tobytes() == b.tobytes():
        row["equal"] += len(a)
        return
    difference = scale = 0.0
    for x, y in zip(a, b):
        if x == y or (x != x and y != y):
            row["equal"] += 1
        elif not (math.isfinite(x) and math.isfinite(y)):
            row["not_finite_on_one_side"] += 1
        else:
            difference = max(difference, abs(x - y))
        if math.isfinite(x):
            scale = max(scale, abs(x))
    if kind != "bytes":  # integers and structures: only how many bytes are equal
        row["max_abs"] = max(row["max_abs"], difference)
        row["max_rel"] = max(row["max_rel"], difference / scale if scale > 0 else difference)


def deviations(emulated, device):
    """{kernel: {type: figures}}, and the tests that cannot be compared. Relative: to the greatest magnitude of an array."""
    table, unmatched = {}, []
    for test, arrays in emulated.items():
        others = device.get(test, [])
        if [(kind, count) for kind, count, _ in arrays] != [(kind, count) for kind, count, _ in others]:
            unmatched.append(test)
            continue
        for (kind, _, a), (_, _, b) in zip(arrays, others):
            empty = {"arrays": 0, "values": 0, "equal": 0, "not_finite_on_one_side": 0}
            if kind != "bytes":
                empty.update(max_abs=0.0, max_rel=0.0)
            add_array(table.setdefault(kernel_of(test), {}).setdefault(kind, empty), kind, a, b)
    return table, unmatched


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    thin(*sys.argv[1:])
