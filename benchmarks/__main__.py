"""`python -m benchmarks [case …] [--quick] [--write]`: run cases, print their rows, and with --write keep them."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    appends,
    contexts,
    copies,
    delays,
    footprint,
    imports,
    lists,
    pgreads,
    pgwrites,
    processes,
    prunes,
    reads,
    rediscases,
    report,
    searches,
    sizes,
    starts,
    tasks,
    turns,
)
from benchmarks.bench import Bench
from benchmarks.onservers import NotHereError
from benchmarks.rows import Row, not_run

CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "append-disk": appends.disk,
    "append-process": appends.process,
    "growth": appends.growth,
    "tasks": tasks.run,
    "processes": processes.many,
    "one-session": processes.one,
    "load": reads.load,
    "last": reads.last,
    "turn": turns.run,
    "context": contexts.context,
    "fork": contexts.fork,
    "list": lists.run,
    "prune": prunes.run,
    "search": searches.run,
    "search-appends": searches.appends,
    "size": sizes.run,
    "import": imports.run,
    "start": starts.run,
    "footprint": footprint.run,
    "pg-append": pgwrites.append,
    "pg-tasks": pgwrites.together,
    "pg-batch": pgwrites.batches,
    "pg-load": pgreads.load,
    "pg-list": pgreads.listed,
    "pg-search": pgreads.search,
    "redis-append": rediscases.append,
    "redis-tasks": rediscases.together,
    "redis-batch": rediscases.batches,
    "redis-read": rediscases.reads,
    "redis-search": rediscases.search,
    "copy": copies.run,
    "delay": delays.run,
}
SERVERS = [name for name in CASES if name.startswith(("pg-", "redis-"))] + ["copy", "delay", "footprint"]
"""The cases on servers, which the name `servers` stands for."""
DOCS = Path(__file__).parent.parent / "docs"


def main() -> int:
    """Run; 1 if a case failed."""
    asked = _arguments()
    failed = 0
    results: dict[str, report.Result] = {}
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=asked.dir) as folder:
        bench = Bench(Path(folder), quick=asked.quick)
        print(f"load average {report.load_average()}; {report.machine(bench.folder)}", file=sys.stderr)
        for name in [part for case in asked.case for part in (SERVERS if case == "servers" else [case])] or CASES:
            load, start = report.load_average(), time.perf_counter()
            try:
                rows = list(CASES[name](bench))
            except NotHereError as error:
                rows = [not_run(name, str(error))]
            except Exception:
                traceback.print_exc()
                failed += 1
                continue
            took = time.perf_counter() - start
            results[name] = report.result(rows, load, round(took, 1), bench.folder, quick=asked.quick)
            print(f"\n{name} ({took:.1f} s)", *report.table(rows), sep="\n", flush=True)
        bench.servers.close()
    if asked.write:
        report.save(asked.docs, results, list(CASES))
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "case",
        nargs="*",
        choices=[[], "servers", *CASES],
        help=f"which cases; all by default: {', '.join(CASES)}; servers: those on servers",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast is it")
    parser.add_argument("--write", action="store_true", help="write benchmarks.json and BENCHMARKS.md")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write them")
    parser.add_argument("--dir", type=Path, help="where the stores are made: the disk that is measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
