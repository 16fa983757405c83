"""Every script of benchmarks/ from end to end in its smallest size, in this process; docs/ stays as it is."""

import gzip
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DOCS = BENCHMARKS.parent / "docs"
PUBLISHED = Path(os.environ.get("TITANS_SEQ_DATA", "no-data"))
# script -> its words, and what its output must hold
SMALL = {
    "memory": ("--tokens 32 --repeats 1 --chunks 16 --depths 1 --threads 1", "| 1 | 16 | 32 | ours, chunked |"),
    "operation": ("--only one_sample,_one_token --repeats 1 --threads 1", "| one sample, one token |"),
    "language_speed": ("--dim 16 --layers 1 --tokens 32 --lengths 32 --rounds 1 --threads 1", "| transformer |"),
    "steps": ("--tokens 32 --repeats 1 --threads 1", "| LMM, one token |"),
    "stream": ("--tokens 200 --piece 100 --threads 1", "| 200 |"),
    "scale": ("--quick", "| 3 | 720 |"),
    "anomalies": ("--quick", "| rolling z-score |"),
    "forecast": (
        "--dataset embedded --horizon 24 --batches 1 --epochs 1 --threads 1 --mixers memory none",
        "memory │",
    ),
    "online": ("--quick", "| four blocks | from the first row, no lag |"),
    "probabilistic": ("--quick", "| DeepAR (GluonTS) |"),
    "reliability": ("--quick --only share_a_layer", "true]"),
}
ELSEWHERE = {"gpu": "test_gpu_benchmark.py", "compile": "../kernels/test_compile.py"}
BY_DATA = {"dna", "dna_stream", "language", "language_stream", "results"}  # below
WRONG = {  # script -> its words, and what its one line must hold
    "forecast": ("--dataset nothing", "nothing"),
    "online": ("--dataset ETTh1", "ETTh1: no file"),
    "probabilistic": ("--dataset ETTh1", "ETTh1: no file"),
    "dna": ("", "no folder dna in $TITANS_SEQ_DATA"),
    "language": ("", "no file text/tinyshakespeare.txt in $TITANS_SEQ_DATA"),
    "dna_stream": ("--checkpoint nothing --fasta nothing.fa", "nothing"),
    "language_stream": ("--checkpoint nothing", "nothing"),
}


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str, list[str]], str]]:
    """Run a script with its words; returns what it prints."""
    threads, before = torch.get_num_threads(), _docs()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TITANS_SEQ_DATA", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(BENCHMARKS)

    def call(script: str, words: list[str]) -> str:
        path = BENCHMARKS / f"{script}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *words])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                raise
        return capsys.readouterr().out

    yield call
    torch.set_num_threads(threads)
    assert _docs() == before


def _docs() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in DOCS.iterdir() if path.is_file()}


def _words(text: str) -> list[str]:
    return [word.replace("_", " ") if "," in word else word for word in text.split()]


def test_every_script_is_run() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()}
    assert scripts == SMALL.keys() | ELSEWHERE.keys() | BY_DATA
    assert all((Path(__file__).parent / place).is_file() for place in ELSEWHERE.values())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # titans-pytorch, where it is installed
@pytest.mark.parametrize("script", SMALL)
def test_it_runs(run: Callable[[str, list[str]], str], script: str) -> None:
    words, expected = SMALL[script]
    assert expected in run(script, _words(words))


@pytest.mark.parametrize("script", WRONG)
def test_what_the_user_can_put_right_is_one_line(run: Callable[[str, list[str]], str], script: str) -> None:
    words, expected = WRONG[script]
    with pytest.raises(SystemExit) as ended:
        run(script, _words(words))
    line = str(ended.value.code)
    assert expected in line and "\n" not in line


@pytest.mark.slow
def test_language_and_the_stream_through_its_model(run: Callable[[str, list[str]], str], tmp_path: Path) -> None:
    place = tmp_path / "data" / "text" / "tinyshakespeare.txt"
    place.parent.mkdir(parents=True)
    place.write_text("To be, or not to be.\n" * 200)
    cell = "needle-lmm, seed 1"
    assert f"| {cell} |" in run("language", ["--quick", "--only", cell])
    found = run("language_stream", ["--checkpoint", f"runs/lm_results_quick/{cell}", "--tokens", "150"])
    assert "| 150 |" in found


@pytest.mark.slow
def test_dna_and_the_stream_through_its_model(run: Callable[[str, list[str]], str], tmp_path: Path) -> None:
    place = tmp_path / "data" / "dna" / "genomes" / "ecoli_k12_mg1655.NC_000913.3.fa.gz"
    place.parent.mkdir(parents=True)
    bases = "".join(np.random.default_rng(0).choice(list("ACGT"), 60_000))
    place.write_bytes(gzip.compress(f">NC_000913.3\n{bases}\n".encode()))
    assert "| trained on windows, in one stream |" in run("dna", ["--quick", "--only", "ecoli"])
    root = Path("runs/dna_results_quick")
    fasta = str(root / "ecoli_k12_mg1655.NC_000913.3.fa")
    found = run("dna_stream", ["--checkpoint", str(root / "ecoli"), "--fasta", fasta, "--held-out"])
    assert "| 3,000 |" in found


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not list(PUBLISHED.glob("forecast/ETTh1.csv*")), reason="no ETTh1 in $TITANS_SEQ_DATA")
def test_results_with_the_published_series(
    run: Callable[[str, list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TITANS_SEQ_DATA", str(PUBLISHED.absolute()))
    assert "1 of 64 runs" in run("results", ["--quick", "--only", "ETTh1-l96-h96-none-s0"])
    assert "| seasonal naive (GluonTS) |" in run("probabilistic", ["--quick", "--dataset", "ETTh1", "--only", "naive"])
