"""The record of `gpu.py` as Markdown tables, as a picture, and as the section of docs/performance.md."""

import shutil
from pathlib import Path
from typing import Any

from pages import line, replace_part, row

DOCS = Path(__file__).parent.parent / "docs"
PART = "gpu"


def write_page(folder: Path, record: dict[str, Any], docs: Path = DOCS) -> None:
    """Replace the section of docs/performance.md, and its picture."""
    shutil.copy(folder / "gpu.png", docs / "gpu.png")
    replace_part(docs / "performance.md", PART, f"{header(record)}\n\n{tables(record)}\n\n![](gpu.png)")


def header(record: dict[str, Any]) -> str:
    """What was measured, where and when."""
    floors, first = record["floors"], record["times"][0]
    return (
        f"`{record['command']}` on one {record['device']}, {record['date']}, PyTorch {record['torch']}, Triton "
        f"{record['triton']}, Python {record['python']}: batch {first['batch']}, {first['heads']} heads of "
        f"{first['width']}, "
        f"expansion {first['expansion']}, chunk {first['chunk_size']}, {record['dtype']} tokens. In the same run a "
        "copy moved "
        f"{floors['bytes_per_s'] / 1e12:.2f} TB/s and a product of {record['dtype']} matrices made "
        f"{floors['operations_per_s'] / 1e12:.0f} TFLOP/s; shares are of these."
    )


def tables(record: dict[str, Any]) -> str:
    """All that the record holds."""
    parts = (checks(record), times(record), kernels(record), left_out(record))
    return "\n\n".join(part for part in parts if part)


def checks(record: dict[str, Any]) -> str:
    if not record["checks"]:
        return ""
    head = ("case", "dtype", "triton", "in", "chunked", "in", "reference in float32", "bound")
    lines = ["Largest errors against float64, relative to the largest entry of a tensor, and in which tensor:\n"]
    lines += [row(*head), line(len(head))]
    for case, dtype in sorted({(r["case"], r["dtype"]) for r in record["checks"]}):
        found = {r["backend"]: r for r in record["checks"] if (r["case"], r["dtype"]) == (case, dtype)}
        errors = (f"{r['error']:.1e}{'' if r['right'] else ' WRONG'} | {r['where']}" for r in found.values())
        one = found["triton"]
        lines.append(row(case, dtype, *errors, f"{one['reference in float32']:.1e}", f"{one['bound']:.1e}"))
    return "\n".join(lines)


def times(record: dict[str, Any]) -> str:
    """Forward / forward and backward in one row."""
    if not record["times"]:
        return ""
    head = ("depth", "tokens", "", "tokens/s", "ms", "peak MiB", "x chunked", "x compiled", "matmul rate", "bandwidth")
    lines = ["Forward / forward and backward:\n", row(*head), line(len(head))]
    order = sorted({(r["depth"], r["tokens"]) for r in record["times"]})
    for depth, tokens in order:
        here = [r for r in record["times"] if (r["depth"], r["tokens"]) == (depth, tokens)]
        for what in dict.fromkeys(r["what"] for r in here):
            entries = [_entries(r, here, record["floors"]) for r in here if r["what"] == what]
            lines.append(row(depth or "-", tokens, what, *(" / ".join(pair) for pair in zip(*entries, strict=True))))
    return "\n".join(lines)


def _entries(one: dict[str, Any], here: list[dict[str, Any]], floors: dict[str, float]) -> list[str]:
    if "failed" in one:
        return [one["failed"], *["-"] * 6]
    return [
        f"{one['tokens_per_s']:,.0f}", f"{1e3 * one['seconds']:.2f}", _number(one["peak_mib"], ",.0f"),
        *(_number(_times_as_fast(one, here, rival), ".2f") for rival in ("chunked", "chunked, compiled")),
        *_shares(one, floors),
    ]  # fmt: skip


def _times_as_fast(one: dict[str, Any], here: list[dict[str, Any]], rival: str) -> float | None:
    same = [r for r in here if r["what"] == rival and r["backward"] == one["backward"] and "seconds" in r]
    return same[0]["seconds"] / one["seconds"] if same else None


def _shares(one: dict[str, Any], floors: dict[str, float]) -> list[str]:
    """Of the rate of products, and of the bandwidth."""
    found = []
    for key, floor in (("operations", "operations_per_s"), ("bytes", "bytes_per_s")):
        known = key in one and floor in floors
        found.append(f"{one[key] / one['seconds'] / floors[floor]:.1%}" if known else "-")
    return found


def _number(x: float | None, how: str) -> str:
    return "-" if x is None else format(x, how)


def kernels(record: dict[str, Any]) -> str:
    if not record["kernels"]:
        return ""
    head = (
        "depth",
        "tokens",
        "kernel",
        "launches",
        "ms",
        "of the whole",
        "TFLOP/s",
        "state TB/s",
        "matmul rate",
        "bandwidth",
    )
    lines = [
        (
            "Where forward and backward spend their time, what backward makes anew included; operations, and bytes of "
            "state that"
        ),
        "are loaded and stored, most of them in the L2 cache, are those of the kernels' plans:\n",
        row(*head),
        line(len(head)),
    ]
    for one in record["kernels"]:
        here = [r for r in record["kernels"] if (r["depth"], r["tokens"]) == (one["depth"], one["tokens"])]
        rates = (f"{one[key] / one['seconds'] / 1e12:.2f}" if key in one else "-" for key in ("operations", "bytes"))
        lines.append(row(
            one["depth"], one["tokens"], one["kernel"], one.get("launches", "-"), f"{1e3 * one['seconds']:.2f}",
            f"{one['seconds'] / sum(r['seconds'] for r in here):.0%}", *rates, *_shares(one, record["floors"]),
        ))  # fmt: skip
    return "\n".join(lines)


def left_out(record: dict[str, Any]) -> str:
    lines = [f"- {failed['job']}: {failed['why']}" for failed in record["failed"]]
    if record["left_out"]:
        lines.append(f"- not started within {record['minutes']:g} minutes: {'; '.join(record['left_out'])}")
    return "\n".join(["Without a result:\n", *lines]) if lines else ""


def picture(record: dict[str, Any], path: Path) -> None:
    """Tokens per second and peak memory over the length, of what there is."""
    import matplotlib as mpl  # here, since every process of the run imports this file

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [r for r in record["times"] if "seconds" in r]
    depths = sorted({r["depth"] for r in rows if r["depth"]}) or [0]
    figure, axes = plt.subplots(
        2, len(depths), figsize=(5.5 * len(depths), 7.5), sharex=True, sharey="row", squeeze=False
    )
    colours = {what: f"C{i}" for i, what in enumerate(dict.fromkeys(r["what"] for r in rows))}
    for (above, below), depth in zip(axes.T, depths, strict=True):
        for what, colour in colours.items():
            chosen = [r for r in rows if r["what"] == what and r["depth"] in (depth, 0)]
            _draw(above, chosen, "tokens_per_s", colour)
            _draw(below, chosen, "peak_mib", colour)
        above.set(title=f"depth {depth}" if depth else "nothing was timed", ylabel="tokens per second")
        below.set(xlabel="tokens", ylabel="peak MiB above inputs")
    lengths = sorted({r["tokens"] for r in rows})
    if rows:
        axes[0, 0].set_xticks(lengths, [f"{n // 1024}K" if n >= 1024 else str(n) for n in lengths], minor=False)
        axes[0, 0].set_xticks([], minor=True)
        axes[0, 0].legend(title="dotted: forward only", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw(axis: Any, rows: list[dict[str, Any]], key: str, colour: str) -> None:
    """Of one contender: a solid line with backward, a dotted one without."""
    for backward, style in ((True, "-"), (False, ":")):
        points = sorted((r["tokens"], r[key]) for r in rows if r["backward"] == backward and r[key])
        if points:
            label = rows[0]["what"] if backward else None
            axis.loglog(*zip(*points, strict=True), style, marker="o", color=colour, label=label)
