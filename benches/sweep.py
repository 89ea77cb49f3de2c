"""What a sweep over cached columns saves: trials side by side, their memory, and the encoding that no trial repeats.

    .venv/bin/python benches/sweep.py jobs               four short trainings with --jobs 1 and --jobs 2: time, and memory of the further trial
    .venv/bin/python benches/sweep.py cost runs/study    the study's trainings against the same with the encoder run in every epoch

Memory is the proportional set size of all of the sweep's processes at its highest: a page that two trials map counts once. Cost: what one
image takes to encode is measured for each set of columns, and multiplied by the images that the sweep's trainings passed.
"""

import argparse
import json
import subprocess
import tempfile
import threading
import time
import tomllib
from pathlib import Path

from common import DATA, ICECAP, ROOT, need, run, table

STUDY = ROOT / "pipelines/study-columns.toml"
JOBS = """
recipe = "{recipe}"
seeds = [0, 1]

[[variant]]
group = "decoder"
name = "lstm"
set = {{ "decoder.kind" = "lstm", "decoder.hidden" = 256, "decoder.columns" = ["grid7"] }}

[[variant]]
group = "decoder"
name = "attention"
set = {{ "decoder.width" = 256, "decoder.hidden" = 256, "decoder.columns" = ["grid7"] }}

[[variant]]
group = "length"
name = "short"
set = {{ "train.steps" = 60, "train.warmup_steps" = 10, "train.validate_every" = 100 }}
"""


def only(columns, folder):
    """The study's recipe with these of its columns."""
    head, *parts = STUDY.read_text(encoding="utf-8").split("[[column]]")
    parts[-1], decoder = parts[-1].split("[decoder]")
    kept = [part for part in parts if part.split('"')[1] in columns]
    assert len(kept) == len(columns), columns
    text = "[[column]]".join([head, *kept]) + "[decoder]" + decoder.replace('columns = ["regions"]', f"columns = {json.dumps(columns)}")
    if "regions" not in columns:
        text = text.replace(head.split("[detector]")[1], "").replace("[detector]", "")
    path = folder / f"{'-'.join(columns)}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def descendants(pid):
    """`pid` and the processes below it."""
    found = [pid]
    for each in found:
        try:
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            pass
    return found


def memory(pid):
    """The proportional set size of `pid` and the processes below it in MB, and of how many trainings that is."""
    total, trainings = 0, 0
    for each in descendants(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            trainings += b"\0trial\0" in Path(f"/proc/{each}/cmdline").read_bytes()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000, trainings


def watched(*command):
    """Runs `command`; seconds, and the highest memory by the number of trainings at once."""
    begun = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = {}

    def watch():
        while process.poll() is None:
            used, trainings = memory(process.pid)
            most[trainings] = max(most.get(trainings, 0), used)
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait() != 0:
        raise SystemExit(f"{command} failed")
    seconds = time.perf_counter() - begun
    watcher.join()
    return seconds, most


def jobs(_):
    need(DATA / "flickr8k/images", DATA / "encoders/mobilenet_v2.onnx", ICECAP)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        recipe = only(["grid7"], work)
        run(ICECAP, "encode", recipe, "--data", DATA, "--cache", work / "cache", "--json", stderr=subprocess.DEVNULL)
        (work / "jobs.toml").write_text(JOBS.format(recipe=recipe.name), encoding="utf-8")
        rows, first = [("", "seconds", "", "memory, MB", "a further trial, MB")], None
        for at in (1, 2):
            sweep = (ICECAP, "sweep", work / "jobs.toml", "--data", DATA, "--cache", work / "cache", "--runs", work / f"runs{at}")
            seconds, most = watched(*sweep, "--jobs", at)
            first = first or (seconds, most[1])
            further = "" if at == 1 else f"{most[at] - first[1]:.0f}"
            rows.append((f"--jobs {at}", f"{seconds:.1f}", f"{first[0] / seconds:.2f} x", f"{most[at]:.0f}", further))
        table(*rows)


def cost(given):
    need(DATA / "flickr8k/images", DATA / "encoders/mobilenet_v2.onnx", given.runs / "sweep.json", ICECAP)
    trials = {}
    for folder in sorted(given.runs.glob("*/result.json")):
        recipe = tomllib.loads((folder.parent / "recipe.toml").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in open(folder.parent / "metrics.jsonl", encoding="utf-8")]
        trained = max(line.get("elapsed_seconds", line.get("seconds", 0)) for line in lines)
        trials.setdefault(tuple(recipe["decoder"]["columns"]), []).append((trained, max(line["epoch"] for line in lines)))
    images, every, captions, training, once = 0, 0.0, 0.0, 0.0, 0.0
    rows = [("columns", "trials", "training, min", "images/s", "encoder in every epoch, min")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for columns, done in sorted(trials.items(), key=lambda entry: len(entry[0])):
            text, _, _ = run(
                ICECAP, "encode", only(list(columns), work), "--data", DATA, "--cache", work / "-".join(columns),
                "--sample", given.sample, "--json", stderr=subprocess.DEVNULL,
            )  # fmt: skip
            rate = given.sample / json.loads(text)["seconds"]
            passed = given.images * sum(epochs for _, epochs in done) / rate / 60
            minutes = sum(seconds for seconds, _ in done) / 60
            rows.append((" + ".join(columns), len(done), f"{minutes:.1f}", f"{rate:.0f}", f"{passed:.1f}"))
            training, every, once = training + minutes, every + passed, given.rows / rate / 60  # the widest set is the last
    table(*rows)
    print(f"\nencoded once: {once:.1f} min, in every epoch: {every:.0f} min: 1/{every / once:.0f}")
    print(f"with the training: {once + training:.0f} against {every + training:.0f} min, {(once + training) / (every + training):.0%}")
    again = 5 * every + training
    print(f"with a pass for each of an image's five captions, as the notebooks do: {again:.0f} min, {(once + training) / again:.0%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parts = parser.add_subparsers(required=True)
    parts.add_parser("jobs").set_defaults(part=jobs)
    costs = parts.add_parser("cost")
    costs.add_argument("runs", type=Path)
    costs.add_argument("--sample", type=int, default=600, help="images that are encoded to measure")
    costs.add_argument("--images", type=int, default=6000, help="images of an epoch")
    costs.add_argument("--rows", type=int, default=7000, help="images that are encoded once")
    costs.set_defaults(part=cost)
    given = parser.parse_args()
    given.part(given)


if __name__ == "__main__":
    main()
