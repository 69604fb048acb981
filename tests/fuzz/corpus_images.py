"""Pictures of the corpus that make_corpus.py makes: PNG and JPEG in all their forms."""
import struct
import zlib

from corpus_files import add

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour types
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_rows(width, height, bits, colour, interlaced):
    rows = b""
    for left, top, step_x, step_y in PASSES if interlaced else [(0, 0, 1, 1)]:
        w, h = (width - left + step_x - 1) // step_x, (height - top + step_y - 1) // step_y
        if w <= 0 or h <= 0:
            continue
        size = (w * bits * CHANNELS[colour] + 7) // 8
        for y in range(h):
            data = bytes((37 * (x + left) +
                11 * (y + top)) & (0x55 if bits < 8 and colour == 3 else 255) for x in range(size))
            rows += bytes([y % 5]) + data
    return rows


def png(width=5, height=6, bits=8, colour=2, interlaced=False, before=b"", level=9, parts=1, raw=None, colours=True):
    packer = zlib.compressobj(level, zlib.DEFLATED, 9)  # a small window keeps the files short
    rows = png_rows(width, height, bits, colour, interlaced) if raw is None else raw
    data = packer.compress(rows) + packer.flush()
    palette = chunk(b"PLTE", bytes(range(3 << min(bits, 6)))) if colour == 3 and colours else b""
    step = -(-len(data) // parts)
    pixels = b"".join(chunk(b"IDAT", data[at:at + step]) for at in range(0, len(data), step))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + before + pixels + chunk(b"IEND", b"")


def exif(orientation, little=True):
    order = "<" if little else ">"
    return (b"II" if little else b"MM") + struct.pack(order + "HIHHHII", 42, 8, 2, 0x10f, 2, 1, 65) + \
        struct.pack(order + "HHIHHI", 0x112, 3, 1, orientation, 0, 0)


def make_pngs():
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for bits in depths:
            level = 0 if bits in (1, 16) else 9  # stored rows can be damaged without damage to the compression
            add("image", **{f"png_colour{colour}_{bits}bit.png": png(bits=bits, colour=colour, level=level)})
            add("image", **{f"png_interlaced_colour{colour}_{bits}bit.png": png(9, 10, bits, colour, True,
                level=9 - level)})
    for orientation in range(1, 9):
        add("image", **{f"png_exif{orientation}.png": png(3, 2,
            before=chunk(b"eXIf", exif(orientation, orientation % 2 == 0)))})
    says = chunk(b"tEXt", b"depthstill\0inverse depth up to scale and shift, unit 0.5")
    add("image", **{
        "png_says_what_it_holds.png": png(4, 4, 16, 0, before=says),
        "png_grey16_exif.png": png(4, 3, 16, 0, before=chunk(b"eXIf", exif(6))), "png_parts.png": png(parts=7),
        "png_ancillary.png": png(before=chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"pHYs", bytes(9)) +
            chunk(b"tRNS", bytes(6))),
        "png_transparent_palette.png": png(bits=4, colour=3, before=chunk(b"tRNS", b"\0\x80")),
        "png_transparent_grey.png": png(bits=2, colour=0, before=chunk(b"tRNS", b"\0\1")),
        "png_unknown_chunk.png": png(before=chunk(b"abCd", b"12345")), "png_one_pixel.png": png(1, 1),
        "png_tall.png": png(1, 300, 8, 0), "bad_png_cut.png": png()[:-20], "bad_png_checksum.png": png()[:-1] + b"\0",
        "bad_png_no_palette.png": png(bits=8, colour=3, colours=False),
        "bad_png_few_rows.png": png(5, 6, raw=bytes(40)),
        "bad_png_few_rows_interlaced.png": png(5, 6, interlaced=True, raw=bytes(40)),
        "bad_png_two_palettes.png": png(5, 6, before=2 * chunk(b"PLTE", bytes(6))),
        "bad_png_chunk_name.png": png(5, 6, before=chunk(b"M\nAB", b"")),
        "bad_png_filter.png": png(5, 6, raw=(b"\x05" + bytes(15)) * 6),
        "bad_png_huge.png": png(16384, 16384, 8, 0, raw=bytes(100000)),
        "bad_png_statement.png": png(4, 4, 16, 0, before=chunk(b"tEXt", b"depthstill\0depth in miles, unit 1")),
        "bad_png_depth_unit.png": png(4, 4, 16, 0, before=chunk(b"tEXt", b"depthstill\0depth in metres, unit -1")),
        "bad_gif.gif": b"GIF89a" + bytes(20), "bad_nothing": b"",
        "bad_web_page.png": b"<!DOCTYPE html><html>not found</html>",
    })


class Bits:
    """The entropy-coded bytes of a JPEG scan."""

    def __init__(self):
        self.out, self.pending, self.count = bytearray(), 0, 0

    def put(self, value, bits):
        self.pending, self.count = self.pending << bits | (value & (1 << bits) - 1), self.count + bits
        while self.count >= 8:
            byte = self.pending >> (self.count - 8) & 255
            self.out += bytes([byte, 0]) if byte == 255 else bytes([byte])
            self.count -= 8

    def marker(self, code):
        if self.count:
            self.put(0xff, 8 - self.count)
        self.pending = self.count = 0
        self.out += bytes([0xff, code])


def segment(code, data):
    return bytes([0xff, code]) + struct.pack(">H", len(data) + 2) + data


# The tables: all codes of a table have one length.
DC, DC_BITS = list(range(8)), 4
AC, AC_BITS = [0x00, 0x10, 0x20, 0xf0] + [zeros << 4 | size for zeros in range(7) for size in (1, 2, 3)], 5


def huffman(kind, symbols, length):
    counts = [len(symbols) if bits == length else 0 for bits in range(1, 17)]
    return segment(0xc4, bytes([kind << 4] + counts + symbols))


def put_value(bits, value):
    size = abs(value).bit_length()
    bits.put(value if value >= 0 else value + (1 << size) - 1, size)


class Jpeg:
    """A JPEG of made-up coefficients, each block {index in zigzag order: value}."""

    def __init__(self, width, height, sampling, restart=0):
        self.size, self.sampling, self.restart = (width, height), sampling, restart
        self.h, self.v = max(h for h, _ in sampling), max(v for _, v in sampling)
        self.units = (-(-width // (8 * self.h)), -(-height // (8 * self.v)))
        self.blocks = []  # of each component, by row and column of the padded grid
        for c, (h, v) in enumerate(sampling):
            grid = [[self.block(c, x, y) for x in range(self.units[0] * h)] for y in range(self.units[1] * v)]
            self.blocks.append(grid)

    @staticmethod
    def block(c, x, y):
        coefficients = {0: (29 * x + 17 * y + 40 * c) % 61 - 30}
        for k in ((1, 2, 4) if (x + y) % 2 else (1,)):
            coefficients[k] = (13 * x + 7 * y + 5 * k + c) % 7 - 3
        return {k: value for k, value in coefficients.items() if value or k == 0}

    def own(self, c):
        """Blocks of a component that lie in the picture, as scans of one component hold them."""
        (h, v), (width, height) = self.sampling[c], self.size
        for y in range(-(-height * v // (8 * self.v))):
            for x in range(-(-width * h // (8 * self.h))):
                yield self.blocks[c][y][x]

    def scan(self, parts, first, last, high, low, code):
        """`code(bits, component, block, state)` writes a block; state is fresh after each restart."""
        bits, state, done = Bits(), {}, 0

        def unit(blocks):
            nonlocal state, done
            if self.restart and done and done % self.restart == 0:
                bits.marker(0xd0 + (done // self.restart - 1) % 8)
                state = {}
            done += 1
            for c, block in blocks:
                code(bits, c, block, state)
        if len(parts) == 1:
            for block in self.own(parts[0]):
                unit([(parts[0], block)])
        else:
            for y in range(self.units[1]):
                for x in range(self.units[0]):
                    unit([(c, self.blocks[c][y * self.sampling[c][1] + j][x * self.sampling[c][0] + i]) for c in parts
                          for j in range(self.sampling[c][1]) for i in range(self.sampling[c][0])])
        if bits.count:
            bits.put(0xff, 8 - bits.count)
        header = bytes([len(parts)]) + b"".join(bytes([c + 1, 0]) for c in parts) + bytes([first, last,
            high << 4 | low])
        return segment(0xda, header) + bytes(bits.out)

    @staticmethod
    def mean(shift):
        def code(bits, c, block, state):
            value = block[0] >> shift
            difference = value - state.get(c, 0)
            state[c] = value
            bits.put(DC.index(abs(difference).bit_length()), DC_BITS)
            put_value(bits, difference)
        return code

    @staticmethod
    def details(shift):
        def code(bits, _, block, state):
            zeros = 0
            for k in range(1, max(block) + 1):
                value = int(block.get(k, 0) / (1 << shift))
                if value == 0:
                    zeros += 1
                    continue
                bits.put(AC.index(zeros << 4 | abs(value).bit_length()), AC_BITS)
                put_value(bits, value)
                zeros = 0
            bits.put(AC.index(0), AC_BITS)
        return code

    @staticmethod
    def refine(bits, _, block, state):
        zeros, corrections = 0, []
        for k in range(1, max(block) + 1):
            value = block.get(k, 0)
            if abs(value) > 1:
                corrections.append(abs(value) & 1)
            elif value == 0:
                zeros += 1
            else:
                bits.put(AC.index(zeros << 4 | 1), AC_BITS)
                bits.put(value > 0, 1)
                for bit in corrections:
                    bits.put(bit, 1)
                zeros, corrections = 0, []
        bits.put(AC.index(0), AC_BITS)
        for bit in corrections:
            bits.put(bit, 1)

    def file(self, progressive=False, before=b"", apart=False):
        count = len(self.sampling)
        everything = list(range(count))
        tables = segment(0xdb, bytes([0]) + bytes([3] * 64)) + huffman(0, DC, DC_BITS) + huffman(1, AC, AC_BITS)
        frame = struct.pack(">BHHB", 8, self.size[1], self.size[0], count) + \
            b"".join(bytes([c + 1, h << 4 | v, 0]) for c, (h, v) in enumerate(self.sampling))
        if self.restart:
            tables += segment(0xdd, struct.pack(">H", self.restart))
        if progressive:
            scans = [self.scan(everything, 0, 0, 0, 1, self.mean(1))]
            scans += [self.scan([c], 1, 63, 0, 1, self.details(1)) for c in everything]
            scans += [self.scan(everything, 0, 0, 1, 0, lambda bits, c, block, state: bits.put(block[0] & 1, 1))]
            scans += [self.scan([c], 1, 63, 1, 0, self.refine) for c in everything]
        else:
            mean, details = self.mean(0), self.details(0)

            def whole(bits, c, block, state):
                mean(bits, c, block, state)
                details(bits, c, block, state)
            scans = [self.scan(parts, 0, 63, 0, 0,
                whole) for parts in ([[c] for c in everything] if apart else [everything])]
        return b"\xff\xd8" + before + tables + segment(0xc2 if progressive else 0xc0,
            frame) + b"".join(scans) + b"\xff\xd9"


def make_jpegs():
    grey, full, half, wide = [(1, 1)], [(1, 1)] * 3, [(2, 2), (1, 1), (1, 1)], [(2, 1), (1, 1), (1, 1)]
    adobe = segment(0xee, b"Adobe\0\x64\0\0\0\0\2")
    base = Jpeg(11, 9, full).file()
    add("image", **{
        "jpeg_grey.jpg": Jpeg(17, 9, grey).file(), "jpeg_444.jpg": base, "jpeg_420.jpg": Jpeg(19, 13, half).file(),
        "jpeg_422.jpg": Jpeg(19, 7, wide).file(), "jpeg_440.jpg": Jpeg(9, 17, [(1, 2), (1, 1), (1, 1)]).file(),
        "jpeg_411.jpg": Jpeg(33, 5, [(4, 1), (1, 1), (1, 1)]).file(),
        "jpeg_inks.jpg": Jpeg(9, 8, [(1, 1)] * 4).file(before=adobe),
        "jpeg_apart.jpg": Jpeg(19, 13, half).file(apart=True), "jpeg_restarts.jpg": Jpeg(40, 24, grey, 2).file(),
        "jpeg_restarts_420.jpg": Jpeg(40, 24, half, 1).file(),
        "jpeg_progressive_grey.jpg": Jpeg(17, 9, grey).file(True),
        "jpeg_progressive.jpg": Jpeg(19, 13, half).file(True),
        "jpeg_progressive_restarts.jpg": Jpeg(24, 17, full, 2).file(True),
        "jpeg_one_pixel.jpg": Jpeg(1, 1, full).file(),
        "jpeg_comment.jpg": Jpeg(8, 8, grey).file(before=segment(0xe0, b"JFIF\0\1\1\0\0\1\0\1\0\0") +
            segment(0xfe, b"text") + b"\xff\xff"),
        "bad_jpeg_cut.jpg": base[:-30], "bad_jpeg_no_tables.jpg": base.replace(b"\xff\xc4", b"\xff\xfe"),
        "bad_jpeg_huge.jpg": base.replace(struct.pack(">HH", 9, 11), struct.pack(">HH", 16384, 16384)),
        "bad_jpeg_arithmetic.jpg": base.replace(b"\xff\xc0", b"\xff\xc9"),
        "bad_jpeg_quantisation_0.jpg": base.replace(bytes([3] * 64), bytes(64)),
        "bad_jpeg_short_scan.jpg": Jpeg(40, 40, grey).file()[:-12] + b"\xff\xd9",
    })
    for orientation in (1, 2, 5, 6, 8):
        block = segment(0xe1, b"Exif\0\0" + exif(orientation, orientation % 2 == 1))
        add("image", **{f"jpeg_exif{orientation}.jpg": Jpeg(9, 3, grey).file(before=block)})
