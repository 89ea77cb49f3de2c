"""Faster R-CNN's regions beside torchvision's own detections, and how fast each finds them.

    python benches/parity_detector.py [--limit 80] [--jpeg]
    python benches/parity_detector.py --speed 16

Seeded random weights stand in for trained ones (`--weights FILE` takes a state dict): their heads are scaled so that there is something to find,
saved as a state dict, exported by `icecap export` from that file, and run by `icecap encode` in batches of pictures of all sizes. torchvision
detects in the same pictures one at a time. A detection of torchvision's is found again when one of the same class has all four sides within half
a pixel and the score within 1e-3; the features of the box head are compared too. The pictures are copied to PNG first: two JPEG decoders differ
by a level here and there, and scaled random heads make much of it. `--jpeg` leaves them as they are.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from torchvision.transforms.functional import to_tensor

import common
from common import DATA, ICECAP, ROOT, need, run

sys.path.insert(0, str(ROOT / "pipelines"))
import export_onnx  # noqa: E402

NAME = "fasterrcnn_resnet50_fpn"
RECIPE = """
[dataset]
format = "folder"
images = "{images}"

[encoder]
model = "{model}"
batch = {batch}

[detector]
kind = "fasterrcnn"
min = 0
max = 100

[[column]]
name = "regions"
from = "detector"
tap = "box_features"
dtype = "f32"
"""


def weights(path):
    """A state dict of seeded random weights whose heads find something."""
    model, _ = export_onnx.build(NAME, "random:3")
    state = model.state_dict()
    state["rpn.head.cls_logits.weight"] *= 40
    state["rpn.head.bbox_pred.weight"] *= 4
    state["roi_heads.box_predictor.cls_score.weight"] *= 50
    torch.save(state, path)


def reference(path):
    """torchvision's model with the state dict, and a hook for the features of the last call."""
    model, _ = export_onnx.build(NAME, str(path))
    proposals = {}
    model.roi_heads.box_head.register_forward_hook(lambda module, inputs, output: proposals.update(features=output))
    return model, proposals


def pictures(folder, limit, png, work):
    """The photographs, as they are or as PNG."""
    files = sorted(Path(folder).glob("*.jpg"))[:limit]
    target = work / "pictures"
    target.mkdir()
    for file in files:
        if png:
            Image.open(file).convert("RGB").save(target / f"{file.stem}.png")
        else:
            (target / file.name).write_bytes(file.read_bytes())
    return sorted(target.iterdir())


def encode(work, images, model, batch, cache):
    """Runs icecap; what it reports."""
    recipe = work / "recipe.toml"
    recipe.write_text(RECIPE.format(images=images, model=model, batch=batch))
    return common.encode(recipe, work, cache)[0]


def regions(cache):
    """By file name: boxes, scores, labels and features of the column."""
    folder = next(cache.glob("columns/regions-*"))
    names = [json.loads(line)["id"] for line in open(cache / "rows.jsonl", encoding="utf-8")]
    found, at = {}, 0
    for shard in json.loads((folder / "column.json").read_text())["shards"]:
        with safe_open(folder / shard["file"], "pt") as tensors:
            parts = [tensors.get_tensor(name) for name in ("count", "boxes", "scores", "labels", "embedding")]
        for count, *row in zip(*parts):
            found[names[at]] = [part[: int(count)] for part in row]
            at += 1
    return found


def compare(own, torchvision):
    """How many of torchvision's detections icecap has, how many it has besides, and the largest differences of those it has."""
    boxes, scores, labels, _ = own
    left, same, worst = set(range(len(scores))), 0, [0.0, 0.0]
    for box, score, label in zip(*(torchvision[key] for key in ("boxes", "scores", "labels"))):
        def distance(i):
            return (boxes[i] - box).abs().max().item() if labels[i] == label else float("inf")
        nearest = min(left, key=distance, default=None)
        if nearest is None or distance(nearest) > 0.5 or abs(scores[nearest] - score) > 1e-3:
            continue
        worst = [max(worst[0], distance(nearest)), max(worst[1], abs(scores[nearest] - score).item())]
        left.remove(nearest)
        same += 1
    return same, len(left), worst


def parity(own, files, model, hook):
    print(f"{'picture':24} {'size':>10} {'torchvision':>11} {'the same':>8} {'besides':>7} {'box, px':>8} {'score':>8} {'features':>9}")
    total, same, besides, worst = 0, 0, 0, [0.0, 0.0, 0.0]
    for file in files:
        picture = to_tensor(Image.open(file).convert("RGB"))
        with torch.inference_mode():
            found = model([picture])[0]
        again, more, differences = compare(own[file.name], found)
        features = own[file.name][3]
        # The features of a region are those of its proposal: each has to be among those that torchvision's box head made.
        apart = torch.cdist(features, hook["features"], compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max().item() / features.norm(dim=1).mean().item() if len(features) else 0.0
        differences = [*differences, apart]
        worst = [max(pair) for pair in zip(worst, differences)]
        total, same, besides = total + len(found["scores"]), same + again, besides + more
        size = f"{picture.shape[1]}x{picture.shape[2]}"
        print(f"{file.name[:24]:24} {size:>10} {len(found['scores']):11} {again:8} {more:7} {differences[0]:8.4f} {differences[1]:8.1e} {apart:9.1e}", flush=True)
    print(f"{'all':24} {len(files):10} {total:11} {same:8} {besides:7} {worst[0]:8.4f} {worst[1]:8.1e} {worst[2]:9.1e}")
    return total, same, besides


def speed(files, model, work, onnx, batch, rounds=2):
    """Images a second of both, in turn, on the same pictures."""
    part = work / "part"
    part.mkdir()
    for file in files:
        (part / file.name).write_bytes(file.read_bytes())
    for turn in range(rounds):
        report = encode(work, part, onnx, batch, work / f"speed-{turn}")
        start = time.perf_counter()
        with torch.inference_mode():
            for file in files:
                model([to_tensor(Image.open(file).convert("RGB"))])
        torchvision = len(files) / (time.perf_counter() - start)
        own = report["images_per_second"]
        print(f"round {turn + 1}, {len(files)} pictures, CPU: icecap {own:.3f} img/s, torchvision {torchvision:.3f} img/s, {own / torchvision:.2f}x", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", type=Path, help="a state dict of fasterrcnn_resnet50_fpn")
    parser.add_argument("--images", type=Path, default=DATA / "coco_mini/train2017")
    parser.add_argument("--limit", type=int, default=80)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--speed", type=int, default=0, help="measure the speed on that many pictures, and nothing else")
    parser.add_argument("--jpeg", action="store_true", help="give both the JPEG files")
    given = parser.parse_args()
    need(given.images, ICECAP)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        state, onnx = given.weights or work / "weights.pth", work / "model.onnx"
        if not given.weights:
            weights(state)
        run(ICECAP, "export", NAME, "--weights", state, "-o", onnx)
        model, hook = reference(state)
        files = pictures(given.images, given.speed or given.limit, not given.jpeg, work)
        if given.speed:
            return speed(files, model, work, onnx, given.batch)
        encode(work, work / "pictures", onnx, given.batch, work / "cache")
        total, same, besides = parity(regions(work / "cache"), files, model, hook)
    if total == 0:
        sys.exit("torchvision found nothing: nothing was compared")
    sys.exit(0 if same == total and besides == 0 else 1)


if __name__ == "__main__":
    main()
