"""Streaming a data set from the web: icecap encode against what the same server gives a plain client that throws everything away.

    python benches/url_streaming.py [--pictures 20000] [--connections 512] [--timeout 2] [--keep]

A server of its own on 127.0.0.1 answers every request after 50 ms. Of the URLs, 10% fail (404, 500 and broken connections, a third
each), 1% stall and 1% are rubbish, always the same ones. The plain client asks for each URL once, with as many connections and the same
time-out, and decodes nothing. icecap tries what may pass three times, decodes, encodes (with the tests' tiny encoder) and writes its
column. Every row must be present or missing for exactly the reason that the server gave it. Nothing leaves this machine.
"""

import argparse, asyncio, json, multiprocessing, random, tempfile, time
from collections import Counter
from pathlib import Path

from common import DATA, ROOT, encode, need, table

LATENCY = 0.05
SEED = 7
# What a share of the URLs gives, and the reason that icecap must record.
KINDS = [("rubbish", 0.01, "not-an-image"), ("stall", 0.01, "timeout"), ("404", 0.10 / 3, "http-404"),
         ("500", 0.10 / 3, "http-500"), ("reset", 0.10 / 3, "connection")]  # fmt: skip


def kinds(count):
    """What each URL gives: `good`, or one of KINDS."""
    draw = random.Random(SEED)
    names, shares = [kind[0] for kind in KINDS], [kind[1] for kind in KINDS]
    return draw.choices(["good", *names], [1 - sum(shares), *shares], k=count)


class Server(asyncio.Protocol):
    """One connection: a request, 50 ms, an answer, and again."""

    kinds, pictures = [], []

    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        if b"\r\n\r\n" in self.buffer:
            number = int(self.buffer.split(b" ", 2)[1].strip(b"/"))
            self.buffer = b""
            asyncio.get_running_loop().call_later(LATENCY, self.answer, number)

    def answer(self, number):
        if self.transport.is_closing():
            return
        kind = self.kinds[number]
        if kind == "reset":
            self.transport.abort()
        elif kind != "stall":
            status = b"200 OK" if kind in ("good", "rubbish") else kind.encode() + b" No"
            body = self.pictures[number % len(self.pictures)] if kind == "good" else b"<html>this is no picture</html>"
            self.transport.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def serve(port, count, pictures):
    """A server process; puts its port into `port`."""
    Server.kinds, Server.pictures = kinds(count), pictures

    async def forever():
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


class Client(asyncio.Protocol):
    """One connection of the plain client: the next URL as soon as the last one is here."""

    def __init__(self, numbers, seen, done, timeout):
        self.numbers, self.seen, self.done, self.timeout, self.left = numbers, seen, done, timeout, -1
        self.head = b""

    def connection_made(self, transport):
        self.transport, self.loop, self.timer = transport, asyncio.get_running_loop(), None
        self.ask()

    def ask(self):
        number = next(self.numbers, None)
        if number is None:
            self.done(self, None)
            return
        self.head, self.left = b"", -1
        self.timer = self.loop.call_later(self.timeout, self.give_up, "timeout")
        self.transport.write(b"GET /%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % number)

    def data_received(self, data):
        if self.left < 0:
            self.head += data
            at = self.head.find(b"\r\n\r\n")
            if at < 0:
                return
            self.status = self.head[9:12].decode()
            self.left = int(self.head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            data = self.head[at + 4 :]
        self.left -= len(data)
        if self.left == 0:
            self.settle(self.status)
            self.ask()

    def settle(self, how):
        self.timer.cancel()
        self.timer = None
        self.seen[how] += 1

    def give_up(self, how):
        self.settle(how)
        self.done(self, "again")

    def connection_lost(self, error):
        if self.timer:
            self.give_up("reset")


async def plain(port, count, connections, timeout):
    """Fetches every URL once; gives seconds and how each ended."""
    loop, numbers, seen = asyncio.get_running_loop(), iter(range(count)), Counter()
    over, alive = loop.create_future(), connections

    def done(client, again):
        nonlocal alive
        client.transport.abort()
        if again:
            loop.create_task(loop.create_connection(make, "127.0.0.1", port))
            return
        alive -= 1
        if alive == 0 and not over.done():
            over.set_result(None)

    def make():
        return Client(numbers, seen, done, timeout)

    begun = time.perf_counter()
    await asyncio.gather(*(loop.create_connection(make, "127.0.0.1", port) for _ in range(connections)))
    await over
    return time.perf_counter() - begun, seen


RECIPE = """
[dataset]
format = "conceptual-captions"
train = "list.tsv"

[encoder]
model = "tiny.onnx"
resize = [32, 32]
batch = 16

[[column]]
name = "whole"
tap = "vector"
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=512)
    parser.add_argument("--timeout", type=float, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the pictures as tars, too")
    args = parser.parse_args()
    images = DATA / "flickr8k/images"
    need(images)
    pictures = [path.read_bytes() for path in sorted(images.glob("*.jpg"))[:2000]]
    port = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port, args.pictures, pictures), daemon=True)
    server.start()
    port = port.get()
    try:
        compare(args, port, sum(map(len, pictures)) / len(pictures))
    finally:
        server.kill()


def compare(args, port, usual_bytes):
    injected = Counter(kinds(args.pictures))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "tiny.onnx").write_bytes((ROOT / "tests/fixtures/encoder/tiny.onnx").read_bytes())
        (folder / "recipe.toml").write_text(RECIPE)
        lines = (f"picture {number}\thttp://127.0.0.1:{port}/{number}\n" for number in range(args.pictures))
        (folder / "list.tsv").write_text("".join(lines))
        rows = [["", "seconds", "images/s", "of the plain client"]]
        before, seen = asyncio.run(plain(port, args.pictures, args.connections, args.timeout))
        keep = ["--keep-images", folder / "kept"] if args.keep else []
        report, memory = encode(
            folder / "recipe.toml", folder, folder / "cache", "--allow-private", "--max-missing", "100%", "--connections",
            args.connections, "--per-host", args.connections, "--timeout", args.timeout, *keep,
        )  # fmt: skip
        after, _ = asyncio.run(plain(port, args.pictures, args.connections, args.timeout))
        ceiling = args.pictures / min(before, after)
        for name, seconds in [("plain client, before", before), ("icecap encode", report["seconds"]), ("plain client, after", after)]:
            rate = args.pictures / seconds
            rows.append([name, f"{seconds:.1f}", f"{rate:.0f}", f"{100 * rate / ceiling:.0f}%"])
        table(*rows)
        print(f"{args.pictures} pictures of {usual_bytes / 1e3:.0f} kB, {args.connections} connections; bound by {report['bottleneck']}; {memory:.0f} MB")
        account(args, injected, seen, report)


def account(args, injected, seen, report):
    """Every row present, or missing for the reason that the server had for it."""
    missing = report["columns"][0]["missing"]
    rows = [["the server gave", "URLs", "the plain client saw", "icecap recorded", ""]]
    plain_names = {"good": "200", "rubbish": "200", "stall": "timeout"}
    present = args.pictures - sum(missing.values())
    same = present == injected["good"]
    rows.append(["good", injected["good"], seen["200"] - injected["rubbish"], present, "present"])
    for name, _, reason in KINDS:
        shown = injected["rubbish"] if name == "rubbish" else seen[plain_names.get(name, name)]
        rows.append([name, injected[name], shown, missing.get(reason, 0), reason])
        same &= missing.get(reason, 0) == injected[name]
    table(*rows)
    if not same or set(missing) - {kind[2] for kind in KINDS}:
        raise SystemExit(f"rows are not accounted for: {json.dumps(missing)} where {dict(injected)} were injected")
    print("every row is accounted for")


if __name__ == "__main__":
    main()
