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

# What is compared without arguments: pooled, the whole map, a grid that divides it and one that does not; views; several layers.
COLUMNS = {
    "resnet18": [
        ("layer1-4x4", "layer1", "4x4"),
        ("layer3-5x5", "layer3", "5x5"),
        ("layer4", "layer4", "none"),
        ("layer4-mean", "layer4", "global"),
        ("avgpool", "avgpool", "none"),
        ("five", "avgpool", "none", 'views = ["hflip", "five-crop"]'),
        ("tiles", "layer4", "global", 'tiles = "2x2+1"\ndtype = "i8"'),
        ("joined", ["layer3", "layer4"], "7x7", 'views = ["center", "hflip"]\nl2 = true'),
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
            scales = tensors.get_tensor("scale") if values.dtype == torch.int8 else torch.ones(len(values))
            for value, scale, code in zip(values, scales, status.tolist()):
                yield value.float() * scale if code == 0 else None


def views(key):
    """The torchvision transforms of a column's views, one a vector (or a grid of them)."""
    return [view(key, name) for name in key.get("image.views", ["center"])]


def view(key, name):
    """What `icecap` calls `name`: center, hflip, a corner, whole, or tile:ROW,COLUMN/ROWSxCOLUMNS."""
    size = [key["encoder.height"], key["encoder.width"]]
    resize, finish = preprocess(key)
    crop, mode = torchvision.transforms.functional.crop, resize.interpolation
    plain = key.get("image.crop") or not isinstance(key["image.resize"], list)
    center = torchvision.transforms.CenterCrop(size) if plain else lambda picture: picture

    def tile(picture, row, column, rows, columns):
        (wide, tall), edge = picture.size, lambda at, parts, side: at * side // parts
        left, upper = edge(column, columns, wide), edge(row, rows, tall)
        right, lower = edge(column + 1, columns, wide), edge(row + 1, rows, tall)
        return torchvision.transforms.functional.resize(picture.crop((left, upper, right, lower)), size, mode, antialias=True)

    def corner(picture, vertical, horizontal):
        resized = resize(picture)
        top = resized.size[1] - size[0] if vertical == "bottom" else 0
        left = resized.size[0] - size[1] if horizontal == "right" else 0
        return crop(resized, top, left, *size)

    if name == "center":
        made = lambda picture: center(resize(picture))
    elif name == "hflip":
        made = lambda picture: torchvision.transforms.functional.hflip(center(resize(picture)))
    elif name == "whole":
        made = lambda picture: tile(picture, 0, 0, 1, 1)
    elif name.startswith("tile:"):
        at, grid = name.removeprefix("tile:").split("/")
        row, column, rows, columns = map(int, [*at.split(","), *grid.split("x")])
        made = lambda picture: tile(picture, row, column, rows, columns)
    elif name.split("-")[0] in ("top", "bottom"):
        made = lambda picture: corner(picture, *name.split("-"))
    else:
        sys.exit(f"the view {name} has no torchvision counterpart here")
    return lambda picture: finish(made(picture))


def preprocess(key):
    """torchvision's resize, and what comes after the crop, as the key describes them."""
    resize = key["image.resize"]
    mode = {"bicubic": torchvision.transforms.InterpolationMode.BICUBIC}
    interpolation = mode.get(key.get("image.interpolation"), torchvision.transforms.InterpolationMode.BILINEAR)
    normalize = torchvision.transforms.Normalize(key["encoder.mean"], key["encoder.std"])
    finish = torchvision.transforms.Compose([torchvision.transforms.ToTensor(), normalize])
    return torchvision.transforms.Resize(resize, interpolation, antialias=True), finish


def rows_of(outputs, taps, key):
    """The rows [N, ...] of one view: every tapped tensor pooled, joined along the last axis, of length 1 where asked."""
    tensors = key["encoder.tensor"]
    tensors = [tensors] if isinstance(tensors, str) else tensors
    joined = torch.cat([pooled(outputs[taps.index(tensor)], key["encoder.pool"]) for tensor in tensors], dim=-1)
    return functional.normalize(joined, dim=-1) if key["encoder.l2"] else joined


def pooled(tensor, pool):
    """A tapped tensor [N, ...] as vectors [N, ...]."""
    if tensor.ndim == 4:
        if pool == "global":
            tensor = tensor.mean((2, 3))
        else:
            if pool != "none":
                tensor = functional.adaptive_avg_pool2d(tensor, int(pool.split("x")[0]))
            tensor = tensor.flatten(2).transpose(1, 2)
    return tensor


def compare(module, taps, folder, manifest, index, images, limit):
    """Cosines of the column's first present rows with torchvision's."""
    key, cosines, batch = manifest["column"]["key"], [], []
    key = key if isinstance(key, dict) else dict(key)
    transforms = views(key)

    def flush():
        if batch:
            seen = torch.stack([picture for pictures, _ in batch for picture in pictures])
            with torch.inference_mode():
                outputs = module(seen)
            # The views of a picture follow each other, and so do their vectors in a row.
            expected = rows_of(outputs, taps, key).reshape(len(batch), -1)
            for (_, row), reference in zip(batch, expected):
                cosines.append(functional.cosine_similarity(row.flatten().double(), reference.flatten().double(), dim=0).item())
            batch.clear()

    for row, record in zip(rows(folder, manifest), index):
        if row is None or len(cosines) + len(batch) >= limit:
            continue
        path = Path(record["source"]) if Path(record["source"]).is_absolute() else images / record["source"]
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        batch.append(([transform(picture) for transform in transforms], row))
        if len(batch) * len(transforms) >= 16:
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
