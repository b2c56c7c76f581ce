"""`llama_spm`: a ternary Llama model with the SentencePiece vocabulary, as a folder and as an F16 GGUF file.

The GGUF file holds every ternary matrix dequantised to F16 (values -a, 0, a), rows of q and k permuted. prompt.json
gives a text, its ids (with BOS) and the text of the greedy continuation.
"""

import shutil

import sentencepiece as spm
import torch

from case_llama import build
from case_tokenizers import sentencepiece_vocabulary
from common import out_root, write_json, write_safetensors
from ggufs import write_model
from hf import config_json, expected, packed_tensors, write_checkpoint
from manifest import record
from model64 import Config

CONFIG = Config("llama_spm", hidden=32, ffn=48, layers=2, heads=4, kv_heads=2, vocab=512, tied=True, act="silu",
                sub_norms=False)


def main() -> None:
    root = out_root()
    model = (root / "tokenizer" / "spm.model").read_bytes()
    sp = spm.SentencePieceProcessor(model_proto=model)

    def writes_back(ids: list[int]) -> bool:
        return ids[1:] == [] or (
            min(ids[1:]) > 258 and sp.IdToPiece(ids[1]).startswith("▁") and sp.Encode(sp.Decode(ids[1:])) == ids[1:]
        )

    def quieten(m) -> None:
        m.embed[:259] *= 0.25  # Exact. Bytes and control tokens are not generated, so that the text is whole UTF-8.

    m, ids, scales = build(CONFIG, 8, f16_scales=True, adjust=quieten, first=sp.bos_id(), allowed=writes_back,
                           distinct=5, accept=lambda new: min(new) > 258)
    folder = root / "bitnet" / CONFIG.name
    config = config_json(CONFIG, {"linear_class": "bitlinear"})
    write_checkpoint(folder / "packed", config, packed_tensors(m, scales.get, torch.float32))
    shutil.copy(root / "tokenizer" / "spm.tokenizer.json", folder / "packed" / "tokenizer.json")
    tensors = expected(folder / "packed", "packed", m, ids)
    write_safetensors(folder / "expected.safetensors", tensors)
    new = tensors["greedy_packed"].tolist()
    write_json(
        folder / "prompt.json",
        {"prompt": sp.Decode(ids[1:]), "ids": ids, "new_ids": new, "text_after_prompt": sp.Decode(ids + new)},
    )
    record(
        root,
        "llama_spm.F16.gguf",
        lambda p: write_model(p, m, "llama", "F16", permuted=True, vocabulary=sentencepiece_vocabulary(model)),
    )


if __name__ == "__main__":
    main()
