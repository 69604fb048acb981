#!/usr/bin/env python3
"""Makes tests/oracle/torch/*.pth, checkpoints for the reader in engine/io/torch_file.h, and expected.safetensors with the
tensors that PyTorch finds in them ("FILE:NAME", contiguous).

Usage: make_torch_fixtures.py [FOLDER]   Needs PyTorch, NumPy and safetensors; versions are stored in the metadata.
       make_torch_fixtures.py --old      With an older PyTorch (and NumPy), beforehand: writes torchVERSION_*.pth alone,
                                         which the first form then reads too.
"""
import argparse
import io
import os
import pathlib
import pickle
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict, defaultdict

import numpy as np
import torch

OLD = sys.argv[1:] == ["--old"]
FOLDER = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 and not OLD else pathlib.Path(__file__).parent / "torch"


def numbers(*shape):
    generator = torch.Generator().manual_seed(sum(shape) * 31 + len(shape))
    return torch.randn(shape, generator=generator)


def every_type():
    floats = {str(t)[6:]: numbers(3, 5).to(t) for t in (torch.float32, torch.float16, torch.bfloat16, torch.float64)}
    whole = {str(t)[6:]: torch.arange(-3, 9).reshape(3, 4).to(t)
             for t in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)}
    return {**floats, **whole, "bool": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 3), "one": torch.full((1, 1, 1), 7.0),
            **({} if OLD else {"uint16": torch.tensor([1, 65535], dtype=torch.uint16),
                               "uint32": torch.tensor([1], dtype=torch.uint32)})}


def views():
    base = numbers(6, 8)
    image = numbers(2, 3, 4, 5).to(memory_format=torch.channels_last)
    return {"base": base, "transposed": base.t(), "part": base[1:5:2, 2:7:3], "row": base[3], "column": base[:, 5],
            "expanded": base[0, :4].expand(3, 4), "spread": base[2, 2].expand(2, 3), "permuted": image.permute(1, 3, 0, 2),
            "channels_last": image, "strided": base.flatten().as_strided((3, 3), (7, 2), 4), "tail": base.flatten()[-1:],
            "half": base.half().t()[1:], "single": base[:, :1].expand(6, 3)[:, 1:2], "whole": torch.arange(12).reshape(3, 4).t()}


def network():
    torch.manual_seed(3)
    net = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv2d(3, 4, 3), norm=torch.nn.BatchNorm2d(4),
                                          out=torch.nn.Conv2d(4, 2, 1)))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)
    net(numbers(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    scheduler.step()
    return net, optimiser, scheduler


def training():
    net, optimiser, scheduler = network()
    return {
        "epoch": 7, "best": 0.25, "name": "café", "none": None, "seed": 2**64 - 1, "negative": -2**70, "flags": [True, False],
        "optimizer": optimiser.state_dict(), "scheduler": scheduler.state_dict(), "loss": torch.tensor(0.5),
        "args": argparse.Namespace(lr=1e-3, path=pathlib.PurePosixPath("a/b").name, size=(518, 518)),
        "where": pathlib.PosixPath("runs/one"), "raw": b"\x00\xff bytes", "empty": b"", "set": {1, 2},
        "counts": defaultdict(list, a=[1, 2]), "score": np.float64(0.5), "table": np.arange(6.0).reshape(2, 3),
        "device": torch.device("cpu"), "dtype": torch.float16, "shape": torch.Size([2, 3]),
        "rng": torch.get_rng_state()[:16].clone(),
        "model": OrderedDict(("module." + name, value) for name, value in net.state_dict().items()),
    }


class Harmful:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def write_zip64(path, entries):
    """Every size, offset and count in the zip64 records, as for archives over 4 GiB."""
    out, directory = io.BytesIO(), io.BytesIO()
    for name, data in entries.items():
        offset, name, crc = out.tell(), name.encode(), zlib.crc32(data)
        pad = (-(offset + 30 + len(name) + 24)) % 64
        extra = struct.pack("<HHQQ", 1, 16, len(data), len(data)) + struct.pack("<HH", 0x4246, pad) + b"Z" * pad
        out.write(struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(name),
                              len(extra)) + name + extra + data)
        extra = struct.pack("<HHI", 0x4246, 4, 0) + struct.pack("<HHQQQ", 1, 24, len(data), len(data), offset)
        directory.write(struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 45, 45, 0, 0, 0, 0, crc, 0xFFFFFFFF, 0xFFFFFFFF,
                                    len(name), len(extra), 0, 0, 0, 0, 0xFFFFFFFF) + name + extra)
    begin, size = out.tell(), directory.tell()
    out.write(directory.getvalue())
    end = out.tell()
    out.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, len(entries), len(entries), size, begin))
    out.write(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
    out.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    path.write_bytes(out.getvalue())


def entries_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    net = network()[0]
    parameters = {"plain": torch.nn.Parameter(numbers(2, 3)), "frozen": torch.nn.Parameter(numbers(4), requires_grad=False)}
    parameters["tagged"] = torch.nn.Parameter(numbers(3))
    parameters["tagged"].lr_scale = 0.5
    files = {"types": every_type(), "views": views(), "training": training(), "parameters": parameters}
    if OLD:
        prefix = "torch" + ".".join(torch.__version__.split(".")[:2]) + "_"
        for name, content in files.items():
            torch.save(content, FOLDER / f"{prefix}{name}.pth")
        torch.save(files["views"], FOLDER / f"{prefix}views_legacy.pth", _use_new_zipfile_serialization=False)
        return
    for name, content in files.items():
        torch.save(content, FOLDER / f"{name}.pth")
        known = {k: v for k, v in content.items() if not k.startswith("uint1") and not k.startswith("uint3")}
        torch.save(known, FOLDER / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
    for protocol in (3, 4, 5):
        files[f"protocol{protocol}"] = {"state_dict": {"model": net.state_dict(), "raw": b"\x01\x02"}, "extra": bytearray(3)}
        torch.save(files[f"protocol{protocol}"], FOLDER / f"protocol{protocol}.pth", pickle_protocol=protocol)
    files["nested"] = {"encoder": {"a": numbers(2), 3: {"b": numbers(3)}}, "decoder": OrderedDict(c=numbers(4))}
    torch.save(files["nested"], FOLDER / "nested.pth")
    files["zip64"] = files["nested"]
    write_zip64(FOLDER / "zip64.pth", entries_of(FOLDER / "nested.pth"))

    # These files must be refused.
    torch.save({"model": {"a": numbers(2)}, "callback": Harmful(os.system, "echo harmed")}, FOLDER / "bad_system.pth")
    torch.save({"model": {"a": Harmful(eval, "1 + 1")}}, FOLDER / "bad_eval.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": Harmful(getattr, {}, "clear")}, FOLDER / "bad_getattr.pth", pickle_protocol=4)
    torch.save(torch.nn.Linear(2, 2), FOLDER / "bad_module.pth")
    torch.save({"a": numbers(3, 3).to_sparse()}, FOLDER / "bad_sparse.pth")
    torch.save([numbers(2)], FOLDER / "bad_list.pth")
    torch.save({"epoch": 3}, FOLDER / "bad_empty.pth")
    with zipfile.ZipFile(FOLDER / "bad_deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries_of(FOLDER / "nested.pth").items():
            archive.writestr(name, data + bytes(300))
    entries = entries_of(FOLDER / "nested.pth")
    entries["nested/byteorder"] = b"big"
    write_zip64(FOLDER / "bad_order.pth", entries)

    import safetensors
    from safetensors.torch import save_file

    expected = {}
    for name in [*files, *(path.stem for path in sorted(FOLDER.glob("torch[0-9]*.pth")))]:
        legacy = f"{name}_legacy"
        for key in [name] + ([legacy] if name in files and (FOLDER / f"{legacy}.pth").exists() else []):
            tree = torch.load(FOLDER / f"{key}.pth", weights_only=False)
            for _ in range(4):
                inner = [tree[k] for k in ("state_dict", "model") if k in tree]
                tree = inner[0] if inner else tree

            def walk(prefix, node):
                for k, v in node.items():
                    if isinstance(v, torch.Tensor):
                        expected[f"{key}:{prefix}{k}"] = v.detach().contiguous().clone()
                    elif isinstance(v, dict):
                        walk(f"{prefix}{k}.", v)
            walk("", tree)
    versions = {"torch": torch.__version__, "numpy": np.__version__, "safetensors": safetensors.__version__,
                "python": sys.version.split()[0]}
    save_file(expected, FOLDER / "expected.safetensors", metadata=versions)


if __name__ == "__main__":
    main()
