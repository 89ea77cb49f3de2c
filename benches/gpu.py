"""The work of benches/gpu.sh: pictures, models, the parts, the whole, the PyTorch script, and whether the rows are right.

Everything is read from the environment that gpu.sh sets. The pictures are made here of a few real ones: cropped, mirrored and
saved again at a width of 500 to 640 pixels, so that 50,000 different files of a photograph's size need no more than those few.
"""

import io, json, multiprocessing, os, random, shutil, sys, tempfile, time
from pathlib import Path

import numpy as np

from common import DATA, PYTHON, ROOT, encode, need, parts, run, table
from stage_one import MAPS, export, recipe

DEVICE, IMAGES, WORKERS = os.environ["DEVICE"], int(os.environ["IMAGES"]), int(os.environ["WORKERS"])
BATCH, RUNS, MODELS = int(os.environ["BATCH"]), int(os.environ["RUNS"]), os.environ["MODELS"].split(",")
CORES = os.cpu_count()


def picture(task):
    source, target, seed = task
    from PIL import Image

    chance = random.Random(seed)
    image = Image.open(io.BytesIO(source)).convert("RGB")
    if chance.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    keep = chance.uniform(0.8, 1.0)
    width, height = int(image.width * keep), int(image.height * keep)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    scale = chance.uniform(500, 640) / max(width, height)
    size = (int(width * scale), int(height * scale))
    image.resize(size, Image.BILINEAR, box=(left, top, left + width, top + height)).save(target, quality=chance.randint(85, 92))


def pictures(folder):
    folder.mkdir()
    sources = [path.read_bytes() for path in sorted((DATA / "flickr8k/originals").glob("*.jpg"))]
    tasks = [(sources[at % len(sources)], folder / f"{at:06d}.jpg", at) for at in range(IMAGES)]
    with multiprocessing.Pool(CORES) as pool:
        for _ in pool.imap_unordered(picture, tasks, chunksize=64):
            pass
    return folder


def best(times, work):
    return max(work() for _ in range(times))


def torch_rate(work, images, model, state, column, *more):
    command = [PYTHON, ROOT / "benches/encode_torch.py", "--images", images, "--model", model, "--state", state]
    command += ["--columns", column, "--out", work / "torch", "--workers", WORKERS, "--batch", BATCH, "--threads", CORES]
    device = DEVICE.split(",")[0]
    return json.loads(run(*command, "--device", device, *more)[0])["images_per_second"]


def rows_of(cache, name):
    """A column's rows as f32, by safetensors' own reader."""
    from safetensors.numpy import load_file

    folder = next((cache / "columns").glob(f"{name}-*"))
    shards = sorted(folder.glob("*.safetensors"))
    rows = np.concatenate([load_file(shard)["embedding"] for shard in shards]).astype(np.float32)
    return rows.reshape(len(rows), -1)


def least_cosine(a, b):
    product = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return float(product.min())


def rates_of(work, images, model, state, onnx):
    """All rates of one network, and the caches of its wholes."""
    column, rates, caches = MAPS[model], {}, {}
    for precision in ("f32", "f16"):
        lines = f'batch = {BATCH}\nprecision = "{precision}"'
        path = recipe(work, images, onnx, [("map", column, "none")], lines)
        rates["encoder", precision] = best(RUNS, lambda: parts("encoder", path, work, "--device", DEVICE))
        cache = work / f"cache-{model}-{precision}"
        whole = lambda: encode(path, work, cache, "--device", DEVICE)[0]["images_per_second"]
        rates["whole", precision] = best(RUNS, whole)
        rates["decode", precision] = best(RUNS, lambda: parts("decode", path, work))
        caches[precision] = cache
        autocast = {"f32": [], "f16": ["--autocast", "bf16" if DEVICE == "cpu" else "f16"]}[precision]
        rates["torch", precision] = best(RUNS, lambda: torch_rate(work, images, model, state, column, *autocast))
    return rates, caches


def fidelity(work, images, model, onnx, caches):
    """Least cosine of rows made on the device with rows made on the CPU in f32, over some pictures."""
    few = work / f"few-{model}"
    few.mkdir()
    for path in sorted(images.iterdir())[:256]:
        os.symlink(path, few / path.name)
    path = recipe(work, few, onnx, [("map", MAPS[model], "none")], f"batch = {BATCH}")
    encode(path, work, work / "cache-cpu")
    expected = rows_of(work / "cache-cpu", "map")
    return {precision: least_cosine(rows_of(cache, "map")[: len(expected)], expected) for precision, cache in caches.items()}


def main():
    need(DATA / "flickr8k/originals")
    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
        work = Path(folder)
        start = time.perf_counter()
        images = pictures(work / "images")
        print(f"{IMAGES} pictures made in {time.perf_counter() - start:.0f} s; device {DEVICE}, batch {BATCH}, {CORES} cores", flush=True)
        lines = [("network", "precision", "decode alone", "encoder alone", "whole", "of the slower part", "PyTorch", "", "least cosine")]
        for model in MODELS:
            state, onnx = export(work, model)
            rates, caches = rates_of(work, images, model, state, onnx)
            cosines = fidelity(work, images, model, onnx, caches)
            for precision in ("f32", "f16"):
                decode, encoder, whole, torch = (rates[part, precision] for part in ("decode", "encoder", "whole", "torch"))
                share = f"{100 * whole / min(decode, encoder):.0f}%"
                rate = [f"{value:.0f}" for value in (decode, encoder, whole)]
                lines.append((model, precision, *rate, share, f"{torch:.0f}", f"{whole / torch:.2f} x", f"{cosines[precision]:.6f}"))
            for cache in caches.values():
                shutil.rmtree(cache)
        table(*lines)
        if DEVICE == "cpu":
            print("A rehearsal: on the CPU decode and encoder share the cores, and f16 is computed in f32.")


if __name__ == "__main__":
    main()
