"""METEOR 1.5 and SPICE of tokenized captions, by the official programs that the package pycocoevalcap carries.

`icecap evaluate` runs this; by hand:

    python pipelines/score_jars.py < task.json
    {"candidates": ["a dog runs", ..], "references": [["a dog is running", ..], ..]}

prints {"meteor": {"score": 0.19, "images": [..]}, "spice": {"reason": "why not"}}. It downloads nothing.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

MODELS = "stanford-corenlp-3.6.0"


class NotScored(Exception):
    """Why a score can't be had, in words for the user."""


def package():
    """pycocoevalcap's folder."""
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise NotScored(f"pycocoevalcap is not installed for `{sys.executable}`: run `make setup EXTRAS=metrics`")
    return Path(next(iter(found.submodule_search_locations)))


def java():
    """The program `java`."""
    found = shutil.which("java")
    if found is None:
        raise NotScored("`java` is not on the PATH (Debian: apt install default-jre-headless)")
    return found


def need(*paths):
    for path in paths:
        if not path.exists():
            raise NotScored(f"`{path}` is missing: install pycocoevalcap again")


def failure(program, code, said):
    """Java's own words: the first line that names an error, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if "Exception" in line or "Error" in line]
    last = (named or lines[-1:] or ["it said nothing"])[0]
    return NotScored(f"{program} ended with exit code {code}: {last}")


def meteor(task):
    """The jar's protocol: a line of captions, a line of statistics back; at the end all statistics, one score each and the whole."""
    folder = package() / "meteor"
    jar = folder / "meteor-1.5.jar"
    need(jar, folder / "data" / "paraphrase-en.gz")
    command = [java(), "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)

        def ask(lines):
            try:
                process.stdin.write("".join(line + "\n" for line in lines).encode())
                process.stdin.flush()
            except OSError:
                pass  # It ended: what it said is read below.

        def answer():
            line = process.stdout.readline().decode().strip()
            if not line:
                try:
                    code = process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = process.wait()
                said.seek(0)
                raise failure("METEOR", code, said.read().decode(errors="replace"))
            return line

        lines = []
        for candidate, references in zip(task["candidates"], task["references"]):
            # As pycocoevalcap cleans it; a reference may hold the mark no more than a candidate.
            candidate = candidate.replace("|||", "").replace("  ", " ")
            lines.append(" ||| ".join(["SCORE", *(text.replace("|||", "") for text in references), candidate]))
        asking = threading.Thread(target=ask, args=(lines,), daemon=True)
        asking.start()
        try:
            statistics = [answer() for _ in lines]
            asking.join()
            ask([" ||| ".join(["EVAL", *statistics])])
            images = [float(answer()) for _ in lines]
            return {"score": float(answer()), "images": images}
        finally:
            process.kill()
            process.wait()


def spice(task):
    folder = package() / "spice"
    jar = folder / "spice-1.0.jar"
    need(jar)
    if not all((folder / "lib" / f"{MODELS}{part}.jar").exists() for part in ("", "-models")):
        fetch = "from pycocoevalcap.spice.get_stanford_models import get_stanford_models as get; get()"
        raise NotScored(f"Stanford's parser models ({MODELS}) are not in `{folder / 'lib'}`: fetch them (400 MB) with "
                        f"`{sys.executable} -c \"{fetch}\"`")
    with tempfile.TemporaryDirectory() as place:
        given, got = Path(place, "task.json"), Path(place, "scores.json")
        pairs = enumerate(zip(task["candidates"], task["references"]))
        given.write_text(json.dumps([{"image_id": k, "test": test, "refs": refs} for k, (test, refs) in pairs]))
        command = [java(), "-Dfile.encoding=UTF-8", "-Xmx8G", "-jar", jar.name, given, "-out", got, "-subset", "-silent"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode != 0 or not got.exists():
            raise failure("SPICE", done.returncode, done.stderr.decode(errors="replace"))
        scores = {item["image_id"]: item["scores"]["All"]["f"] for item in json.loads(got.read_text())}
    images = [scores[k] for k in range(len(task["candidates"]))]
    if not all(isinstance(score, (int, float)) and score == score for score in images):
        raise NotScored("SPICE gave an image no number")
    return {"score": sum(images) / len(images), "images": images}


def attempt(score, task):
    try:
        return score(task)
    except NotScored as reason:
        return {"reason": str(reason)}
    except Exception as error:  # One of the two failing is no reason to lose the other.
        return {"reason": f"{type(error).__name__}: {error}"}


def main():
    task = json.load(sys.stdin)
    json.dump({"meteor": attempt(meteor, task), "spice": attempt(spice, task)}, sys.stdout)


if __name__ == "__main__":
    main()
