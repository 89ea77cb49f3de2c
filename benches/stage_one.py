"""Stage one on the CPU, side by side with torchvision + DataLoader: images per second, limits, columns, taps, memory.

    .venv/bin/python benches/stage_one.py [speed] [networks[:NAME,NAME]] [limit] [columns] [taps] [decode] [jpeg] [memory]

speed     the same weights, pictures and columns (layer4 as a grid, avgpool; f16 on disk), f32 arithmetic, all cores. The
          PyTorch script is tried with 0, 1 and 2 workers, channels_last and not; its best is compared. Runs alternate.
networks  resnet18, resnet50 and densenet121 (the last map as a grid), beside the PyTorch script with channels_last in f32 and under bf16
          autocast, 1 worker.
limit     the whole against its parts: decode alone and the encoder alone on all cores. On the CPU both want the same cores, so the most
          the whole can do is 1 / (1/decode + 1/encoder).
columns   one column against five in one pass.
taps      layer2 alone against the whole network: the encoder's time, beside what the operations predict.
decode    decode = "fast" against "exact" on large pictures (the originals enlarged to 1600 pixels), several sizes of crop.
jpeg      decoding alone, one thread, no resizing: icecap's (zune-jpeg) beside libjpeg-turbo (simplejpeg) and Pillow.
memory    peak resident memory over 7,000 and 105,000 rows.
"""

import json, os, sys, tempfile
from pathlib import Path

from common import DATA, ICECAP, PYTHON, ROOT, encode, need, parts, run, table

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


MAPS = {"resnet18": "layer4", "resnet50": "layer4", "densenet121": "features"}


def networks(work, originals, names):
    rows = [("network", "icecap", "PyTorch f32", "", "PyTorch bf16", "")]
    for name in names:
        state, model = export(work, name)
        path = recipe(work, originals, model, [("map", MAPS[name], "none")])
        ours, theirs = [], {(): [], ("--autocast", "bf16"): []}
        for _ in range(2):
            ours.append(encode(path, work, work / "cache")[0]["images_per_second"])
            for extra, rates in theirs.items():
                command = [PYTHON, ROOT / "benches/encode_torch.py", "--images", originals, "--model", name, "--state", state]
                command += ["--columns", MAPS[name], "--out", work / "torch", "--workers", 1, *extra]
                rates.append(json.loads(run(*command)[0])["images_per_second"])
        best = max(ours)
        row = [name, f"{best:.1f}"]
        for rates in theirs.values():
            row += [f"{max(rates):.1f}", f"{best / max(rates):.2f} x"]
        rows.append(row)
    table(*rows)


def limit(work, originals):
    rows = [("network", "decode alone", "encoder alone", "whole", "ceiling of shared cores", "whole / ceiling")]
    # Four times over: the start (model, first batch) and the end (the last, padded batch) are paid once by a run of any length.
    many = repeated(originals, work / "four", 4)
    for name in ("resnet18", "resnet50"):
        _, model = export(work, name)
        path = recipe(work, many, model, [("avgpool", "avgpool", "none")])
        runs = []
        for _ in range(3):
            decode, encoder = parts("decode", path, work), parts("encoder", path, work)
            whole = encode(path, work, work / "cache")[0]["images_per_second"]
            ceiling = 1 / (1 / decode + 1 / encoder)
            runs.append((whole / ceiling, decode, encoder, whole, ceiling))
        # The middle of three: a share of parts that were measured at another moment than the whole.
        share, *rates = sorted(runs)[1]
        rows.append((name, *(f"{rate:.1f}" for rate in rates), f"{100 * share:.1f}%"))
    table(*rows)


def taps(work, originals):
    _, model = export(work, "resnet18")
    listed = json.loads(run(ICECAP, "inspect", model, "--all", "--json")[0])
    cost = {tensor["name"]: tensor["multiply_adds"] for tensor in listed}
    times = {}
    for _ in range(3):
        for tap in ("layer2", "avgpool"):
            path = recipe(work, originals, model, [(tap, tap, "global" if tap == "layer2" else "none")])
            times.setdefault(tap, []).append(1 / parts("encoder", path, work, "--seconds", 4))
    early, whole = min(times["layer2"]), min(times["avgpool"])
    table(
        ("tap", "ms an image, all cores", "share", "multiply-adds", "share"),
        ("layer2", f"{1e3 * early:.2f}", f"{early / whole:.2f}", cost["layer2"], f"{cost['layer2'] / cost['avgpool']:.2f}"),
        ("avgpool", f"{1e3 * whole:.2f}", "1", cost["avgpool"], "1"),
    )


ENLARGE = """
import sys
from pathlib import Path
from PIL import Image
for name in sorted(Path(sys.argv[1]).iterdir())[:64]:
    image = Image.open(name).convert("RGB")
    scale = 1600 / max(image.size)
    image.resize([int(side * scale) for side in image.size], Image.LANCZOS).save(Path(sys.argv[2]) / name.name, quality=88)
"""


def decode(work, originals):
    large = work / "large"
    large.mkdir()
    run(PYTHON, "-c", ENLARGE, originals, large)
    _, model = export(work, "resnet18")
    rows = [("crop", "exact, images/s", "fast, images/s", "ratio")]
    for side in (224, 128, 64):
        rates = {}
        for _ in range(2):
            for way in ("exact", "fast"):
                more = f'resize = {side * 8 // 7}\ncrop = {side}\ndecode = "{way}"'
                path = recipe(work, large, model, [("layer1", "layer1", "global")], more)
                rates.setdefault(way, []).append(parts("decode", path, work, "--seconds", 3))
        exact, fast = max(rates["exact"]), max(rates["fast"])
        rows.append((side, f"{exact:.1f}", f"{fast:.1f}", f"{fast / exact:.2f} x"))
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


JPEG = """
import io, sys, time
from pathlib import Path
import simplejpeg
from PIL import Image
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())[:512]]
ways = {"libjpeg-turbo": lambda data: simplejpeg.decode_jpeg(data, "RGB"), "Pillow": lambda data: Image.open(io.BytesIO(data)).convert("RGB")}
way, count, start = ways[sys.argv[2]], 0, time.perf_counter()
while time.perf_counter() - start < 5:
    way(files[count % len(files)])
    count += 1
print(count / (time.perf_counter() - start))
"""


def jpeg(work, originals):
    _, model = export(work, "resnet18")
    path = recipe(work, originals, model, [("avgpool", "avgpool", "none")])
    ours, theirs = [], {"libjpeg-turbo": [], "Pillow": []}
    for _ in range(3):
        ours.append(parts("jpeg", path, work, "--threads", 1))
        for name, rates in theirs.items():
            rates.append(float(run(PYTHON, "-c", JPEG, originals, name)[0]))
    rows = [("decoder", "images/s, one thread (best of 3)", "icecap is"), ("icecap (zune-jpeg)", f"{max(ours):.0f}", "")]
    table(*rows, *((name, f"{max(rates):.0f}", f"{max(ours) / max(rates):.2f} x") for name, rates in theirs.items()))


def memory(work):
    pictures = DATA / "flickr8k/images"
    need(pictures)
    _, model = export(work, "resnet18")
    rows = [("rows", "peak resident MB", "ratio")]
    small = None
    for times in (1, 15):
        folder = repeated(pictures, work / f"times{times}", times)
        # A small picture and an early layer: the memory is what is measured, not the encoder.
        path = recipe(work, folder, model, [("layer2", "layer2", "4x4")], "resize = 64\ncrop = 64")
        report, peak = encode(path, work, work / "cache")
        small = small or peak
        rows.append((report["rows"], f"{peak:.0f}", f"{peak / small:.3f} x"))
    table(*rows)


def main():
    wanted = sys.argv[1:] or ["speed", "networks", "limit", "columns", "taps", "decode", "jpeg", "memory"]
    originals = DATA / "flickr8k/originals"
    need(originals)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        many = repeated(originals, work / "originals", 2)
        for mode in wanted:
            print(f"\n{mode}", flush=True)
            name, _, names = mode.partition(":")
            match name:
                case "speed":
                    speed(work, many)
                case "networks":
                    networks(work, originals, names.split(",") if names else MAPS)
                case "limit":
                    limit(work, many)
                case "columns":
                    columns(work, many)
                case "taps":
                    taps(work, originals)
                case "decode":
                    decode(work, originals)
                case "jpeg":
                    jpeg(work, originals)
                case "memory":
                    memory(work)
                case _:
                    sys.exit(f"`{mode}` is no mode; see the top of this file")


if __name__ == "__main__":
    main()
