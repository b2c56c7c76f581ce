#!/usr/bin/env python3
"""Makes a checkpoint for `bitnet train --from` out of a finished ternary model, so that training goes on from what it has learned.

    bitnet convert tiny.gguf folder --to hf-unpacked
    bitnet train --out shape ... --steps 1           a run of one step with the shape and options that are wanted
    python3 tools/stories/warm_start.py shape/checkpoint.safetensors folder/model.safetensors warm
    bitnet train --out next --from warm --data ... --steps 1000

A finished model has no master weights. A matrix gets its values `scale * trit`, enlarged so that their mean absolute value is
`scale` again: then it is quantised to the trits that it had. Moments begin at zero. What the model does not have keeps the value that
it has in the run of one step, except decays (`learnable_decay`), which begin with the times of `--times`, in mini-batches.
"""

import argparse
import json
import math
import struct
from pathlib import Path

import numpy as np

KEY = "bitnet-train"


def load(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    about = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        a, b = t["data_offsets"]
        raw = data[8 + n + a : 8 + n + b]
        if t["dtype"] == "F32":
            values = np.frombuffer(raw, "<f4")
        elif t["dtype"] == "F16":
            values = np.frombuffer(raw, "<f2").astype("<f4")
        elif t["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            raise SystemExit(f"{path}: {name} is {t['dtype']}, not a float; convert the model with --to hf-unpacked")
        tensors[name] = values.reshape(t["shape"])
    return about, tensors


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("shape", type=Path, help="checkpoint of a run of one step")
    cli.add_argument("model", type=Path, help="model.safetensors of the finished model")
    cli.add_argument("out", type=Path, help="folder of the new checkpoint")
    cli.add_argument("--times", default="32,64,128,256", help="mini-batches after which heads have forgotten")
    args = cli.parse_args()

    about, want = load(args.shape)
    _, have = load(args.model)
    run = json.loads(about[KEY])
    # The first form of checkpoints, without a checksum.
    run["format"] = 1
    del run["sha256"]
    run["progress"].update(step=0, stage=0, position=0, best=None, since_best=0)
    out, kept = {}, []
    for name, values in want.items():
        if name.startswith(("adam.", "muon.", "ema.")):
            out[name] = np.zeros_like(values)
        elif name.endswith("learnable_decay") and name not in have:
            times = [float(t) for t in args.times.split(",")]
            heads = values.shape[0]
            logits = [math.log(max(times[h % len(times)], 1.001) - 1) for h in range(heads)]
            out[name] = np.array(logits, "<f4").reshape(values.shape)
        elif name in have:
            w = have[name].astype("<f4")
            if w.shape != values.shape:
                raise SystemExit(f"{name} is {w.shape}, not {values.shape}")
            if "muon.m." + name in want:
                w = w * np.float32(w.size / max(np.count_nonzero(w), 1))
            out[name] = w
        else:
            out[name] = values
            kept.append(name)
    header, at = {"__metadata__": {KEY: json.dumps(run)}}, 0
    for name in sorted(out):
        header[name] = {"dtype": "F32", "shape": list(out[name].shape), "data_offsets": [at, at + out[name].nbytes]}
        at += out[name].nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    args.out.mkdir(parents=True, exist_ok=True)
    body = b"".join(np.ascontiguousarray(out[name], "<f4").tobytes() for name in sorted(out))
    (args.out / "checkpoint.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)
    print(f"{args.out}: {len(out)} tensors; as in the run of one step: {', '.join(kept) or 'none'}")


if __name__ == "__main__":
    main()
