#!/usr/bin/env python3
"""Compares the columns of a cache with what torchvision computes from the same pictures and the same weights.

    python benches/parity_embeddings.py                   encodes 200 originals with resnet18 and densenet121, seeded, and compares
    python benches/parity_embeddings.py CACHE --images FOLDER --encoder resnet18 --weights random:3 [--limit 200] [column ...]

The column's key says what was tapped and how the pictures were prepared; this script prepares them with Pillow and torchvision's
transforms, runs the torchvision module that pipelines/export_onnx.py exports, pools with torch, and prints the cosine of every row.
`--encoder` names the module, and `--weights` is what `icecap export` was given. Exit code 1 if a row is below --least.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy
import torch
import torchvision
from PIL import Image, ImageOps
from safetensors import safe_open
from torch.nn import functional

from common import DATA, PYTHON, ROOT, encode, need, run
from stage_one import recipe

sys.path.insert(0, str(ROOT / "pipelines"))
import export_onnx  # noqa: E402

# What is compared without arguments: pooled, the whole map, a grid that divides it and one that does not.
COLUMNS = {
    "resnet18": [
        ("layer1-4x4", "layer1", "4x4"),
        ("layer3-5x5", "layer3", "5x5"),
        ("layer4", "layer4", "none"),
        ("layer4-mean", "layer4", "global"),
        ("avgpool", "avgpool", "none"),
    ],
    "densenet121": [
        ("denseblock2-7x7", "denseblock2", "7x7"),
        ("features", "features", "none"),
        ("avgpool", "avgpool", "none"),
    ],
}


def columns(cache, names):
    """Manifests of the cache's finished columns, all or those named."""
    found = []
    for manifest in sorted(cache.glob("columns/*/column.json")):
        column = json.loads(manifest.read_text())["column"]
        if not names or column["name"] in names:
            found.append((manifest.parent, json.loads(manifest.read_text())))
    missing = set(names) - {manifest["column"]["name"] for _, manifest in found}
    if missing or not found:
        sys.exit(f"no finished column {', '.join(sorted(missing)) or 'at all'} in {cache}")
    return found


def rows(folder, manifest):
    """Rows of a column in order, as f32; None where a row is missing."""
    for shard in manifest["shards"]:
        with safe_open(folder / shard["file"], "pt") as tensors:
            values, status = tensors.get_tensor(manifest["column"]["tensors"][0]["name"]), tensors.get_tensor("status")
            for value, code in zip(values, status.tolist()):
                yield value.float() if code == 0 else None


def preprocess(key):
    """The torchvision transform that the key describes."""
    resize, crop = key["image.resize"], key.get("image.crop")
    height, width = key["encoder.height"], key["encoder.width"]
    mode = {"bicubic": torchvision.transforms.InterpolationMode.BICUBIC}
    interpolation = mode.get(key.get("image.interpolation"), torchvision.transforms.InterpolationMode.BILINEAR)
    steps = [torchvision.transforms.Resize(resize, interpolation, antialias=True)]
    if crop or not isinstance(resize, list):
        steps.append(torchvision.transforms.CenterCrop([height, width]))
    steps += [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize(key["encoder.mean"], key["encoder.std"])]
    return torchvision.transforms.Compose(steps)


def pooled(tensor, key):
    """A tapped tensor [N, ...] as rows [N, ...]."""
    pool = key["encoder.pool"]
    if tensor.ndim == 4:
        if pool == "global":
            tensor = tensor.mean((2, 3))
        else:
            if pool != "none":
                tensor = functional.adaptive_avg_pool2d(tensor, int(pool.split("x")[0]))
            tensor = tensor.flatten(2).transpose(1, 2)
    return functional.normalize(tensor, dim=-1) if key["encoder.l2"] else tensor


def compare(module, taps, folder, manifest, index, images, limit):
    """Cosines of the column's first present rows with torchvision's."""
    key, cosines, batch = manifest["column"]["key"], [], []
    key = key if isinstance(key, dict) else dict(key)
    transform = preprocess(key)

    def flush():
        if batch:
            with torch.inference_mode():
                outputs = module(torch.stack([picture for picture, _ in batch]))
            expected = pooled(outputs[taps.index(key["encoder.tensor"])], key)
            for (_, row), reference in zip(batch, expected):
                cosines.append(functional.cosine_similarity(row.flatten().double(), reference.flatten().double(), dim=0).item())
            batch.clear()

    for row, record in zip(rows(folder, manifest), index):
        if row is None or len(cosines) + len(batch) >= limit:
            continue
        path = Path(record["source"]) if Path(record["source"]).is_absolute() else images / record["source"]
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        batch.append((transform(picture), row))
        if len(batch) == 16:
            flush()
    flush()
    return numpy.array(cosines)


def check(cache, names, images, encoder, weights, limit, least):
    """Compares columns and prints a line for each; whether all agree."""
    model, _ = export_onnx.build(encoder, weights)
    module = export_onnx.tapped(encoder, model)
    taps = [*export_onnx.ENCODERS[encoder][0], "logits"]
    with open(cache / "rows.jsonl", encoding="utf-8") as lines:
        index = [json.loads(line) for line in lines]
    good = True
    for folder, manifest in columns(cache, names):
        cosines = compare(module, taps, folder, manifest, index, images, limit)
        column = manifest["column"]
        good &= len(cosines) > 0 and cosines.min() >= least
        shape, dtype = column["tensors"][0]["row_shape"], column["tensors"][0]["dtype"]
        print(f"{encoder:12} {column['name']:16} {shape!s:12} {dtype}: {len(cosines)} rows, cosine least {cosines.min():.8f}, mean {cosines.mean():.8f}", flush=True)
    return good


def demonstrate(limit, least):
    """Encodes the originals with two seeded encoders, and checks every column."""
    originals, weights, good = DATA / "flickr8k/originals", "random:3", True
    need(originals)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        for encoder, wanted in COLUMNS.items():
            model, cache = work / f"{encoder}.onnx", work / encoder
            run(PYTHON, ROOT / "pipelines/export_onnx.py", encoder, "--weights", weights, "-o", model)
            encode(recipe(work, originals, model, wanted), work, cache)
            good &= check(cache, [], originals, encoder, weights, limit, least)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("column", nargs="*")
    parser.add_argument("--images", type=Path, default=Path(), help="the folder that sources in rows.jsonl are relative to")
    parser.add_argument("--encoder", default="resnet18", choices=sorted(export_onnx.ENCODERS))
    parser.add_argument("--weights", default="pretrained", help="as given to icecap export")
    parser.add_argument("--limit", type=int, default=200, help="rows a column")
    parser.add_argument("--least", type=float, default=0.9999, help="the cosine that every row has to reach")
    given = parser.parse_args()
    if given.cache is None:
        good = demonstrate(given.limit, given.least)
    else:
        good = check(given.cache, given.column, given.images, given.encoder, given.weights, given.limit, given.least)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
