"""What the benchmarks share: where things are, running a command with its time and peak memory, and printing a table."""

import json, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ICECAP = os.environ.get("ICECAP", str(ROOT / "target/release/icecap"))
DATA = Path(os.environ.get("ICECAP_DATA", ROOT.parent / "shared/data"))
PYTHON = sys.executable


def need(*paths):
    """Stops with a plain line where the data for a benchmark isn't there."""
    for path in paths:
        if not Path(path).exists():
            sys.exit(f"skipped: {path} is not there; set ICECAP_DATA to a folder laid out like pipelines/ expect")


def run(*command, **options):
    """Runs `command`; gives its output, seconds and peak resident memory in MB."""
    with tempfile.TemporaryFile("w+") as out:
        begun = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=out, **options)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}")
    return text, seconds, usage.ru_maxrss / 1024


def encode(recipe, data, cache, *more):
    """Runs `icecap encode` into a fresh cache; gives its report and peak memory."""
    shutil.rmtree(cache, ignore_errors=True)
    text, _, memory = run(
        ICECAP, "encode", recipe, "--data", data, "--cache", cache, "--json", *more, stderr=subprocess.DEVNULL
    )
    return json.loads(text), memory


def parts(part, recipe, data, *more):
    """Images per second of one part of stage one alone (benches/stage_parts.rs): `decode` or `encoder`."""
    binary = os.environ.get("STAGE_PARTS") or built_parts()
    text, _, _ = run(binary, part, recipe, "--data", data, *more)
    return json.loads(text)["images_per_second"]


def built_parts():
    """The newest build of benches/stage_parts.rs; builds it where there is none."""
    folder = ROOT / "target/release/deps"
    found = lambda: [path for path in folder.glob("stage_parts-*") if not path.suffix]
    if not found():
        subprocess.run(["cargo", "bench", "--bench", "stage_parts", "--no-run"], cwd=ROOT, check=True)
    return max(found(), key=lambda path: path.stat().st_mtime)


def table(*rows):
    """Prints rows of cells, aligned."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)
