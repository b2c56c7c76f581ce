"""`defects_2b4t.I2_S.gguf`: a tiny model whose metadata have the defects of the official BitNet b1.58 2B4T file.

No tokenizer.ggml.pre, the wrong chat template, and only `<|end_of_text|>` named as the end although turns end with
`<|eot_id|>`. chat.json says what a repaired reading gives: the prompt text and its ids by the HF tokenizer, and the
greedy continuation, which reaches `<|eot_id|>` (each step's gap is above 0.3 of the logits' deviation).
"""

import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from case_tokenizers import BPE_SIZE, bpe_vocabulary, train_bpe
from chat_templates import BITNET_2B4T, BITNET_WRONG
from common import bf16, out_root, write_json, write_safetensors
from ggufs import write_model
from hf import config_json, expected, full_logits, greedy, load, packed_tensors, write_checkpoint
from manifest import record
from model64 import Config, Model, Stepper, absmean, find_ids, random_master
from transformers import PreTrainedTokenizerFast

CONFIG = Config("defects_2b4t", hidden=128, ffn=128, layers=1, heads=4, kv_heads=2, vocab=BPE_SIZE, tied=True,
                act="relu2", sub_norms=True)
MESSAGES = [
    {"role": "system", "content": "the mill is old. "},
    {"role": "user", "content": " is the bridge closed? "},
]
GAP = 0.3


def until(stop: int, new: list[int], gaps: list[float]) -> int | None:
    """The number of steps up to and with the first `stop`, if all of them are clear."""
    if stop not in new:
        return None
    n = new.index(stop) + 1
    return n if 4 <= n <= 12 and min(gaps[:n]) > GAP and len(set(new[:n])) >= 4 else None


def write_packed(folder: Path, m: Model) -> None:
    config = config_json(CONFIG, {"linear_class": "autobitlinear", "quantization_mode": "offline"})
    write_checkpoint(folder, config, packed_tensors(m, m.alpha.get))


def run_chat(m: Model, prompt: list[int], steps: int, eot: int) -> list[int] | None:
    """transformers' greedy continuation, if it ends in `eot` at the last step and all its steps are clear as well."""
    with tempfile.TemporaryDirectory() as temp:
        write_packed(Path(temp), m)
        model = load(Path(temp))
        new, gaps = greedy(model, prompt, steps)
        new = new.tolist()
        deviations = [float(full_logits(model, prompt + new[:i])[-1].std()) for i in range(steps)]
    return new if new[-1] == eot and eot not in new[:-1] and min(gaps / np.array(deviations)) > GAP else None


def main() -> None:
    root = out_root()
    tokenizer = train_bpe()
    eot = tokenizer.token_to_id("<|eot_id|>")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )
    render = lambda template: fast.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    text = render(BITNET_2B4T)
    prompt = fast.encode(text, add_special_tokens=False)
    separate = [tokenizer.token_to_id("<|begin_of_text|>")]
    for message in MESSAGES:
        separate += fast.encode(message["role"].capitalize() + ": ", add_special_tokens=False)
        separate += fast.encode(message["content"].strip(), add_special_tokens=False) + [eot]
    separate += fast.encode("Assistant: ", add_special_tokens=False)

    for seed in range(4000):
        m, master = random_master(CONFIG, seed)
        m.embed[eot] *= 2  # Exact; makes the end of a turn likely enough to be found.
        m.embed[94:256] *= 0.25  # Single bytes outside ASCII, so that the reply is whole UTF-8.
        try:
            for name, w in master.items():
                m.t[name], alpha = absmean(w)
                m.alpha[name] = float(bf16(np.array([alpha]))[0])
        except ValueError:
            continue
        new, gaps = Stepper(m).greedy(prompt, 12)
        steps = until(eot, new, gaps)
        if steps is None or "\ufffd" in tokenizer.decode(new):
            continue
        ids = find_ids(m, 4, steps=8, distinct=3)
        if ids is not None and (new := run_chat(m, prompt, steps, eot)) is not None:
            break
    else:
        raise RuntimeError("no seed found")

    with tempfile.TemporaryDirectory() as temp:
        write_packed(Path(temp), m)
        tensors = expected(Path(temp), "packed", m, ids, with_trace=False, tag=CONFIG.name)
    write_safetensors(root / "bitnet" / CONFIG.name / "expected.safetensors", tensors)
    write_json(
        root / "bitnet" / CONFIG.name / "chat.json",
        {
            "messages": MESSAGES,
            "prompt": text,
            "prompt_ids": prompt,
            "prompt_ids_parts_encoded_separately": separate,
            "new_ids": new,
            "stop_ids": [tokenizer.token_to_id("<|end_of_text|>"), eot],
            "text": tokenizer.decode(new[:-1]),
            "prompt_by_the_wrong_template": render(BITNET_WRONG),
        },
    )

    vocabulary = bpe_vocabulary(tokenizer, None, eos="<|end_of_text|>", template=BITNET_WRONG)

    def defective(writer: GGUFWriter) -> None:
        vocabulary(writer)
        writer.add_token_scores([0.0] * BPE_SIZE)
        writer.add_add_bos_token(True)
        writer.add_pad_token_id(tokenizer.token_to_id("<|end_of_text|>"))

    record(
        root,
        "defects_2b4t.I2_S.gguf",
        lambda p: write_model(p, m, "bitnet-b1.58", "I2_S", vocabulary=defective, title="bitnet2b"),
    )


if __name__ == "__main__":
    main()
