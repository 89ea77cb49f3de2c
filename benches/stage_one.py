"""Stage one on the CPU, side by side with torchvision + DataLoader: images per second, columns, memory.

    .venv/bin/python benches/stage_one.py [speed] [columns] [memory]

speed    the same weights, pictures and columns (layer4 as a grid, avgpool; f16 on disk), f32 arithmetic, all cores. The
         PyTorch script is tried with 0, 1 and 2 workers, channels_last and not; its best is compared. Runs alternate.
columns  one column against five in one pass.
memory   peak resident memory over 7,000 and 70,000 rows.
"""

import json, os, sys, tempfile
from pathlib import Path

from common import DATA, PYTHON, ROOT, encode, need, run, table

RECIPE = """
[dataset]
format = "folder"
images = "{images}"

[encoder]
model = "{model}"
{preprocess}
"""
COLUMN = """
[[column]]
name = "{name}"
{taps}
pool = "{pool}"
{more}
"""


def recipe(folder, images, model, columns, preprocess=""):
    text = RECIPE.format(images=images, model=model, preprocess=preprocess)
    for name, tap, pool, *more in columns:
        taps = f'tap = "{tap}"' if isinstance(tap, str) else f"taps = {json.dumps(tap)}"
        text += COLUMN.format(name=name, taps=taps, pool=pool, more="\n".join(more))
    path = Path(folder) / f"{len(columns)}.toml"
    path.write_text(text)
    return path


def repeated(source, target, times):
    """A folder of links: the pictures of `source`, `times` over."""
    target.mkdir()
    for name in sorted(os.listdir(source)):
        for again in range(times):
            os.symlink(Path(source).resolve() / name, target / f"{again:03d}-{name}")
    return target


def export(work, name):
    """Seeded random weights as a state dict, for PyTorch, and as ONNX, for icecap."""
    state, model = work / f"{name}.pth", work / f"{name}.onnx"
    code = f"import torch, torchvision; torch.manual_seed(0); torch.save(torchvision.models.{name}().state_dict(), r'{state}')"
    run(PYTHON, "-c", code)
    run(PYTHON, ROOT / "pipelines/export_onnx.py", name, "--weights", state, "-o", model)
    return state, model


def speed(work, originals):
    state, model = export(work, "resnet18")
    path = recipe(work, originals, model, [("layer4", "layer4", "none"), ("avgpool", "avgpool", "none")])
    ours, theirs = [], {}
    for _ in range(2):
        report, _ = encode(path, work, work / "cache")
        ours.append(report["images_per_second"])
        for workers in (0, 1, 2):
            for extra in ([], ["--contiguous"]):
                command = [PYTHON, ROOT / "benches/encode_torch.py", "--images", originals, "--model", "resnet18"]
                command += ["--state", state, "--columns", "layer4,avgpool", "--out", work / "torch", "--workers", workers]
                text, _, _ = run(*command, *extra)
                name = f"PyTorch, {workers} workers, {'contiguous' if extra else 'channels_last'}"
                theirs.setdefault(name, []).append(json.loads(text)["images_per_second"])
    best = max(max(rates) for rates in theirs.values())
    rows = [("", "images/s (best of 2)", "ratio")]
    rows.append(("icecap encode", f"{max(ours):.1f}", f"{max(ours) / best:.2f} x the best PyTorch"))
    rows += [(name, f"{max(rates):.1f}", f"{max(ours) / max(rates):.2f} x") for name, rates in theirs.items()]
    table(*rows)


def columns(work, originals):
    _, model = export(work, "resnet18")
    five = [("avgpool", "avgpool", "none"), ("layer4", "layer4", "none"), ("layer3", "layer3", "7x7")]
    five += [("layer2", "layer2", "7x7"), ("layer1", "layer1", "global")]
    one, many = recipe(work, originals, model, five[:1]), recipe(work, originals, model, five)
    seconds = {1: [], 5: []}
    for _ in range(3):
        seconds[1].append(encode(one, work, work / "one")[0]["seconds"])
        seconds[5].append(encode(many, work, work / "five")[0]["seconds"])
    table(
        ("columns", "seconds (best of 3)", "ratio"),
        ("1", f"{min(seconds[1]):.2f}", ""),
        ("5", f"{min(seconds[5]):.2f}", f"{min(seconds[5]) / min(seconds[1]):.3f} x"),
    )


def memory(work):
    pictures = DATA / "flickr8k/images"
    need(pictures)
    _, model = export(work, "resnet18")
    rows = [("rows", "peak resident MB", "ratio")]
    small = None
    for times in (1, 10):
        folder = repeated(pictures, work / f"times{times}", times)
        # A small picture and an early layer: the memory is what is measured, not the encoder.
        path = recipe(work, folder, model, [("layer2", "layer2", "4x4")], "resize = 64\ncrop = 64")
        report, peak = encode(path, work, work / "cache")
        small = small or peak
        rows.append((report["rows"], f"{peak:.0f}", f"{peak / small:.3f} x"))
    table(*rows)


def main():
    wanted = sys.argv[1:] or ["speed", "columns", "memory"]
    originals = DATA / "flickr8k/originals"
    need(originals)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        many = repeated(originals, work / "originals", 2)
        if "speed" in wanted:
            speed(work, many)
        if "columns" in wanted:
            columns(work, many)
        if "memory" in wanted:
            memory(work)


if __name__ == "__main__":
    main()
