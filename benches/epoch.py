"""An epoch on cached columns against an epoch that runs the encoder: resnet18 on the CPU, an LSTM and a small GPT-2 on Flickr8k.

    .venv/bin/python benches/epoch.py [--images 1000]

The encoder's time is icecap's own (`icecap encode`, f32, seeded random weights: the fastest encoder measured here, so the speed-up is the
least that caching gives), the decoder's that of one epoch of `icecap train` on the columns. An epoch that runs the encoder is their sum: the
pictures are encoded before, or between, the same steps.
"""

import argparse
import json
import tempfile
from pathlib import Path

from common import DATA, ICECAP, need, run, table
from stage_one import export

RECIPE = """
[dataset]
format = "flickr8k"
images = "{data}/flickr8k/images"
captions = "{data}/flickr8k/Flickr8k.token.txt"
train = "{data}/flickr8k/Flickr_8k.trainImages.txt"
val = "{data}/flickr8k/Flickr_8k.devImages.txt"

[encoder]
model = "{model}"

[[column]]
name = "avgpool"
tap = "avgpool"

[[column]]
name = "grid"
tap = "layer4"

{decoder}

[train]
epochs = 1
validate_every = 100
tensorboard = false
"""
DECODERS = {
    "lstm, one vector": '[decoder]\nkind = "lstm"\ncolumns = ["avgpool"]',
    "attention-lstm, 7x7": '[decoder]\nkind = "attention-lstm"\ncolumns = ["grid"]',
    "gpt2 (4 x 384), 7x7": '[decoder]\nkind = "gpt2"\ncolumns = ["grid"]\nwidth = 384\nlayers = 4\nheads = 6\npositions = 128',
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    need(DATA / "flickr8k/images", ICECAP)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _, model = export(work, "resnet18")
        rows, encoded = [("decoder", "encoder, s an epoch", "decoder, s an epoch", "cached is")], None
        for at, (name, decoder) in enumerate(DECODERS.items()):
            path = work / f"{at}.toml"
            path.write_text(RECIPE.format(data=DATA.resolve(), model=model, decoder=decoder))
            if encoded is None:
                text, _, _ = run(ICECAP, "encode", path, "--data", work, "--cache", work / "cache", "--sample", given.images, "--json")
                splits = [json.loads(line)["split"] for line in open(work / "cache/rows.jsonl", encoding="utf-8")]
                encoded = json.loads(text)["seconds"] * splits.count("train") / len(splits)
            run(ICECAP, "train", path, "--data", work, "--cache", work / "cache", "--run", work / f"run{at}")
            lines = [json.loads(line) for line in open(work / f"run{at}/metrics.jsonl", encoding="utf-8")]
            trained = max(line["seconds"] for line in lines if "seconds" in line)
            rows.append((name, f"{encoded:.1f}", f"{trained:.1f}", f"{(encoded + trained) / trained:.2f} x"))
        table(*rows)


if __name__ == "__main__":
    main()
