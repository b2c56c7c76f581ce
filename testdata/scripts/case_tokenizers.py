"""Two small vocabularies trained on corpus.txt: a Llama-style SentencePiece model and a byte-level BPE.

Each is written as a Hugging Face tokenizer.json, as GGUF metadata without tensors, and as cases (text, ids, decoded)
computed by the library that trained it.
"""

import io
import json

import sentencepiece as spm
from gguf import GGUFWriter, TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from common import SCRIPTS, out_root, write_json
from ggufs import finish
from strings import STRINGS

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BPE_SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
BPE_SIZE = 512  # 506 pieces and the special tokens.


def corpus() -> str:
    return (SCRIPTS / "corpus.txt").read_text(encoding="utf-8")


# --- SentencePiece -----------------------------------------------------------------------------------------------


def train_sentencepiece() -> bytes:
    """512 pieces of BPE with byte fallback, no normalisation, split digits: the options of the Llama vocabulary."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus().splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=512,
        character_coverage=0.99,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def sentencepiece_vocabulary(model: bytes):
    """Adds tokenizer.ggml.model = llama with tokens, scores and types, as converters do."""
    sp = spm.SentencePieceProcessor(model_proto=model)

    def kind(i: int) -> TokenType:
        if sp.IsUnknown(i):
            return TokenType.UNKNOWN
        if sp.IsControl(i):
            return TokenType.CONTROL
        return TokenType.BYTE if sp.IsByte(i) else TokenType.NORMAL

    def add(writer: GGUFWriter) -> None:
        size = sp.GetPieceSize()
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([sp.IdToPiece(i).encode() for i in range(size)])
        writer.add_token_scores([sp.GetScore(i) for i in range(size)])
        writer.add_token_types([kind(i) for i in range(size)])
        writer.add_bos_token_id(sp.bos_id())
        writer.add_eos_token_id(sp.eos_id())
        writer.add_unk_token_id(sp.unk_id())
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(True)

    return add


def sentencepiece_tokenizer_json(path) -> str:
    """tokenizer.json in the form of the Llama 2 repositories; vocabulary and merges by transformers' extractor.

    The normaliser puts one "▁" in front of everything. The newer form (Metaspace) does not where the text begins with
    a space already, but SentencePiece does.
    """
    parts = SentencePieceExtractor(str(path)).extract(models.BPE)
    tokenizer = Tokenizer(
        models.BPE(parts["vocab"], parts["merges"], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer.to_str(pretty=False)


# --- byte-level BPE ----------------------------------------------------------------------------------------------


def train_bpe() -> Tokenizer:
    """Byte-level BPE with the Llama 3 split and its special tokens after the pieces."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_SIZE - len(BPE_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([corpus()], trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in BPE_SPECIAL])
    assert tokenizer.get_vocab_size() == BPE_SIZE
    return tokenizer


def bpe_vocabulary(tokenizer: Tokenizer, pre: str | None, eos: str = "<|eot_id|>", template: str | None = None):
    """Adds tokenizer.ggml.model = gpt2 with tokens, types and merges; `pre` None leaves tokenizer.ggml.pre out."""
    model = json.loads(tokenizer.to_str())["model"]
    special = set(BPE_SPECIAL)

    def add(writer: GGUFWriter) -> None:
        tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        writer.add_tokenizer_model("gpt2")
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([TokenType.CONTROL if t in special else TokenType.NORMAL for t in tokens])
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_bos_token_id(tokenizer.token_to_id("<|begin_of_text|>"))
        writer.add_eos_token_id(tokenizer.token_to_id(eos))
        if template is not None:
            writer.add_chat_template(template)

    return add


# --- files -------------------------------------------------------------------------------------------------------


def write_vocabulary(path, arch: str, vocabulary) -> None:
    """A GGUF file with metadata only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, arch)
    writer.add_name("vocabulary " + path.stem)
    vocabulary(writer)
    finish(writer)


def main() -> None:
    root = out_root() / "tokenizer"

    model = train_sentencepiece()
    root.mkdir(parents=True, exist_ok=True)
    (root / "spm.model").write_bytes(model)
    sp = spm.SentencePieceProcessor(model_proto=model)
    cases = []
    for text in STRINGS:
        ids = sp.EncodeAsIds(text)
        cases.append({"text": text, "ids": ids, "decoded": sp.DecodeIds(ids)})
    (root / "spm.tokenizer.json").write_text(sentencepiece_tokenizer_json(root / "spm.model"), encoding="utf-8")
    hf = Tokenizer.from_file(str(root / "spm.tokenizer.json"))
    for case in cases:
        case["hf_equal"] = hf.encode(case["text"], add_special_tokens=False).ids == case["ids"]
    write_json(root / "spm_cases.json", {"bos": 1, "eos": 2, "unk": 0, "vocab_size": 512, "cases": cases}, indent=None)
    write_vocabulary(root / "spm.gguf", "llama", sentencepiece_vocabulary(model))
    different = [c["text"] for c in cases if not c["hf_equal"]]
    print(f"  spm: {len(cases)} cases, tokenizer.json differs on {different}")

    bpe = train_bpe()
    (root / "bpe.tokenizer.json").write_text(bpe.to_str(pretty=False), encoding="utf-8")
    cases = []
    for text in STRINGS + [f"{BPE_SPECIAL[0]}User: hi{BPE_SPECIAL[5]}Assistant: "]:
        ids = bpe.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": bpe.decode(ids, skip_special_tokens=False)})
    special = {t: bpe.token_to_id(t) for t in BPE_SPECIAL}
    # The cases must be able to tell the Llama 3 split from that of GPT-2.
    other = Tokenizer.from_str(bpe.to_str())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    differing = sum(other.encode(c["text"], add_special_tokens=False).ids != c["ids"] for c in cases)
    assert differing >= 5, differing
    write_json(root / "bpe_cases.json", {"special": special, "vocab_size": BPE_SIZE, "cases": cases}, indent=None)
    write_vocabulary(root / "bpe.gguf", "llama", bpe_vocabulary(bpe, "llama-bpe"))
    write_vocabulary(root / "bpe-nopre.gguf", "llama", bpe_vocabulary(bpe, None))
    print(f"  bpe: {len(cases)} cases, {sum(c['decoded'] != c['text'] for c in cases)} do not decode to their text, "
          f"{differing} differ under the split of GPT-2")


if __name__ == "__main__":
    main()
