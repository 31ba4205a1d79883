"""Figures that benches note for `benches/compare`: one JSON line each, in the file that MURMIR_BENCH_TABLE names."""
import json, os


def note(bench, case, figure, value):
    """`value` is better the smaller it is: a ratio to a yardstick or a limit, or a number of bytes."""
    if path := os.environ.get("MURMIR_BENCH_TABLE"):
        with open(path, "a") as out:
            out.write(json.dumps({"bench": bench, "case": case, "figure": figure, "value": round(value, 4)}) + "\n")


def read(path):
    """{(bench, case, figure): value}, the last of each."""
    if not os.path.exists(path):
        return {}
    with open(path) as lines:
        rows = [json.loads(line) for line in lines]
    return {(row["bench"], row["case"], row["figure"]): row["value"] for row in rows}
