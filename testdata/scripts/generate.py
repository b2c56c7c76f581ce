"""Makes every file under testdata: `python generate.py`, or `python generate.py case_chat ...` for some of them."""

import importlib
import shutil
import sys

from common import out_root

CASES = [
    "case_sharded",
    "case_tokenizers",
    "case_pre",
    "case_llama",
    "case_llama_spm",
    "case_bitnet",
    "case_embeddings",
    "case_defects",
    "case_refusals",
    "case_chat",
    "case_rope",
    "case_muon",
    "case_jinja",
    "case_families",
    "case_hunyuan",
    "case_extractor",
]
FOLDERS = ["bitnet", "chat", "extractor", "extractor_recurrent", "families", "gguf", "refusals", "tokenizer", "units"]


def main(names: list[str]) -> None:
    if not names:  # Everything: nothing old may stay behind.
        for folder in FOLDERS:
            shutil.rmtree(out_root() / folder, ignore_errors=True)
    for name in names or CASES:
        print(name, flush=True)
        importlib.import_module(name).main()
    importlib.import_module("verify_gguf").main()


if __name__ == "__main__":
    main(sys.argv[1:])
