"""How long a report takes to open in Chromium: from the start of the navigation until it is loaded, its scripts have run and it is laid out.

    icecap compare RUN... -o report.html
    .venv/bin/python benches/report.py report.html [--times 5]
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
PROBE = """<script>addEventListener('load', () => {
  const height = document.body.offsetHeight;
  const drawn = document.querySelectorAll('.card img').length;
  document.documentElement.dataset.opened = [performance.now(), height, drawn].join(' ');
});</script>"""
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=1280,900", "--dump-dom",
]  # fmt: skip


def opened(browser, page):
    """Milliseconds, the page's height in pixels, and the photographs that it shows."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *QUIET, f"--user-data-dir={profile}", page.resolve().as_uri()]
        dom = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    found = re.search(r'data-opened="(\S+) (\d+) (\d+)"', dom)
    if found is None:
        sys.exit("the page did not load")
    return float(found[1]), int(found[2]), int(found[3])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("skipped: no chromium on the PATH")
    text = given.report.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
        runs = [opened(browser, page) for _ in range(given.times)]
    times = [ms for ms, _, _ in runs]
    print(f"{given.report.stat().st_size / 1e6:.1f} MB, {runs[0][1]} px high, {runs[0][2]} photographs shown at first")
    print(f"opened in {statistics.median(times):.0f} ms (of {given.times} times: {min(times):.0f} to {max(times):.0f})")


if __name__ == "__main__":
    main()
