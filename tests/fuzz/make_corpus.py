#!/usr/bin/env python3
"""Makes tests/fuzz/corpus: small files of every form that the readers know, and hostile ones (bad_*), which they refuse.

Usage: make_corpus.py [FOLDER]   Python's standard library is enough. The same files come out each time.
"""
import json
import pathlib
import struct
import sys

from corpus_files import FILES, add
from corpus_images import make_jpegs, make_pngs
from corpus_weights import make_safetensors, make_torch, make_zips

FOLDER = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus"


def npy(descr="<f4", shape="(2, 3)", fortran=False, version=1, count=6, comment="", data=None):
    codes = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q",
             "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}
    if data is None:
        kind = codes.get(descr[1:], "f")
        cast = float if kind in "efd" else bool if kind == "?" else int
        data = struct.pack((">" if descr[0] == ">" else "<") + str(count) + kind, *[cast(i + 1) for i in range(count)])
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}{comment}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + data


def make_maps():
    for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        one = kind[1] == "1"
        add("npy", **{f"{kind}.npy": npy(("|" if one else "<") + kind),
            f"{kind}_fortran.npy": npy(("|" if one else ">") + kind, fortran=True)})
    says = "  # depthstill: inverse depth up to scale, unit 0.001"
    add("npy", **{
        "version2.npy": npy(version=2), "version3.npy": npy(version=3), "batched.npy": npy(shape="(1, 1, 2, 3)"),
        "channel.npy": npy(shape="(1, 2, 3, 1)"), "python2.npy": npy(shape="(2L, 3L)"),
        "says_what_it_holds.npy": npy("<u2", comment=says), "quotes.npy": npy().replace(b"'descr'", b'"descr"'),
        "column.npy": npy(shape="(6, 1)", fortran=True), "large.npy": npy("<f2", "(9, 20)", count=180),
        "holes.npy": npy(data=struct.pack("<6f", float("nan"), float("inf"), -1, 0, 1e-40, 1e38)),
        "bad_complex.npy": npy("<c8"), "bad_objects.npy": npy("|O"), "bad_text.npy": npy("<U3"),
        "bad_three_dimensions.npy": npy(shape="(2, 3, 1, 1, 2)", count=12),
        "bad_no_dimension.npy": npy(shape="()", count=1), "bad_one_dimension.npy": npy(shape="(6,)"),
        "bad_empty.npy": npy(shape="(0, 3)", count=0), "bad_short.npy": npy(count=5), "bad_long.npy": npy(count=7),
        "bad_product.npy": npy(shape="(4294967296, 4294967296)"), "bad_version.npy": npy(version=4),
        "bad_header_length.npy": npy().replace(struct.pack("<H", 118), b"\xff\xff"),
        "bad_key_twice.npy": npy().replace(b"'shape'", b"'descr'"),
        "bad_statement.npy": npy(comment=" # depthstill: something, unit 0"), "bad_cut.npy": npy()[:9],
        "bad_negative.npy": npy(shape="(-2, 3)"),
    })
    values = [1.5, 2, 0.25, 80, 0, 1e-3]

    def pfm(header="Pf\n3 2\n-1.0\n", order="<", numbers=values):
        return header.encode() + struct.pack(f"{order}{len(numbers)}f", *numbers)
    add("pfm", **{
        "little.pfm": pfm(), "big.pfm": pfm("Pf\n3 2\n1.0\n", ">"), "scaled.pfm": pfm("Pf 3 2 -0.00390625 "),
        "crlf.pfm": pfm("Pf\r\n3 2\r\n-1\n"), "blanks.pfm": pfm("Pf \t\n 3\n\n 2 \n -1e0\n"),
        "column.pfm": pfm("Pf\n1 6\n-1\n"), "one.pfm": pfm("Pf\n1 1\n-1\n", numbers=[7]),
        "holes.pfm": pfm(numbers=[float("nan"), float("inf"), float("-inf"), -1, 0, 1e38]),
        "many_rows.pfm": pfm("Pf\n2 50\n-1\n", numbers=list(range(100))), "bad_colour.pfm": pfm("PF\n1 2\n-1\n"),
        "bad_scale_0.pfm": pfm("Pf\n3 2\n0\n"), "bad_scale_nan.pfm": pfm("Pf\n3 2\nnan\n"),
        "bad_huge.pfm": b"Pf\n16384 16384\n-1\n", "bad_side.pfm": pfm("Pf\n99999999999999999999 1\n-1\n"),
        "bad_negative.pfm": pfm("Pf\n-3 -2\n-1\n"), "bad_short.pfm": pfm()[:-1], "bad_long.pfm": pfm() + b"\0",
        "bad_word.pfm": b"Pf\n" + b"1" * 40 + b" 1\n-1\n", "bad_comment.pfm": pfm("Pf\n# text\n3 2\n-1\n"),
    })


def make_lists():
    add("list", **{
        "three_columns.txt": b"".join(b"raw/a%d.png gt/a%d.png 721.5\n" % (k, k) for k in range(4)) +
            b"raw/b.png None 1e3",
        "two_columns.txt": b"a.png ../gt/a.png\nb.png None\n", "three_paths.txt": b"a.png gt/a.png mask/a.png\n",
        "tabs.txt": b"a b.png\tgt/a b.png\t700\r\n\"c\td.png\"\tNone\n",
        "quotes.txt": b'"a b.png" "gt/a ""b"".png" 700\n""" "".png" None\n', "bom.txt": b"\xef\xbb\xbfa.png None 1\n",
        "crlf.txt": b"a.png None 1\r\n\r\nb.png None 2\r\n", "comments.txt": b"# a list\n\n  \t\na.png None\n#b\n",
        "absolute.txt": b"/a.png /gt/a.png 5\n//etc/passwd None\n/raw/a.png None\n",
        "slashes.txt": b"./a//b/./c.png .//None\n", "backslashes.txt": b"a\\b.png gt\\a.png 5\n",
        "up.txt": b"../../outside.png None\nup/outside.png None\na.png None\n",
        "unicode.txt": "é\u2028.png None\n".encode(), "latin1.txt": b"\xe9.png None 3\n",
        "long_name.txt": b"n" * 600 + b" None\n", "bad_columns.txt": b"a b c d\na\na.png,b.png\na.png 3 4\n",
        "bad_quote.txt": b'"a.png None\n', "bad_behind_quote.txt": b'"a.png"b None\n',
        "bad_utf16.txt": "a.png None 1\n".encode("utf-16"),
        "bad_utf16_no_mark.txt": "a.png None 1\n".encode("utf-16-le"), "bad_nothing.txt": b"",
        "bad_comments.txt": b"# only\n\n",
        "bad_focal.txt": b"a.png None -1\na.png None nan\na.png None inf\na.png None 0\na.png None 7x\n",
        "bad_slash.txt": b"/ None\n./ None\n", "bad_control.txt": b"a\x1b[2J.png None\na\0.png None\n",
        "bad_many.txt": b"a\n" * 40,
    })


def make_toml():
    recipe = (b'[model]\nname = "mobilenet_unet"\nbins = 64\n[loss]\nname = "baseline"\ntop_rows = 0\n'
              b'[data]\nroot = "."\ncrop = "none"\n[data.train]\nlist = "l.txt"\n'
              b'[augment]\ncrop_height = 64\ncrop_width = 64\n[train]\nepochs = 2\nbatch_size = 1\n')
    add("toml", **{
        "recipe.toml": recipe,
        "dotted.toml": b"loss.name = 'baseline'\ntrain.epochs = 2\ndata.train.list = 'l.txt'\naugment.crop_height = 64\n",
        "inherit.toml": b'inherit = "base.toml"\n' + recipe, "numbers.toml": recipe + b"seed = 0x46\n",
        "comments.toml": b"# text\n\n" + recipe.replace(b"\n", b"  # why\r\n"),
        "inline.toml": recipe.replace(b'[data.train]\nlist = "l.txt"\n', b"train = { list = 'l.txt' }\n"),
        "bad_unknown.toml": recipe + b'colour = "\\n"\n', "bad_value.toml": recipe.replace(b'"baseline"', b'"a\\nb"'),
        "bad_model.toml": recipe.replace(b'"mobilenet_unet"', b'"a\\nb"'), "bad_table.toml": b"[[a]]\nb = 1\n",
        "bad_date.toml": b"a = 1979-05-27T07:32:00Z\n", "bad_string.toml": b'a = "b\n',
        "bad_strings.toml": b"a = '''\n'\"''' \nb = \"\"\"x\\\n  y\"\"\"\nc = \"\\u00e9\\t\"\n",
        "bad_array.toml": b"a = [1, 2.5, 'x', true, []]\n", "bad_self.toml": b'inherit = "recipe.toml"\n',
        "bad_twice.toml": b"a = 1\na = 2\n", "bad_infinite.toml": b"a = inf\n", "bad_control.toml": b"a = \"\x01\"\n",
        "bad_utf8.toml": b"a = '\xff'\n", "bad_accent.toml": "é = 'ü~7e~'\n\"\" = 1\n".encode(),
        "bad_nested.toml": b"a = " + b"[" * 400, "bad_key.toml": b"a." * 300 + b"b = 1\n",
        "bad_integer.toml": b"a = 9223372036854775808\n", "bad_inherit.toml": b'inherit = 3\n',
        "bad_missing.toml": b'inherit = "a\\nb.toml"\n',
        "bad_sum.toml": b"a = 0.1e+2\nb = -0.0\nc = 1_000\nd = 0b101\ne = 0o17\n",
    })


def make_regions():
    right = (b'{"version": 1, "settings": {"train.seed": "70", "distill.patch": "560"}, "list_checksum": "12", "epochs": 2,'
             b' "teacher": "7 fp32"}')
    add("regions", **{
        "regions.json": right, "unknown.json": right.replace(b'"7 fp32"', b'""').replace(b'"12"', b'""'),
        "bad_version.json": right.replace(b"1", b"2", 1), "bad_float.json": right.replace(b"1", b"1e300", 1),
        "bad_epochs.json": right.replace(b"2,", b"-1.5,"), "bad_settings.json": right.replace(b'"70"', b"70"),
        "bad_missing.json": b'{"version": 1}', "bad_list.json": b"[1]", "bad_text.json": b'{"version"\n',
        "bad_utf8.json": right.replace(b"560", b"\xff"), "bad_nested.json": b"[" * 400, "bad_empty.json": b""})


ONES = (1 << 64) - 1


def checksum64(data, seed=0):
    """That of engine/io/checksum.h."""
    def mix(lane, word):
        lane = (lane + word * 0xC2B2AE3D27D4EB4F) & ONES
        return ((lane << 31 | lane >> 33) * 0x9E3779B185EBCA87) & ONES
    lanes = [(seed + i) & ONES for i in range(16)]
    padded = data + bytes(-len(data) % 128)
    for at in range(0, len(padded), 128):
        lanes = [mix(lane, word) for lane, word in zip(lanes, struct.unpack_from("<16Q", padded, at))]
    total = len(data)
    for lane in lanes:
        total = mix(total, lane)
    return total


def packed(samples=1, maps=2, manifest=None, edit=lambda index: None, seal=True):
    shard, entries = b"DSSHARD1" + bytes(56), []
    for i in range(samples):
        entry, checksum = {"name": f"{i}.png", "depth_name": "", "focal": 1.5, "line": i + 1, "stored": [4, 2]}, 0
        for plane, size in [("image", 24), ("depth", 16), ("teacher", 16)][:1 + maps]:
            data = bytes((7 * i + j) % 120 + 1 for j in range(size))
            entry[plane] = {"at": len(shard), "size": [4, 2],
                **({} if plane == "image" else {"metres_per_unit": 0.01, "max_error": 0.005})}
            checksum = checksum64(data, checksum)
            shard += data + bytes(-size % 64)
        entries.append({**entry, "checksum": f"{checksum:016x}"})
    index = {"first": 0, "samples": entries}
    edit(index)
    data = index if isinstance(index, bytes) else json.dumps(index, separators=(",", ":")).encode()
    footer = struct.pack("<QQQ", len(shard), len(data), checksum64(data) if seal else 0) + b"DSSHARD1"
    says = {"format": "depthstill packed data", "version": 1, "samples": samples, "skipped": 0, "list_checksum": "ab",
        "settings": {"list": "l.txt", "data.crop": "none"}}
    return json.dumps({**says, **(manifest or {})}).encode() + b"\0" + shard + data + footer


def make_packed():
    def sample(**changes):
        return lambda index: index["samples"][0].update(changes)
    plane = {"at": 64, "size": [4, 2]}
    add("packed", **{
        "one": packed(), "two": packed(2, 1), "images": packed(3, 0),
        "bad_checksum": packed(edit=sample(checksum="00")), "bad_index_checksum": packed(seal=False),
        "bad_first": packed(edit=lambda index: index.update(first=1)),
        "bad_no_samples": packed(edit=lambda index: index.update(samples=[])),
        "bad_samples": packed(edit=lambda index: index.update(samples={"a": 1})),
        "bad_name": packed(edit=sample(name="a\nb", image={"at": 1, "size": [4, 2]})),
        "bad_name_checksum": packed(edit=sample(name="a\nb", checksum="0")),
        "bad_hex": packed(edit=sample(checksum="\n")),
        "bad_size": packed(edit=sample(image={"at": 64, "size": [-1, 2]})),
        "bad_huge": packed(edit=sample(image={"at": 64, "size": [16384, 16384]})),
        "bad_wrapped_size": packed(edit=sample(image={"at": 64, "size": [(1 << 32) + 4, 2]})),
        "bad_place": packed(edit=sample(image={"at": (1 << 64) - 64, "size": [4, 2]})),
        "bad_real_place": packed(edit=sample(image={"at": 1e300, "size": [4, 2]})),
        "bad_scale": packed(edit=sample(depth={**plane, "metres_per_unit": -1})),
        "bad_map_size": packed(edit=sample(depth={"at": 64, "size": [2, 4], "metres_per_unit": 1})),
        "bad_focal": packed(edit=sample(focal="1")), "bad_version": packed(manifest={"version": 2}),
        "bad_nested_version": packed(manifest={"version": [[["\n"]]]}),
        "bad_format": packed(manifest={"format": "other"}), "bad_setting": packed(manifest={"settings": {"a": 1}}),
        "bad_settings": packed(manifest={"settings": [1]}), "bad_count": packed(manifest={"samples": 2}),
        "bad_negative_count": packed(manifest={"samples": -1}), "bad_real_count": packed(manifest={"samples": 1e300}),
        "bad_manifest": b"{\0" + packed()[-900:], "bad_utf8": packed().replace(b"l.txt", b"\xff.txt"),
        "bad_cut": packed()[:-9], "bad_no_shard": packed().split(b"\0")[0],
    })


# The planted reader ends as the first letter says: tests of the driver expect each of these findings.
PLANTED = {"crash": b"c", "exception": b"e", "loop": b"l", "memory": b"m", "lines": b"n", "contradiction": b"w",
    "refused": b"r", "bad_read": b"-", "bad_refused": b"r", "read": b"-"}


def main():
    for make in (make_pngs, make_jpegs, make_maps, make_safetensors, make_zips, make_torch, make_lists, make_toml,
        make_packed, make_regions):
        make()
    add("planted", **PLANTED)
    for target, files in FILES.items():
        (FOLDER / target).mkdir(parents=True, exist_ok=True)
        for name, contents in files.items():
            (FOLDER / target / name).write_bytes(contents)
        print(f"{target}: {len(files)} files, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()
