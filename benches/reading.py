"""Reading random rows: icecap's gather, beside memcpy, h5py and one .npy an image.

    EXTRAS=bench make setup
    .venv/bin/python benches/reading.py

The same rows ([49, 1280] f16, 125 kB each, 7,000 of them; and [1280] f16, 2.5 kB each, 118,287 of them) in three forms, all in the page cache.
h5py is given the chunks it likes best (one row), and both ways to index (row by row, or one sorted list). A batch is 512 rows of
the first kind, 4096 of the second; each reader fills one preallocated array. The best of five rounds counts.
"""

import json, os, re, shutil, sys, tempfile, time
from pathlib import Path

import numpy as np

from common import ROOT, run, table

try:
    import h5py
except ImportError:
    sys.exit("skipped: h5py is not installed; run `EXTRAS=bench make setup`")
from safetensors import safe_open


def rates(read, rows, batch, out, rounds=5):
    """The best rate over `rounds` batches of random rows, in GB/s."""
    random = np.random.default_rng(0)
    best = 0.0
    for _ in range(rounds):
        wanted = random.choice(rows, batch, replace=False)
        begun = time.perf_counter()
        read(wanted, out)
        best = max(best, out.nbytes / (time.perf_counter() - begun) / 1e9)
    return best


def measure(work, name, shape, batch):
    shards = sorted((work / name / "columns").glob("*/*.safetensors"))
    parts = [safe_open(str(shard), "np").get_tensor("embedding") for shard in shards]
    rows = np.concatenate(parts)
    count = min(len(rows), 8192)  # one file an image: enough to read from
    out = np.empty((batch, *shape), np.float16)

    with h5py.File(work / f"{name}.h5", "w") as file:
        file.create_dataset("rows", data=rows, chunks=(1, *shape))
    folder = work / f"{name}-npy"
    folder.mkdir()
    for row in range(count):
        np.save(folder / f"{row}.npy", rows[row])

    file = h5py.File(work / f"{name}.h5", "r")
    data = file["rows"]

    def by_row(wanted, out):
        for at, row in enumerate(wanted):
            data.read_direct(out, np.s_[row], np.s_[at])

    def by_list(wanted, out):
        order = np.argsort(wanted)
        out[order] = data[wanted[order]]

    def npy(wanted, out):
        for at, row in enumerate(wanted):
            out[at] = np.load(folder / f"{row}.npy")

    found = {"h5py": max(rates(by_row, len(rows), batch, out), rates(by_list, len(rows), batch, out))}
    found["one .npy an image"] = rates(npy, count, min(batch, count), out)
    file.close()
    shutil.rmtree(folder)
    os.remove(work / f"{name}.h5")
    return found


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        command = ["cargo", "run", "--release", "--quiet", "--locked", "-p", "icecap-cache", "--example", "gather", "--", work]
        text, _, _ = run(*command, cwd=ROOT)
        print(text)
        lines = [("rows", "reader", "GB/s", "gather is")]
        for name, shape, batch in (("coco", (1280,), 4096), ("grid", (49, 1280), 512)):
            pattern = rf"^{name} \d+ x .*?(\d+) threads: memcpy ([\d.]+) GB/s, gather ([\d.]+) GB/s"
            found = [(int(threads), float(memcpy), float(gather)) for threads, memcpy, gather in re.findall(pattern, text, re.M)]
            _, memcpy, gather = max(found)
            lines.append((name, "icecap gather", f"{gather:.2f}", ""))
            lines.append((name, "memcpy", f"{memcpy:.2f}", f"{100 * gather / memcpy:.0f}% of it"))
            for reader, rate in measure(work, name, shape, batch).items():
                lines.append((name, reader, f"{rate:.2f}", f"{gather / rate:.1f} x"))
        table(*lines)


if __name__ == "__main__":
    main()
