"""How the pre-tokenizers that GGUF files name cut texts: the `tokenizers` package's Split with each pattern in turn.

The patterns are written out again here, as the models' tokenizer.json hold them (llama.cpp's names in front), so that
they check the table of the program and not themselves.
"""

import re

from tokenizers import Regex, pre_tokenizers

from common import out_root, write_json
from strings import STRINGS

EXTRA = [
    "camelCase XMLHttpRequest iPhone ÉCOLE École McDONALD's I'LL we'Ve 'Tis",
    "नमस्ते दुनिया, ภาษาไทย เป็น বাংলা हिन्दी",
    "中文字符和English混排，。！？「引用」２０２５年",
    "ひらがなカタカナ漢字ー長音 한국어 띄어쓰기 ㅋㅋㅋ",
    "1234567 12 1 1234 ١٢٣٤ ²³ Ⅷ 12a345 x1234567y",
    "a/b//c\n/\r\n  //x ...\n\n ,.;:!? $€£ <tag> {x: [1]}",
    "   x\n   \n\t\ty \u00a0z\u3000\u3000w" + " " * 37 + "v" + " " * 20,
    "<sentinel:12> IMGIMGABCDZ IMGIMGZ \t  word",
    "e\u0301te\u0301 n\u0303 👩‍👩‍👧 🇫🇷 Δx≠y ﬁn Straße ﬀ 𐐀𐐨",
    "naïve-café_résumé O’Neill “quoted” – dash… … 。、।۔،",
]

TAIL = r"|\s+(?!\S)|\s+"
BREAKS = r"|\s*[\r\n]+" + TAIL
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+" + TAIL
LLAMA3 = CONTRACTIONS + WORD + r"|\p{N}{1,3}" + SIGNS + BREAKS
QWEN2 = CONTRACTIONS + WORD + r"|\p{N}" + SIGNS + BREAKS
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def cased(suffix: str, digits: str, upper: str = UPPER, lower: str = LOWER, after: str = r"[\r\n/]*") -> str:
    begin = r"[^\r\n\p{L}\p{N}]?"
    words = f"{begin}{upper}*{lower}+{suffix}|{begin}{upper}+{lower}*{suffix}|"
    return words + digits + r"| ?[^\s\p{L}\p{N}]+" + after + BREAKS


GPT4O = cased(CONTRACTIONS + "?", r"\p{N}{1,3}")
KIMI = r"[\p{Han}]+|" + cased(
    CONTRACTIONS + "?",
    r"\p{N}{1,3}",
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
    r"[\r\n]*",
)
# Cased letters as DeepSeek lists them: those of Unicode 11, code points in hexadecimal.
LETTERS = """
41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C 38E-3A1 3A3-3F5
3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15
1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3
1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139
213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787
A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2
118A0-118DF 1E900-1E943
"""
LETTER_CLASS = "[" + re.sub(r"\s", "", re.sub(r"[0-9A-F]+", lambda m: chr(int(m[0], 16)), LETTERS)) + "]"
HAN_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
HAN_HANGUL = "[一-龥\u0800-一가-\ud7ff]+"
DEEPSEEK3_HEAD = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
)
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
JAIS2_SPACES = "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s{1}"

PRES = {
    "llama-bpe": [LLAMA3],
    "gpt-2": [GPT2],
    "qwen2": [QWEN2],
    "qwen35": [
        CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        + BREAKS
    ],
    "smollm": [r"\p{N}", GPT2],
    "gpt-4o": [GPT4O],
    "tekken": [cased("", r"\p{N}")],
    # White space at the end of a piece: `$` also ends a line in the package, which no piece here has inside.
    "deepseek-llm": [
        r"[\r\n]",
        r"\s?" + LETTER_CLASS + "+",
        r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
        r"\s+$",
        HAN_HANGUL,
        r"\p{N}+",
    ],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN_HANGUL, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", HAN_KANA, DEEPSEEK3_HEAD + r"[\r\n]*" + BREAKS],
    "afmoe": [
        # Groups of three numbers from the right.
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
        "[一-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-ゟ゠-ヿ\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff"
        "\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
        DEEPSEEK3_HEAD + r"[\r\n]*" + BREAKS,
    ],
    "spark2_5": [r"\p{N}{1,3}", HAN_KANA, DEEPSEEK3_HEAD + r"|[\r\n]" + TAIL, r"\p{N}"],
    "bloom": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
    "chameleon": [
        r"<sentinel:[0-9]+>",
        r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
        r"([\t\n]|    |  )",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        GPT2,
    ],
    "kimi-k2": [KIMI],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "bailingmoe": [
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]" + TAIL
    ],
    "seed-coder": [CONTRACTIONS + WORD + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + BREAKS],
    "ufakzeka": [WORD[1:] + r"|\p{N}" + SIGNS + BREAKS],
    "exaone-moe": [
        CONTRACTIONS
        + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
        + TAIL
    ],
    "laguna": [r"[^\n]+|[\n]+", QWEN2],
    "jais-2": [CONTRACTIONS + WORD + r"|\p{N}{1,3}" + SIGNS + r"|\s*[\r\n]+" + JAIS2_SPACES],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O],
    "youtu": [
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+",
        cased(CONTRACTIONS + "?", r"\p{N}"),
    ],
    "minicpm5": [r"\p{N}{1,3}", CONTRACTIONS + WORD + r"|\p{N}+" + SIGNS + BREAKS],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
}


def main() -> None:
    texts = STRINGS + EXTRA
    pieces = {}
    for name, patterns in PRES.items():
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        cut = pre_tokenizers.Sequence(splits).pre_tokenize_str
        pieces[name] = [[piece for piece, _ in cut(text)] for text in texts]
    write_json(out_root() / "tokenizer" / "pre_cases.json", {"texts": texts, "pieces": pieces}, indent=None)
