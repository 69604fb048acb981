"""Reads what kernel tests recorded (tests/kernels/record.h) and compares two recordings, per kernel and type."""
import math
import re
from array import array


def to_floats(kind, raw):
    if kind == "bf16":  # the upper halves of floats
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        return array("f", bytes(wide))
    return array({"f4": "f", "f8": "d"}.get(kind, "B"), raw)


def read(path):
    """{test: [(type, values)]}, in the order of recording."""
    with open(path, "rb") as file:
        data = file.read()
    records, at = {}, 0
    while (end := data.find(b"\n", at)) >= 0:
        test, kind, size = data[at:end].decode().split(" ")
        raw = data[end + 1:end + 1 + int(size)]
        if len(raw) < int(size):
            break  # the test program was stopped
        at = end + 1 + int(size)
        records.setdefault(test, []).append((kind, to_floats(kind, raw)))
    return records


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
        if [(kind, len(values)) for kind, values in arrays] != [(kind, len(values)) for kind, values in others]:
            unmatched.append(test)
            continue
        for (kind, a), (_, b) in zip(arrays, others):
            empty = {"arrays": 0, "values": 0, "equal": 0, "not_finite_on_one_side": 0}
            if kind != "bytes":
                empty.update(max_abs=0.0, max_rel=0.0)
            add_array(table.setdefault(kernel_of(test), {}).setdefault(kind, empty), kind, a, b)
    return table, unmatched
