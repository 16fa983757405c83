"""report: one page that asks for nothing else, whose numbers are those of the run; looked at in a real browser."""

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks import MIDDLE, intervals_of, margins_of, network_of, quantiles_of

from titans_seq.cli.errors import UsageError
from titans_seq.cli.main import main
from titans_seq.cli.runs import read_metrics

L, H = 16, 8
EVIL = "<script>alert(1)</script>"
SMALL = [
    "model.dim=8", "model.blocks=1", "trainer.limit_train_batches=2", "data.batch_size=4", "--quiet",
    "--lookback", str(L), "--horizon", str(H), "--epochs", "2",
]  # fmt: skip
ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a browser would read: text of the body, tables, the records of the plots, and all it would ask for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tags: list[str] = []
        self.plots: dict[str, Any] = {}
        self.rows: list[list[str]] = []
        self.text = ""
        self._plot = self._raw = self._cell = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        asking = ("src", "href", "srcset", "data", "poster", "action", "background")
        self.asked += [value for name, value in attrs if name in asking and value is not None]
        self._plot = given.get("id") or self._plot if tag == "figure" else self._plot
        self._raw = ("json" if given.get("type") == "application/json" else tag) if tag in ("script", "style") else ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = tag
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""
        self._cell = "" if tag == self._cell else self._cell

    def handle_data(self, data: str) -> None:
        if self._raw == "json":
            self.plots[self._plot] = json.loads(data)
        elif not self._raw:
            self.text += data
            if self._cell:
                self.rows[-1][-1] += data.strip()

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(name))

    def score(self, measure: str, name: str) -> str:
        """A cell of the table of metrics."""
        head = next(row for row in self.rows if row[0] == "metric")
        return self.row(measure)[next(i for i, words in enumerate(head) if words.startswith(name))]

    def scores(self, name: str) -> list[str]:
        return [self.score(measure, name) for measure in ("MSE", "MAE")]

    def line(self, plot: str, view: str, name: str) -> list[float]:
        names = [trace.get("name") for trace in self.plots[plot]["traces"]]
        return self.plots[plot]["views"][view]["y"][names.index(name)]


def report(run: Path, output: Path, *words: str) -> Page:
    assert main(["report", str(run), "--quiet", "--output", str(output), *words]) == 0
    return Page(output)


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """The report of the run on the embedded series."""
    path = tmp_path_factory.mktemp("report") / "embedded.html"
    return path, report(finished, path)


def _own_run(folder: Path, *words: str, frame: pd.DataFrame | None = None) -> Path:
    """A run on a frame; by default a daily series of 150 rows, whose first column has a hostile name."""
    if frame is None:
        t, random = np.arange(150), np.random.default_rng(0).standard_normal((150, 2))
        sales, visits = 1000 + 100 * np.sin(t / 7) + 20 * random[:, 0], 5 + np.cos(t / 3) + 0.2 * random[:, 1]
        days = pd.date_range("2024-01-30", periods=150)
        frame = pd.DataFrame({"date": days, EVIL: sales, "visits & <b>views</b>": visits})
    csv, run = folder / "own.csv", folder / "run"
    frame.to_csv(csv, index=False)
    assert main(["fit", "forecast", *SMALL, *words, "--csv", str(csv), "--output", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Page]:
    """A run on a CSV file, and its report."""
    folder = tmp_path_factory.mktemp("own")
    run = _own_run(folder, "model.heads=2")
    return run, folder / "own.html", report(run, folder / "own.html")


def _forecasts(run: Path) -> tuple[np.ndarray, Callable[[int, int], tuple[np.ndarray, np.ndarray]]]:
    """Standardised values of the run's CSV, and what gives quantiles [W C, H, Q] and truth [W C, H] of windows: from
    the checkpoint alone.
    """
    values = pd.read_csv(run.parent / "own.csv").iloc[:, 1:].to_numpy()
    values = (values - values[:105].mean(axis=0)) / values[:105].std(axis=0)  # 70 % of 150 rows
    network = network_of(run)

    def windows(begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        first = range(begin, end - H + 1)
        past = np.concatenate([values[row - L : row].T for row in first])
        return quantiles_of(network, past), np.concatenate([values[row : row + H].T for row in first])

    return values, windows


# numbers --------------------------------------------------------------------------------------------------------------


def test_the_models_numbers_are_those_of_the_run(finished: Path, page: tuple[Path, Page]) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    _, found = page
    assert found.scores("model") == [f"{metrics['test_mse']:.4f}", f"{metrics['test_mae']:.4f}"]
    assert np.mean(found.line("horizon", "0", "model")) == pytest.approx(metrics["test_mse"], rel=1e-4)
    assert np.mean(found.plots["channels"]["views"]["1"]["x"][0]) == pytest.approx(metrics["test_mae"], rel=1e-4)
    assert "have changed since" not in found.text
    by_epoch = found.line("training", "", "validation MSE")
    assert by_epoch[metrics["best_epoch"] - 1] == pytest.approx(metrics["val_mse"], rel=1e-4)


def test_the_naive_numbers_are_those_of_a_loop(own: tuple[Path, Path, Page]) -> None:
    """The season of a day is a week; the windows are those of the model."""
    run, _, found = own
    values, _ = _forecasts(run)
    errors: dict[int, list[float]] = {1: [], 7: []}
    for first in range(120, 150 - H + 1):
        for season, kept in errors.items():
            for step in range(H):
                past = first - season + step % season
                kept.append(float(np.mean((values[past] - values[first + step]) ** 2)))
    assert found.score("MSE", "last value") == f"{np.mean(errors[1]):.4f}"
    assert found.score("MSE", "seasonal naive") == f"{np.mean(errors[7]):.4f}"
    by_step = np.array(errors[7]).reshape(-1, H).mean(axis=0)
    np.testing.assert_allclose(found.line("horizon", "0", "seasonal naive"), by_step, rtol=1e-4)
    assert "same 23 test windows" in found.text and "Season of 7 rows, guessed from freq 'D'" in found.text


def test_coverage_is_measured_on_test_with_margins_of_validation(own: tuple[Path, Path, Page]) -> None:
    """8 validation windows of 2 channels: for 80 % the third greatest score of each step, for 95 % they are too few,
    and all 128 count together.
    """
    run, _, found = own
    _, windows = _forecasts(run)
    known, truth = windows(105, 120)
    margins = {level: margins_of(known, truth, level) for level in (50, 80, 90, 95)}
    assert np.ptp(margins[80]) > 0 and np.ptp(margins[95]) == 0
    forecast, truth = windows(120, 150)
    moved = intervals_of(forecast, margins)
    for level in (80, 95):
        low, high = np.moveaxis(moved[level], -1, 0)
        inside = (low <= truth) & (truth <= high)
        least = f"{100 * min(inside[::2].mean(), inside[1::2].mean()):.1f} % ("
        _, measured, lowest, width = found.row(f"{level} %")
        assert measured.split(",")[0] == f"{100 * inside.mean():.1f} %"
        assert lowest.startswith(least) and float(width) == pytest.approx((high - low).mean(), rel=1e-3)
        assert measured.endswith(", too wide") and (1 - inside.mean()) < (1 - level / 100) / 2
    assert "At 95 % there are too few errors per step, so all steps have the same margin." in found.words


def test_forecasts_are_in_the_units_of_the_series(own: tuple[Path, Path, Page]) -> None:
    run, _, found = own
    table = pd.read_csv(run.parent / "own.csv")
    record = found.plots["forecast"]
    assert record["arrays"][0] == table["date"][120 - L : 120].tolist()
    np.testing.assert_allclose(found.line("forecast", "0,0", "history"), table[EVIL][120 - L : 120], rtol=1e-4)
    np.testing.assert_allclose(found.line("forecast", "0,0", "truth")[1:], table[EVIL][120 : 120 + H], rtol=1e-4)
    _, windows = _forecasts(run)
    scale, mean = table[EVIL][:105].std(ddof=0), table[EVIL][:105].mean()
    expected = windows(120, 150)[0][0, :, MIDDLE] * scale + mean
    np.testing.assert_allclose(found.line("forecast", "0,0", "forecast")[1:], expected, rtol=1e-4)


def test_a_random_walk_is_compared_with_its_last_value(tmp_path: Path) -> None:
    """Rates of exchange that move three times as much in the test split, with holidays and gaps: nothing on the page
    flatters the model, whose intervals of one width are too narrow there, and missing values count nowhere.
    """
    random = np.random.default_rng(0).standard_normal((400, 2)) * np.where(np.arange(400) < 320, 1, 3)[:, None]
    rates = pd.DataFrame(1 + 0.004 * random.cumsum(axis=0), columns=["CHF", "GBP"])
    rates.insert(0, "date", pd.bdate_range("2010-01-04", periods=400))
    rates.loc[40::7, "CHF"] = np.nan
    run = _own_run(tmp_path, "--output-type", "huber", frame=rates.drop(index=[100, 101, 200, 330, 360]))
    found = report(run, tmp_path / "own.html")
    text, source = found.words, (tmp_path / "own.html").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    assert found.scores("model") == [f"{metrics[name]:.4f}" for name in ("test_mse", "test_mae")]
    assert f"{2 * 5 + len(range(40, 400, 7))} of 800 values, which count nowhere" in text
    assert None in found.line("forecast", "0,0", "history") and None not in found.line("forecast", "0,0", "forecast")
    rows = {name: [float(x) for x in found.scores(name)] for name in ("model", "last value", "seasonal naive")}
    assert found.row("metric")[1:] == ["model", "last value (better on validation)", "seasonal naive", "Δ last value"]
    assert "Season of 5 rows" in text
    said = re.search(r"the last value, MSE is (.*) % higher and MAE is (.*) % higher. Against the seasonal", text)
    changes = [100 * (own / other - 1) for own, other in zip(rows["model"], rows["last value"], strict=True)]
    assert said is not None and [float(x) for x in said.groups()] == pytest.approx(changes, abs=0.1)
    assert "vs last value" in text and "MSE, the model is worse" in text
    assert [trace["name"] for trace in found.plots["channels"]["traces"]] == ["model", "last value"]
    for level in (80, 95):
        coverage, words = found.row(f"{level} %")[1].split(" %, ")
        assert float(coverage) < level and words == "too narrow"
    assert source.count('class="tile bad"') == 3 and source.count('<td class="bad">') == 2


def test_a_given_season_and_one_that_does_not_fit(own: tuple[Path, Path, Page], tmp_path: Path) -> None:
    run, _, _ = own
    assert "Season of 3 rows, as asked" in report(run, tmp_path / "a.html", "--season", "3").text
    without = report(run, tmp_path / "b.html", "--season", "106")
    assert "No seasonal naive: a season has 106 rows, as asked, and 105 come before" in without.text
    assert without.row("metric")[1:] == ["model", "last value", "Δ last value"]
    assert [trace["name"] for trace in without.plots["horizon"]["traces"]] == ["model", "last value"]


def test_forecasts_held_few_at_a_time_are_the_same(
    own: tuple[Path, Path, Page], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titans_seq.forecast.scoring.HELD", 5 * 2 * H)
    run, _, whole = own
    found = report(run, tmp_path / "r.html")
    for name in ("MSE", "MAE", "MASE", "sMAPE", "CRPS", "80 %", "95 %"):
        assert found.row(name) == whole.row(name)
    np.testing.assert_allclose(found.line("forecast", "5,1", "forecast"), whole.line("forecast", "5,1", "forecast"))


def test_changed_data_are_noticed(own: tuple[Path, Path, Page], tmp_path: Path) -> None:
    run = Path(shutil.copytree(own[0], tmp_path / "run"))
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"test_mse": 123.0}))
    assert "metrics.json has test MSE 123.0000" in report(run, tmp_path / "r.html").text


# the page -------------------------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing(page: tuple[Path, Page], own: tuple[Path, Path, Page]) -> None:
    for path, found in (page, own[1:]):
        assert found.asked == ["data:,"]
        source = path.read_text(encoding="utf-8")
        assert "default-src 'none'" in source
        assert not {"iframe", "img", "object", "embed"} & set(found.tags)
        style = source[source.index("<style>") : source.index("</style>")]
        assert "url(" not in style and "@import" not in style
        assert path.stat().st_size < 8e6


def test_the_page_says_what_it_is_about(page: tuple[Path, Page]) -> None:
    text = page[1].words
    assert "embedded, horizon 96, memory" in text and "mixer memory · seed 0 · made 20" in text
    assert "8 of 16 channels can be chosen here; all count" in text
    assert "Against the seasonal naive, MSE is" in text and "all validation windows" in text
    assert "mixer: memory" in text and "torch 2." in text  # config.yaml, versions
    assert set(page[1].plots) == {"forecast", "horizon", "channels", "training", "surprise"}
    assert len([row for row in page[1].rows if len(row) == 4 and row[1].startswith("channel_")]) == 10


def test_names_are_text(own: tuple[Path, Path, Page]) -> None:
    """In the page, in the JSON of its plots, and in plotly's texts, which know tags of their own."""
    _, path, found = own
    assert EVIL in found.text and "visits & <b>views</b>" in found.text and "b" not in found.tags
    assert EVIL not in path.read_text(encoding="utf-8")
    assert found.tags.count("script") == 2 + len(found.plots)
    ticks = found.plots["channels"]["views"]["0"]["layout"]["yaxis"]["ticktext"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in ticks


def test_without_a_memory_there_is_no_surprise(tmp_path: Path) -> None:
    found = report(_own_run(tmp_path, "model=none"), tmp_path / "none.html")
    assert "surprise" not in found.plots and "The mixer none has no neural memory" in found.text


# files and errors -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_over(
    own: tuple[Path, Path, Page], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(own[0], tmp_path / "run"))
    assert main(["report", str(run)]) == 0
    out, err = capsys.readouterr()
    assert f"{run}/report.html" in out and "report: testing on 23 windows" in err
    first = (run / "report.html").read_bytes()
    assert main(["report", str(run / "checkpoints" / "best.ckpt"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert (run / "report-2.html").is_file() and (run / "report.html").read_bytes() == first
    assert [path.name for path in run.glob(".*")] == [".lock"]


def test_what_is_no_finished_run_is_refused(
    own: tuple[Path, Path, Page], workdir: Path, refused: Callable[[list[str]], str]
) -> None:
    from titans_seq.cli import report

    assert "no run folder" in refused(["report", "nowhere"])
    (workdir / "empty").mkdir()
    assert "is not a run folder" in refused(["report", "empty"])
    (workdir / "text").mkdir()
    (workdir / "text" / "config.yaml").write_text("task: lm\n")
    assert "a language model of text (titans-seq fit lm); this needs a forecaster" in refused(["report", "text"])
    run = Path(shutil.copytree(own[0], workdir / "run"))
    assert "is a folder; name a file, such as empty/report.html" in refused(["report", "run", "--output", "empty"])
    assert "/proc cannot be written to" in refused(["report", "run", "--output", "/proc/report.html"])
    for text, said in (
        ("{", "damaged: it holds no JSON"),
        ("{}", "not of a finished training: it has no test_mse"),
        *((other, "not of a finished training: it holds no metrics") for other in ("[1]", "3", "null")),
        ('{"test_mse": ' * 9999 + "1" + "}" * 9999, "damaged: its JSON is nested too deeply"),
    ):
        (run / "metrics.json").write_text(text)
        assert f"metrics.json is {said}" in refused(["report", "run"])
    whole = json.loads((own[0] / "metrics.json").read_text())
    needed = report.NEEDED
    for name in needed:
        for value in ("1", None, True, [1], {}, math.nan, -math.inf, 10**400):
            (run / "metrics.json").write_text(json.dumps(whole | {name: value}))
            with pytest.raises(UsageError, match=f"{name} must be a finite number; got"):
                read_metrics(run / "metrics.json", needed)
    assert f"{needed[-1]} must be a finite number; got 1000" in refused(["report", "run"])
    (run / "metrics.json").unlink()
    assert "run is not finished: it has no metrics.json; go on with: titans-seq fit" in refused(["report", "run"])


def test_without_plotly_it_says_what_to_install(
    finished: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[[list[str]], str]
) -> None:
    for name in list(sys.modules):
        if name.startswith(("plotly", "titans_seq.forecast.report", "titans_seq.cli.report")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert "pip install 'titans-seq[report]'" in refused(["report", str(finished)])


# in a browser ---------------------------------------------------------------------------------------------------------

# no sandbox for the root user of a container; nothing that would ask for the network by itself
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def browser() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None:
        why = "no chromium here: `make browser` installs Debian's"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield found
        found.close()


def _opened(browser: Any, path: Path, complaints: list[str], **options: Any) -> Any:
    """The page, drawn; what it complains of and what it asks for is added to the list."""
    tab = browser.new_page(**options)
    tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    tab.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    tab.on("request", lambda request: complaints.append(f"request: {request.url[:200]}"))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]", timeout=60_000)
    complaints.remove(f"request: {path.as_uri()}")
    return tab


# how many lines and bars each plot has, of those with something to show
_DRAWN = """() => Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) => [
  plot.id,
  [plot.querySelectorAll(".main-svg").length, plot.querySelectorAll("path.js-line, .bars .point path").length],
]))"""
# right edge of the page and of the tables in it
_WIDEST = """() => Math.max(document.documentElement.scrollWidth,
  ...[...document.querySelectorAll("table, .canvas")].map((part) => part.getBoundingClientRect().right))"""
_TRUTH = """() => document.querySelector("#forecast .canvas")._fullData.find((trace) => trace.name === "truth").y"""


def test_a_browser_draws_it_without_a_complaint(
    browser: Any, page: tuple[Path, Page], own: tuple[Path, Path, Page]
) -> None:
    complaints: list[str] = []
    tab = _opened(browser, page[0], complaints, viewport={"width": 1280, "height": 900})
    drawn = tab.evaluate(_DRAWN)
    assert set(drawn) == set(page[1].plots)
    least = {"forecast": 3, "horizon": 3, "channels": 32, "training": 3, "surprise": 2}
    assert all(svgs and lines >= least[name] for name, (svgs, lines) in drawn.items()), drawn

    shown = tab.evaluate(_TRUTH)
    before = tab.locator("#forecast .canvas").inner_html()
    tab.get_by_label("Channel").first.select_option("channel_03")
    tab.wait_for_function("before => document.querySelector('#forecast .canvas').innerHTML !== before", arg=before)
    assert tab.evaluate(_TRUTH) == page[1].line("forecast", "0,3", "truth") != shown
    tab.locator("summary").click()
    assert tab.get_by_text("mixer: memory", exact=False).last.is_visible()

    folder = Path(os.environ.get("CI_OUTPUT", ROOT / "build"))
    folder.mkdir(parents=True, exist_ok=True)
    tab.locator("summary").click()
    tab.screenshot(path=folder / "report.png", full_page=True)

    narrow = _opened(browser, own[1], complaints, viewport={"width": 360, "height": 800}, color_scheme="dark")
    assert narrow.evaluate(_WIDEST) <= 360
    assert EVIL in narrow.locator("#channels .ytick text").all_text_contents()
    assert complaints == []
