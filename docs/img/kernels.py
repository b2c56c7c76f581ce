#!/usr/bin/env python3
"""Draws the pictures of docs/kernels.md: python3 docs/img/kernels.py, from the root of the repository."""
from pathlib import Path

HERE = Path(__file__).parent
INK, SOFT, LINE = "#1b2733", "#5b6b7a", "#c3ccd4"
BLUE, GREEN, ORANGE, RED, GREY = "#d6e6f7", "#d9efd9", "#fbe3c5", "#f7d4d4", "#eef1f4"


class Picture:
    def __init__(self, width, height):
        self.size = (width, height)
        self.parts = []

    def box(self, x, y, w, h, fill="#fff", stroke=LINE):
        self.parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="3" fill="{fill}" stroke="{stroke}"/>')

    def text(self, x, y, text, size=14, anchor="start", fill=INK, weight="normal", mono=False):
        family = "DejaVu Sans Mono, monospace" if mono else "DejaVu Sans, Helvetica, sans-serif"
        text = text.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}" font-family="{family}">{text}</text>'
        )

    def cells(self, x, y, values, w=44, h=30, fill="#fff", fills=None):
        for i, value in enumerate(values):
            self.box(x + i * w, y, w, h, fills[i] if fills else fill)
            self.text(x + i * w + w / 2, y + h / 2 + 5, str(value), 14, "middle", mono=True)

    def arrow(self, x1, y1, x2, y2, color=SOFT):
        self.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" stroke-width="1.6" marker-end="url(#tip)"/>'
        )

    def write(self, name, title):
        w, h = self.size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img">\n'
            f"<title>{title}</title>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{SOFT}"/></marker></defs>\n'
            f'<rect width="{w}" height="{h}" fill="#ffffff"/>\n'
        )
        (HERE / name).write_text(head + "\n".join(self.parts) + "\n</svg>\n")


def mad():
    """Two bits per weight, multiplied and added."""
    p = Picture(860, 330)
    p.text(24, 32, "I2_S: multiply and add", 18, weight="bold")
    p.text(24, 56, "A byte holds four weights as codes 0, 1, 2. One instruction multiplies them with four activations.", 13, fill=SOFT)
    p.text(24, 92, "weights w", 13)
    p.cells(150, 74, ["+1", "0", "−1", "+1"], fill=BLUE)
    p.text(350, 92, "stored as w + 1", 13, fill=SOFT)
    p.cells(480, 74, ["2", "1", "0", "2"], fill=BLUE)
    p.text(676, 92, "two bits each", 13, fill=SOFT)
    p.text(24, 140, "activations x", 13)
    p.cells(150, 122, ["10", "−7", "3", "25"], fill=ORANGE)
    p.cells(480, 122, ["10", "−7", "3", "25"], fill=ORANGE)
    p.arrow(568, 156, 568, 184)
    p.text(582, 174, "4 products, 1 instruction", 12, fill=SOFT)
    p.text(24, 208, "wanted", 13)
    p.text(150, 208, "10 + 0 − 3 + 25  =  32", 14, mono=True)
    p.text(480, 208, "20 − 7 + 0 + 50  =  63", 14, mono=True)
    p.text(24, 244, "the codes are", 13)
    p.text(24, 262, "one too large", 13)
    p.text(480, 252, "63 − (10 − 7 + 3 + 25)  =  32", 14, mono=True)
    p.text(24, 300, "The sum of the activations is the same for every row: it is computed once for each token and taken off at the end.", 13, fill=SOFT)
    p.write("mad.svg", "I2_S: codes times activations, less the sum of the activations")


def shared():
    """Tables that tokens share."""
    p = Picture(860, 440)
    p.text(24, 32, "Shared tables: many tokens without dot products", 18, weight="bold")
    p.text(24, 56, "The 81 sums that four trits make of four activations a to d are computed once for 32 tokens, a lane for each.", 13, fill=SOFT)
    for i, token in enumerate(["token 0", "token 1", "…", "token 31"]):
        p.text(296 + 70 * i, 88, token, 12, "middle", fill=SOFT)
    entries = [
        ("entry 0", "−a−b−c−d", ["−9", "40", "…", "3"]),
        ("entry 1", "−b−c−d", ["2", "33", "…", "5"]),
        ("…", "", ["…", "…", "…", "…"]),
        ("entry 80", "a+b+c+d", ["9", "−40", "…", "−3"]),
    ]
    for i, (name, value, lanes) in enumerate(entries):
        y = 98 + 34 * i
        p.text(24, y + 20, name, 13)
        p.text(110, y + 20, value, 14, mono=True)
        p.cells(261, y, lanes, w=70, fill=GREEN if i in (0, 3) else "#fff")
    p.text(570, 118, "each entry is another one", 13, fill=SOFT)
    p.text(570, 136, "plus one activation", 13, fill=SOFT)
    rows = [("row 0", ["−1", "−1", "−1", "−1"], "0"), ("row 1", ["+1", "+1", "+1", "+1"], "80")]
    for i, (name, weights, entry) in enumerate(rows):
        y = 262 + 40 * i
        p.text(24, y + 20, name, 13)
        p.cells(110, y, weights, fill=BLUE)
        p.text(300, y + 20, "one byte", 12, fill=SOFT)
        p.arrow(366, y + 15, 410, y + 15)
        p.text(420, y + 20, f"sums of {name} += entry {entry}", 14, mono=True)
    p.text(24, 372, "i2s, base 3: 32 tokens", 13)
    p.cells(200, 354, ["x0", "x1", "…", "x30", "x31"], w=60, fill=ORANGE)
    p.text(24, 412, "group scales: 16 tokens", 13)
    p.cells(200, 394, ["hi 0", "…", "hi 15", "lo 0", "…", "lo 15"], w=60, fills=[ORANGE] * 3 + [GREY] * 3)
    p.text(572, 414, "two digits of 8 bits, put together", 13, fill=SOFT)
    p.text(572, 430, "at the end of a group", 13, fill=SOFT)
    p.write("shared.svg", "Shared tables: each row adds the entry that its byte names, for all tokens of a tile at once")


def base3():
    """Five trits in a byte."""
    p = Picture(860, 200)
    p.text(24, 32, "base3: five weights in a byte", 18, weight="bold")
    p.text(24, 56, "Five trits have 243 combinations, a byte has 256 values: 1.6 bits for each weight, a fifth less to read.", 13, fill=SOFT)
    p.cells(24, 84, ["+1", "0", "−1", "+1", "0"], fill=BLUE)
    p.arrow(252, 99, 300, 99)
    p.cells(308, 84, ["1 byte"], w=90, fill=GREEN)
    p.arrow(402, 99, 470, 99)
    p.text(406, 80, "2 lookups", 12, fill=SOFT)
    p.cells(478, 84, ["2", "1", "0", "2", "1"], fill=BLUE)
    p.text(708, 104, "codes of I2_S", 13, fill=SOFT)
    p.text(24, 152, "Two lookups in tables of 64 entries turn the byte into the codes that I2_S multiplies; from there on, all is the same.", 13)
    p.text(24, 176, "Fewer bytes, more instructions. It pays where weights come from memory and taking them apart is fast (AVX-512 VBMI).", 13)
    p.write("base3.svg", "base3: a byte of five trits is taken apart into the codes of I2_S")


def tl1():
    """Pairs of weights as an index."""
    p = Picture(860, 420)
    p.text(24, 32, "TL1: look up the sum of a pair", 18, weight="bold")
    p.text(24, 56, "Two trits have nine combinations. Their nine sums are computed once for each token; 2560 rows look theirs up.", 13, fill=SOFT)
    p.text(24, 96, "two activations", 13)
    p.cells(150, 78, ["10", "−7"], fill=ORANGE)
    p.arrow(246, 93, 300, 93)
    p.text(24, 132, "index", 13, fill=SOFT)
    p.text(24, 156, "weights", 13, fill=SOFT)
    pairs = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    show = {-1: "−", 0: "0", 1: "+"}
    for i, (a, b) in enumerate(pairs):
        x = 110 + i * 78
        p.text(x + 39, 132, str(i), 12, "middle", fill=SOFT)
        p.text(x + 39, 156, f"{show[a]} {show[b]}", 14, "middle", mono=True)
        chosen = i in (2, 5, 6)
        p.box(x, 166, 78, 30, GREEN if chosen else "#fff")
        p.text(x + 39, 186, str(10 * a - 7 * b).replace("-", "−"), 14, "middle", mono=True)
    p.text(308, 98, "table", 14, weight="bold")
    p.text(24, 186, "sum", 13, fill=SOFT)
    rows = [("row 0", "−1 +1", 2, "−17"), ("row 1", "0 +1", 5, "−7"), ("row 2", "+1 −1", 6, "17")]
    for i, (name, weights, index, value) in enumerate(rows):
        y = 236 + 44 * i
        p.text(24, y + 20, name, 13)
        p.box(110, y, 110, 30, BLUE)
        p.text(165, y + 20, weights, 14, "middle", mono=True)
        p.text(236, y + 20, "stored as", 12, fill=SOFT)
        p.box(310, y, 50, 30, BLUE)
        p.text(335, y + 20, str(index), 14, "middle", mono=True)
        p.text(376, y + 20, "4 bits for 2 weights", 12, fill=SOFT)
        p.arrow(520, y + 15, 570, y + 15)
        p.text(580, y + 20, f"{value}", 14, mono=True)
    p.text(640, 256, "One shuffle instruction", 13)
    p.text(640, 276, "looks 16, 32 or 64 rows up", 13)
    p.text(640, 296, "at once; nothing is multiplied.", 13)
    p.text(24, 396, "A row's product is the sum of its lookups, one for each pair of columns.", 13, fill=SOFT)
    p.write("tl1.svg", "TL1: the table of a pair of activations, and rows that look their sums up")


def tl2():
    """Triples with a sign."""
    p = Picture(860, 400)
    p.text(24, 32, "TL2: triples, and only half of the table", 18, weight="bold")
    p.text(24, 56, "Three trits have 27 combinations, too many for 16 entries. But opposite weights have opposite sums:", 13, fill=SOFT)
    p.cells(60, 80, ["+1", "−1", "0"], fill=BLUE)
    p.text(206, 100, "·  x  =  17", 14, mono=True)
    p.cells(460, 80, ["−1", "+1", "0"], fill=BLUE)
    p.text(606, 100, "·  x  =  −17", 14, mono=True)
    p.text(24, 148, "So 14 entries and a sign are enough (mirror consolidation): 4 + 1 bits for 3 weights, 1.67 bits each.", 13)
    p.text(24, 184, "number of a triple: 9 w0 + 3 w1 + w2", 13, fill=SOFT)
    for i, v in enumerate(range(-13, 14)):
        x = 24 + i * 30
        p.box(x, 196, 30, 28, GREEN if v >= 0 else GREY)
        p.text(x + 15, 215, str(v).replace("-", "−"), 11, "middle", mono=True)
    p.text(24 + 30 * 6.5, 246, "same entry, sign bit 1", 12, "middle", fill=SOFT)
    p.text(24 + 30 * 20, 246, "stored: entries 0 to 13", 12, "middle", fill=SOFT)
    p.text(24, 286, "In memory: a block of 48 columns by 32 rows", 13)
    for i in range(4):
        p.box(24 + 130 * i, 298, 130, 34, BLUE)
        p.text(89 + 130 * i, 320, "12 columns, 64 B", 12, "middle")
    p.box(544, 298, 130, 34, RED)
    p.text(609, 320, "signs, 64 B", 12, "middle")
    p.text(690, 320, "next block ...", 12, fill=SOFT)
    p.text(24, 364, "Columns that fill no block of 48 are stored in pairs, as TL1: 2560 = 53 · 48 + 16 (block-fitting split).", 13)
    p.write("tl2.svg", "TL2: opposite triples share a table entry and differ in a sign bit")


def digits():
    """Exact entries in bytes."""
    p = Picture(860, 400)
    p.text(24, 32, "Exact sums with lookups of bytes", 18, weight="bold")
    p.text(24, 56, "A shuffle looks bytes up, but an entry of a table lies in −381..381. It is stored as two signed digits, base 31:", 13, fill=SOFT)
    p.text(24, 100, "entry", 13)
    p.cells(100, 82, ["253"], w=70, fill=GREEN)
    p.text(184, 102, "=", 14, mono=True)
    p.cells(204, 82, ["5"], w=60, fill=ORANGE)
    p.text(276, 102, "+ 31 ·", 14, mono=True)
    p.cells(344, 82, ["8"], w=60, fill=BLUE)
    p.text(430, 94, "both at most 15, so that eight of each", 13)
    p.text(430, 112, "are added in a byte: 8 · 15 = 120 ≤ 127", 13)
    y = 140
    for i in range(8):
        p.box(100 + 74 * i, y, 66, 26, ORANGE)
        p.box(100 + 74 * i, y + 34, 66, 26, BLUE)
    p.text(24, y + 18, "low", 13)
    p.text(24, y + 52, "high", 13)
    p.text(396, y + 84, "eight lookups, added in 8 bits", 12, "middle", fill=SOFT)
    p.arrow(396, y + 92, 396, y + 116)
    p.box(250, y + 122, 292, 34, GREEN)
    p.text(396, y + 144, "low + 31 · high, added in 16 bits", 13, "middle")
    p.arrow(396, y + 158, 396, y + 182)
    p.text(396, y + 200, "after at most 64 chunks (512 columns): added to the row's i32", 13, "middle")
    p.text(24, 376, "Rounded tables (tl1_0, tl2_0) keep one byte of an entry, the nearest multiple of 2 or 3: one lookup instead of two, and a bounded error.", 12, fill=SOFT)
    p.write("digits.svg", "An entry as two digits of base 31, added in 8, 16 and 32 bits")


if __name__ == "__main__":
    for draw in (mad, shared, base3, tl1, tl2, digits):
        draw()
