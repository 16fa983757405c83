"""benchmarks/gpu.py from end to end in tiny sizes, its kernels in Triton's interpreter; its time limit; its page."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from worker_tasks import Task

pytest.importorskip("triton", reason="triton is not installed (it exists for Linux only)")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FEW = ["linear, gates per chunk, carried, masked, no clipping"]


@pytest.fixture
def benchmarks(monkeypatch):
    """Scripts, which import each other as they lie beside each other."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def run(*words):
    command = [sys.executable, BENCHMARKS / "gpu.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    done = run(
        "--dry-run",
        "--cases",
        *FEW,
        "--depths",
        "1",
        "--contenders",
        "triton",
        "chunked",
        "SDPA attention",
        "--workers",
        "2",
        "--seconds",
        ".001",
        "--output",
        folder,
    )
    return done, folder


def test_a_run_from_end_to_end(finished):
    done, folder = finished
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((folder / "gpu.json").read_text())
    assert record["failed"] == record["left_out"] == []
    assert {(row["case"], row["dtype"], row["backend"]) for row in record["checks"]} == {
        (FEW[0], dtype, backend) for dtype in ("float32", "bfloat16") for backend in ("triton", "chunked")
    }
    assert all(0 < row["error"] <= row["bound"] for row in record["checks"])
    assert {(row["what"], row["depth"], row["tokens"], row["backward"]) for row in record["times"]} == {
        (what, depth, tokens, backward)
        for what, depth in (("triton", 1), ("chunked", 1), ("SDPA attention", 0))
        for tokens in (4, 8)
        for backward in (False, True)
    }
    assert all(row["tokens_per_s"] > 0 for row in record["times"])
    assert min(record["floors"].values()) > 0
    assert {name: record[name] for name in ("torch", "dry_run")} == {"torch": torch.__version__, "dry_run": True}
    assert (folder / "gpu.png").read_bytes().startswith(b"\x89PNG")


def test_every_kernel_is_timed_with_its_operations(finished, benchmarks):
    """Of two chunks in one group: forward, and once more in backward."""
    from gpu_times import Shape

    record = json.loads((finished[1] / "gpu.json").read_text())
    rows = {row["kernel"]: row for row in record["kernels"] if row["tokens"] == 8}
    plan = Shape(8, 1, batch=1, heads=1, width=4, expansion=2, chunk_size=4).plan()
    assert rows.keys() == plan.keys() | {"all else"}
    for name, (operations, state) in plan.items():
        passes = 2 if name == "walk" else 1
        assert rows[name]["launches"] == passes
        assert rows[name]["operations"] == 2 * passes * operations  # two chunks
        assert rows[name]["bytes"] == 2 * passes * state
        assert rows[name]["seconds"] > 0


def test_the_plans_are_those_of_the_kernels(benchmarks):
    """In millions of operations and MB, as their files say for K = 64, expansion 4, depth 2, C = 64."""
    from gpu_times import Shape

    plan = Shape(64, 2, batch=1, heads=1, width=64, expansion=4, chunk_size=64).plan()
    found = {name: (round(operations / 1e6), round(state / 1e6, 1)) for name, (operations, state) in plan.items()}
    assert found == {"walk": (28, 0.7), "read_backward": (27, 0.5), "walk_backward": (29, 1.8)}


def test_no_time_leaves_everything_out_and_still_draws(tmp_path):
    done = run("--dry-run", "--minutes", "0", "--output", tmp_path)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert done.returncode == 1
    assert "check as timed, float32: not checked" in done.stderr
    assert record["times"] == record["checks"] == []
    for name in ("triton, depth 2, 8 tokens", "kernels, depth 1, 4 tokens", "SDPA attention, 8 tokens"):
        assert name in record["left_out"]
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_timed(tmp_path):
    assert "times need a CUDA device" in run("--output", tmp_path).stderr


def test_work_is_ordered_by_worth(benchmarks):
    import gpu

    names = [job.name for job in gpu.one_at_a_time(gpu.parsed([]), "cuda")]
    assert names[:6] == [
        "the chip's own rates", "triton, depth 2, 4096 tokens", "chunked, depth 2, 4096 tokens",
        "SDPA attention, 4096 tokens", "chunked, compiled, depth 2, 4096 tokens", "kernels, depth 2, 4096 tokens",
    ]  # fmt: skip
    assert names[6] == "triton, depth 2, 16384 tokens"
    assert names[-1] == "chunked, compiled, depth 1, 8192 tokens"
    assert len(names) == len(set(names)) == 1 + 2 * 8 * 3 + 8 + 4
    first = [job.name for job in gpu.side_by_side(gpu.parsed([]), "cuda")]
    assert first[:3] == [
        "compiling chunked, compiled, depth 2", "compiling chunked, compiled, depth 1", "check as timed, bfloat16",
    ]  # fmt: skip


def test_the_page_is_written_from_a_finished_run(finished, benchmarks, tmp_path):
    import gpu
    from gpu_tables import write_page

    with pytest.raises(SystemExit, match="dry run"):
        gpu.write(finished[1])
    record = json.loads((finished[1] / "gpu.json").read_text())
    record |= {"dry_run": False, "device": "NVIDIA H100", "left_out": ["one", "two"]}
    record["failed"] = [{"job": "triton, depth 2, 8 tokens", "why": "stopped after 60 s", "output": ""}]
    record["checks"][0] |= {"right": False}
    page = tmp_path / "performance.md"
    before = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    page.write_text(before)
    write_page(finished[1], record, tmp_path)
    after = page.read_text()
    begin, end = "<!-- gpu -->", "<!-- /gpu -->"
    assert (after.split(begin)[0], after.split(end)[1]) == (before.split(begin)[0], before.split(end)[1])
    part = after.split(begin)[1].split(end)[0]
    assert "on one NVIDIA H100" in part
    assert "triton, depth 2, 8 tokens: stopped after 60 s" in part
    assert "one; two" in part
    assert part.count("WRONG") == 1
    for table in re.findall(r"(?:^\|.*\n)+", part, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")


def test_little_is_imported():
    """A machine for measuring may have torch, triton, jaxtyping, safetensors, matplotlib and little else."""
    missing = [
        "lightning",
        "pytorch_lightning",
        "gluonts",
        "pandas",
        "sklearn",
        "hydra",
        "omegaconf",
        "rich",
        "beartype",
        "scipy",
    ]
    code = f"import sys\nsys.path[:0] = [{str(BENCHMARKS)!r}]\nsys.modules.update(dict.fromkeys({missing}))\n"
    code += "import gpu, titans_seq\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_job_that_fails_costs_only_itself(benchmarks):
    """It crashes, raises or hangs; the process of one that did not is used again."""
    from workers import Failure, Workers

    tasks = [
        Task("a", "ok"),
        Task("b", "ok"),
        Task("c", "exit"),
        Task("d", "raise"),
        Task("e", "sleep", 0.5),
        Task("f", "ok"),
    ]
    with Workers() as workers:
        found = {job.name: result for job, result in workers.run(tasks, 1, lambda: 60)}
        processes = [worker.process for worker in workers.all]
    assert found["a"] == found["b"] != found["f"]
    assert isinstance(found["c"], Failure)
    assert "exit code 3" in found["c"].why
    assert "ValueError: no such thing" in found["d"].output
    assert "stopped after" in found["e"].why
    assert not any(process.is_alive() for process in processes)


def test_no_job_begins_when_the_time_is_up(benchmarks, tmp_path):
    """By a clock that leaps: the first job takes all the time there is."""
    import gpu
    from gpu_times import Rates
    from workers import Workers

    moments = iter([0.0, 1.0, *[61.0] * 9])
    jobs = [Rates(torch.float32, "cpu", side=8, name=name) for name in ("first", "second")]
    run = gpu.Run(tmp_path, {}, minutes=1, clock=lambda: next(moments))
    with Workers() as workers:
        run.work(workers, jobs, 1)
    assert run.record["left_out"] == ["second"]
    assert run.record["floors"]["operations_per_s"] > 0
    assert json.loads((tmp_path / "gpu.json").read_text()) == run.record
