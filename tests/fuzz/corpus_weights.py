"""Weights of the corpus that make_corpus.py makes: safetensors, zip archives, PyTorch checkpoints."""
import json
import struct
import zlib

from corpus_files import add

def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor_of(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def make_safetensors():
    sizes = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4,
        "U64": 8, "I64": 8, "F64": 8}
    header, end = {}, 0
    for dtype, size in sizes.items():
        header[dtype.lower()] = tensor_of(dtype, [1, 2], end, end + 2 * size)
        end += 2 * size
    one = {"a": tensor_of("F32", [2, 1], 0, 8)}
    add("safetensors", **{
        "types": safetensors(header, bytes(i % 60 for i in range(end))),
        "metadata": safetensors({"__metadata__": {"format": "pt", "note": "\u00e9\n"}, **one}, bytes(8)),
        "padded": safetensors(json.dumps(one).encode() + b"   ", bytes(8)),
        "scalar": safetensors({"a": tensor_of("F16", [], 0, 2)}, bytes(2)),
        "empty_tensor": safetensors({"a": tensor_of("F32", [0, 5], 0, 0), "b": tensor_of("I64", [1], 0, 8)}, bytes(8)),
        "unordered": safetensors({"b": tensor_of("U8", [3], 8, 11), **one}, bytes(11)),
        "names": safetensors({"a\nb.\u00fc": tensor_of("I32", [1], 0, 4)}, bytes(4)),
        "not_finite": safetensors(one, struct.pack("<2f", float("nan"), float("inf"))), "no_tensors": safetensors({}),
        "bad_gap": safetensors({"a": tensor_of("U8", [1], 1, 2)}, bytes(2)),
        "bad_overlap": safetensors({"a": tensor_of("U8", [2], 0, 2), "b": tensor_of("U8", [2], 1, 3)}, bytes(3)),
        "bad_twice": safetensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "bad_nested": safetensors(b'{"a":' * 300), "bad_brackets": safetensors(b'{"a":' + b"[" * 900),
        "bad_size": safetensors({"a": tensor_of("F32", [1 << 62, 4], 0, 8)}, bytes(8)),
        "bad_outside": safetensors({"a": tensor_of("F32", [2], 0, 8)}),
        "bad_type": safetensors({"a": tensor_of("F8", [2], 0, 2)}, bytes(2)), "bad_rest": safetensors(one, bytes(9)),
        "bad_length": struct.pack("<Q", 1 << 40) + b"{}", "bad_utf8": safetensors(b'{"\xff":{}}'),
        "bad_short": b"\1\0\0", "bad_rank": safetensors({"a": tensor_of("U8", [1] * 20, 0, 1)}, bytes(1)),
        "bad_lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    })


def zip_file(entries, comment=b"", wide=False, streamed=False):
    """entries: (name, contents, method). `wide`: sizes and places in zip64 records."""
    whole, directory = b"", b""
    for name, contents, method in entries:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        stored = packer.compress(contents) + packer.flush() if method == 8 else contents
        crc, flags, at = zlib.crc32(contents), 8 if streamed else 0, len(whole)
        sizes = (0, 0, 0) if streamed else (crc, 0xffffffff, 0xffffffff) if wide else (crc, len(stored), len(contents))
        local_extra = struct.pack("<HHQQ", 1, 16, len(contents), len(stored)) if wide and not streamed else b""
        whole += b"PK\3\4" + struct.pack("<HHHHHIIIHH", 45, flags, method, 0, 33, *sizes, len(name),
            len(local_extra)) + name + local_extra + stored
        if streamed:
            whole += b"PK\7\x08" + struct.pack("<III", crc, len(stored), len(contents))
        extra = struct.pack("<HHQQQ", 1, 24, len(contents), len(stored), at) if wide else b""
        sizes = (crc, 0xffffffff, 0xffffffff) if wide else (crc, len(stored), len(contents))
        directory += b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 45, 45, flags, method, 0, 33, *sizes, len(name),
            len(extra), 0, 0, 0, 0,
                                             0xffffffff if wide else at) + name + extra
    begin, count, end = len(whole), len(entries), b""
    if wide:
        end = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), begin) + \
            b"PK\6\7" + struct.pack("<IQI", 0, begin + len(directory), 1)
        count, size, begin = 0xffff, 0xffffffff, 0xffffffff
    else:
        size = len(directory)
    return whole + directory + end + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, size, begin,
        len(comment)) + comment


def make_zips():
    two = [(b"a/x", b"hello", 0), (b"a/y", bytes(9), 0)]
    plain = zip_file(two)
    central = plain.index(b"PK\1\2")

    def edit(at, new, file=plain):
        return file[:at] + new + file[at + len(new):]
    add("zip", **{
        "stored.zip": plain, "deflated.zip": zip_file([(b"a/x", b"hello" * 9, 8)]),
        "zip64.zip": zip_file(two, wide=True), "comment.zip": zip_file(two, b"PK\5\6 text"),
        "streamed.zip": zip_file(two, streamed=True), "empty.zip": zip_file([]),
        "empty_entry.zip": zip_file([(b"a/", b"", 0)]), "utf8.zip": zip_file([("é\n".encode(), b"1", 0)]),
        "bad_checksum.zip": plain.replace(b"hello", b"hallo"), "bad_encrypted.zip": edit(central + 8, b"\1"),
        "bad_twice.zip": zip_file([two[0], two[0]]), "bad_overlap.zip": edit(plain.rindex(b"PK\1\2") + 42, bytes(4)),
        "bad_outside.zip": edit(plain.rindex(b"PK\1\2") + 42, b"\xf0\xff\xff\xff"), "bad_cut.zip": plain[:-22],
        "bad_local_name.zip": plain.replace(b"a/x", b"a/z", 1), "bad_local_size.zip": edit(22, b"\4"),
        "bad_count.zip": edit(len(plain) - 12, b"\3\0"), "bad_size.zip": edit(central + 20, b"\x04"),
        "bad_two_disks.zip": edit(len(plain) - 14, b"\1\0"), "bad_long_name.zip": zip_file([(b"n" * 1100, b"", 0)]),
        "bad_zip64_place.zip": edit(zip_file(two, wide=True).rindex(b"PK\6\7") + 8, b"\xff" * 8,
            zip_file(two, wide=True)),
    })


# Pickles as torch.save writes them.
def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value):
    if -1 << 31 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values):
    return b"(" + b"".join(map(whole, values)) + b"t"


def storage(key="0", kind="torch\nFloatStorage", numel=6, view=b""):
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + whole(numel) + view + b"tQ"


NO_HOOKS = b"\x89ccollections\nOrderedDict\n)R"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, rebuild="_rebuild_tensor_v2", more=b"", **of_storage):
    return b"ctorch._utils\n" + rebuild.encode() + b"\n(" + storage(**of_storage) + whole(offset) + numbers(shape) + numbers(strides) + \
        NO_HOOKS + more + b"tR"


def state_dict(**entries):
    return b"\x80\2" + ordered(**entries) + b"."


def ordered(**entries):
    return b"ccollections\nOrderedDict\n)R(" + b"".join(text(k) + v for k, v in entries.items()) + b"u"


def pth(pickled, data={"0": bytes(range(24))}, folder=b"a", more=(), method=0, wide=False):
    entries = [(folder + b"/data.pkl", pickled, method)] + [(folder + b"/data/" + k.encode(), v, 0) for k,
        v in data.items()]
    return zip_file(entries + list(more) + [(folder + b"/version", b"3\n", 0)], wide=wide)


def stream(pickled, keys=("0",), numel=6, data=bytes(24)):
    system = b"\x80\2}(" + text("protocol_version") + b"M\xe9\3" + text("little_endian") + b"\x88u."
    return b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\2M\xe9\3." + system + pickled + \
        b"\x80\2](" + b"".join(text(k) for k in keys) + b"e." + b"".join(struct.pack("<q", numel) + data for _ in keys)


def make_torch():
    good = tensor()
    simple = state_dict(**{"a.weight": good, "b": tensor((3,), (1,), 3)})
    memoised = b"\x80\2}q\0(" + text("a") + b"q\1" + good + b"q\2" + text("b") + b"h\2u."
    framed = b"\x80\4\x95" + struct.pack("<Q", len(good) +
        9) + b"}\x94\x8c\1a\x94" + good.replace(b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93") + b"s."
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + good + b"\x88" + NO_HOOKS[1:] + b"tR"
    untyped = tensor(kind="torch.storage\nUntypedStorage", numel=24, rebuild="_rebuild_tensor_v3",
        more=b"ctorch\nfloat32\n")
    add("torch", **{
        "simple.pth": pth(simple), "legacy.pth": stream(state_dict(a=tensor(view=b"N"))),
        "zip64.pth": pth(simple, wide=True), "memo.pth": pth(memoised), "protocol4.pth": pth(framed),
        "parameter.pth": pth(state_dict(a=parameter)), "untyped.pth": pth(state_dict(a=untyped)),
        "wrapped.pth": pth(b"\x80\2}(" + text("epoch") + b"K\5" + text("state_dict") + ordered(a=good) + b"u."),
        "nested.pth": pth(state_dict(a=ordered(b=good, c=ordered(d=good)))),
        "byteorder.pth": pth(simple, more=[(b"a/byteorder", b"little", 0)]),
        "scalar.pth": pth(state_dict(a=tensor((), ()))),
        "views.pth": pth(state_dict(t=tensor((3, 2), (1, 3)), e=tensor((4, 2), (0, 1)), s=tensor((2,), (3,), 1),
            z=tensor((0, 3), (3, 1)))),
        "half.pth": pth(state_dict(a=tensor(kind="torch\nHalfStorage", numel=12),
            b=tensor(kind="torch\nBFloat16Storage", numel=12, key="1")), {"0": bytes(24), "1": bytes(24)}),
        "integers.pth": pth(state_dict(a=tensor((2,), (1,), kind="torch\nLongStorage", numel=3),
            b=tensor((5,), (1,), key="1", kind="torch\nBoolStorage", numel=5)), {"0": bytes(24), "1": bytes(5)}),
        "double.pth": pth(state_dict(a=tensor((3,), (1,), kind="torch\nDoubleStorage", numel=3))),
        "size.pth": pth(b"\x80\2}" + text("a") +
            good.replace(numbers((2, 3)), b"ctorch\nSize\n(" + numbers((2, 3)) + b"tR") + b"s."),
        "legacy_view.pth": stream(state_dict(a=tensor((2,), (1,), view=b"(" + text("v") + whole(2) + whole(3) + b"t"))),
        "strides_of_one.pth": pth(state_dict(a=tensor((2, 1, 2), (3, (1 << 63) - 1, 2)))),
        "others.pth": pth(state_dict(a=good, n=b"N", f=b"G?\xf0\0\0\0\0\0\0", l=b"](K\1K\2e",
            s=b"cbuiltins\nset\n(](K\1etR", d=b"cdatetime\ndatetime\n(C\2\7\xd8tR", big=b"\x8a\x09" + bytes(8) + b"\1",
                t=b"\x88\x85")),
        "bad_system.pth": pth(b"\x80\2cos\nsystem\n(" + text("true") + b"tR."),
        "bad_eval.pth": pth(state_dict(a=good, x=b"cbuiltins\neval\n(" + text("1") + b"tR")),
        "bad_stack_global.pth": pth(b"\x80\4\x8c\2os\x8c\6system\x93."), "bad_deflated.pth": pth(simple, method=8),
        "bad_no_pickle.pth": zip_file([(b"a/b", b"", 0)]),
        "bad_two_pickles.pth": pth(simple, more=[(b"b/data.pkl", simple, 0)]),
        "bad_script.pth": pth(simple, more=[(b"a/constants.pkl", b"", 0)]),
        "bad_order.pth": pth(simple, more=[(b"a/byteorder", b"big", 0)]),
        "bad_memo.pth": pth(b"\x80\2Nr\xff\xff\xff\x7f."), "bad_recall.pth": pth(b"\x80\2j\xff\xff\xff\x7f."),
        "bad_marks.pth": pth(b"\x80\2" + b"(" * 500 + b"."),
        "bad_shape.pth": pth(state_dict(a=tensor(((1 << 31) - 1,) * 4, (0,) * 4))),
        "bad_strides.pth": pth(state_dict(a=tensor(strides=(300, 1)))),
        "bad_negative_stride.pth": pth(state_dict(a=tensor(strides=(-3, 1)))),
        "bad_offset.pth": pth(state_dict(a=tensor(offset=7))),
        "bad_rank.pth": pth(state_dict(a=tensor((1,) * 17, (1,) * 17))),
        "bad_key.pth": pth(state_dict(a=tensor(key="9"))), "bad_numel.pth": pth(state_dict(a=tensor(numel=-1))),
        "bad_self.pth": pth(b"\x80\2}q\0" + text("a") + b"h\0s."), "bad_empty.pth": pth(b"\x80\2}."),
        "bad_bomb.pth": pth(b"\x80\2}q\0" + text("a") + good + b"s0" +
            b"".join(b"}q" + bytes([k]) + b"(" + b"".join(text("k%d" % j) + b"h" + bytes([k - 1]) for j in range(4)) +
                b"u0" for k in range(1, 12)) + b"h\x0b."),
        "bad_length.pth": pth(b"\x80\2X\xff\xff\xff\xff."), "bad_length8.pth": pth(b"\x80\2\x8d" + b"\xff" * 8 + b"."),
        "bad_protocol.pth": pth(b"\x80\x09N."), "bad_text_protocol.pth": pth(b"I42\n."),
        "bad_no_stop.pth": pth(b"\x80\2N"),
        "bad_legacy_size.pth": stream(state_dict(a=tensor(view=b"N")), numel=1 << 60),
        "bad_legacy_cut.pth": stream(state_dict(a=tensor(view=b"N")))[:-30],
        "bad_legacy_system.pth": b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\2cos\nsystem\n.",
    })
