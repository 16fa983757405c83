"""A folder of Parquet files as panels of whole series: sorted once on disk, one part of it in memory at a time.

R rows of all series, N series.
"""

import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import safetensors
from jaxtyping import Int
from rich.progress import track
from safetensors.numpy import load_file, save_file

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.forecast.calendar import Step
from titans_seq.datamodules.forecast.panel import Columns, Panel, named, pack_panel, unpack_panel
from titans_seq.datamodules.forecast.reading import read_frame, read_panel, require_columns

if TYPE_CHECKING:  # of the extra `large-data`
    import pyarrow as pa
    import pyarrow.dataset as ds

PART_ROWS = 1_000_000  # of a part; a longer series is one by itself
BATCH_ROWS = 2**17  # read at once
MOST_PARTS = 500  # as many files are open while rows are dealt; beyond 500 million rows parts grow
BUFFERED_ROWS = 500_000  # of all parts being written, at most
PART = "part of the sorted rows"  # a column of our own


class Parts(Sequence[Panel]):
    """Panels of whole series in files, each read when it is asked for.

    Args:
        files: as `sort_parquet` wrote them. columns: names of the rows. dropped: last rows of each series that are left
            out.
    """

    def __init__(self, files: Sequence[Path], columns: Columns, dropped: int = 0) -> None:
        self.files, self.columns, self.dropped = list(files), columns, dropped

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Panel:  # type: ignore[override]  # nobody asks for slices
        path = self.files[place]
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["panel"])
        panel = unpack_panel(about, load_file(path), self.columns)
        return panel.until(self.dropped) if self.dropped else panel

    def until(self, steps: int) -> "Parts":
        """The panels without the last `steps` rows of each series."""
        return Parts(self.files, self.columns, self.dropped + steps)


@contextmanager
def opened_panels(
    data: pd.DataFrame | pd.Series | str | Path,
    columns: Columns,
    step: Step | None,
    *,
    day_first: bool | None = None,
    progress: bool = False,
) -> Iterator[Sequence[Panel]]:
    """The panel of a frame, or the panels of Parquet files, which are sorted into the folder for temporary files."""
    if not isinstance(data, str | Path):
        yield [read_frame(data, columns, step, day_first)]
        return
    if not str(data) or "://" in str(data):
        raise DataError(f"{str(data)!r} is not a path to Parquet files on this machine")
    with tempfile.TemporaryDirectory(prefix="titans-seq-") as folder:
        yield sort_parquet(user_path(data), columns, step, Path(folder), day_first=day_first, progress=progress)


def sort_parquet(
    path: Path,
    columns: Columns,
    freq: Step | str | None,
    folder: Path,
    *,
    part_rows: int | None = None,
    day_first: bool | None = None,
    progress: bool = False,
) -> Parts:
    """Deal the rows of Parquet files, in any order, to parts of whole series drawn by chance, and check them as frames
    are checked.

    Memory grows with the number of series and with the larger of `part_rows` and the longest series; the folder takes
    twice the space of the rows.

    Args:
        path: a file, or a folder of files that have the same columns; names of folders such as `unique_id=a` count as
            columns.
        columns: what to read; where the files lack an id column of the default name, they hold one series.
        freq: as of `read_panel`, found in the longest series if None.
        folder: an empty one, to keep.
        part_rows: how many rows a part has, a million if None, but at least a 500th of all.
        day_first: as of `read_frame`.
        progress: whether to draw bars.

    Raises:
        DataError: no such path, no Parquet, or what `read_panel` refuses; the message names series and time.
    """
    dataset = _dataset(path, columns)
    columns = named(columns, dataset.schema.names)
    with _told(path, folder):
        rows = _count(dataset, columns, path)
        if not len(rows):
            raise DataError(f"{path} has no rows")
        place = _places(rows.to_numpy(), PART_ROWS if part_rows is None else part_rows)
        _deal(dataset, columns, rows.index, place, folder, progress)
        parts = int(place.max()) + 1
        files = [folder / f"{i}.safetensors" for i in range(parts)]
        longest = int(place[rows.to_numpy().argmax()])  # tells the frequency of all
        order = [longest, *(i for i in range(parts) if i != longest)]
        for i in track(order, "checking series", disable=not progress):
            freq = _check(folder / f"{PART}={i}", columns, freq, files[i], path, day_first)
    return Parts(files, columns)


@contextmanager
def _told(path: Path, folder: Path) -> Iterator[None]:
    """Arrow's errors, and those of a full disk, in one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be sorted in {folder.parent}: {str(error).splitlines()[0]}") from None


def read_parquet(path: Path, text: Collection[str]) -> pd.DataFrame:
    """All rows and columns of a file or a folder; names of folders such as `unique_id=a` count as columns.

    Args:
        path: of the files.
        text: names of folders that are none of numbers.

    Raises:
        DataError: no such path, or no Parquet.
    """
    with _unreadable(path):
        folders = _folders(path, text)
        table = _with_folders(path, folders, None).to_table()
        frame: pd.DataFrame = table.to_pandas()
    named = isinstance(frame.index, pd.DatetimeIndex) or frame.index.names != [None]
    return frame.reset_index() if named else frame


def _dataset(path: Path, columns: Columns) -> "ds.Dataset":
    """The files with the wanted columns, which all must have, and types that hold those of all."""
    with _unreadable(path):
        folders = _folders(path, () if columns.id is None else (columns.id,))
        return _with_folders(path, folders, _schema(_with_folders(path, folders, None), columns, folders))


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """What pyarrow raises where it is absent, or where a path holds no Parquet, in one line."""
    try:
        import pyarrow as pa
    except ImportError:
        raise DataError("Parquet is read by pyarrow: pip install 'titans-seq[large-data]'") from None
    if not path.exists():
        raise DataError(f"no file or folder {path}; give a DataFrame, or Parquet files")
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _folders(path: Path, text: Collection[str]) -> "pa.Schema":
    """Columns that are names of folders; "01" is a name and no number in those that are `text`."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    dataset = ds.dataset(path, format="parquet", partitioning="hive")
    if not dataset.files:
        raise DataError(f"{path} holds no Parquet file")
    keys = ds.get_partition_keys(next(dataset.get_fragments()).partition_expression)
    return pa.schema([pa.field(name, pa.string()) if name in text else dataset.schema.field(name) for name in keys])


def _with_folders(path: Path, folders: "pa.Schema", schema: "pa.Schema | None") -> "ds.Dataset":
    import pyarrow.dataset as ds

    return ds.dataset(path, schema, format="parquet", partitioning=ds.partitioning(folders, flavor="hive"))


def _schema(dataset: "ds.Dataset", columns: Columns, folders: "pa.Schema") -> "pa.Schema":
    import pyarrow as pa

    known: dict[str, tuple[pa.Field, str]] = {field.name: (field, "the names of folders") for field in folders}
    for fragment in dataset.get_fragments():
        found = fragment.physical_schema
        columns = named(columns, [*found.names, *folders.names])
        both = [name for name in columns.names if name in found.names and name in folders.names]
        if both:
            raise DataError(
                f"{fragment.path}: {both[0]!r} is a column of the file and a name of its folders; one must go"
            )
        require_columns(pd.Index([*found.names, *folders.names]), columns.names, fragment.path)
        for name in columns.names:
            if name in found.names:
                field, before = pa.field(name, _plain_type(found.field(name).type)), known.get(name)
                known[name] = (field if before is None else _common(before, field, fragment.path), fragment.path)
    return pa.schema([known[name][0] for name in columns.names])


def _plain_type(kind: "pa.DataType") -> "pa.DataType":
    """Text is text, however it is kept."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _common(before: "tuple[pa.Field, str]", field: "pa.Field", file: str) -> "pa.Field":
    import pyarrow as pa

    try:
        both = pa.unify_schemas([pa.schema([before[0]]), pa.schema([field])], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        raise DataError(
            f"column {field.name!r} is {before[0].type} in {before[1]} and {field.type} in {file}"
        ) from None
    return both.field(field.name)


def _count(dataset: "ds.Dataset", columns: Columns, path: Path) -> "pd.Series[int]":
    """Rows of every series, by their names in order."""
    if columns.id is None:
        count = dataset.count_rows()
        return pd.Series([count] if count else [], index=pd.Index([columns.target] if count else []), dtype=np.int64)
    from pyarrow import acero

    scan = acero.ScanNodeOptions(dataset, columns=[columns.id])
    count = acero.AggregateNodeOptions([([], "hash_count_all", None, "rows")], keys=[columns.id])
    steps = [acero.Declaration("scan", scan), acero.Declaration("aggregate", count)]
    table = acero.Declaration.from_sequence(steps).to_table().to_pandas()
    if table[columns.id].isna().any():
        raise DataError(f"{path}: column {columns.id!r} is empty in some row")
    return table.set_index(columns.id)["rows"].sort_index()


def _places(rows: Int[np.ndarray, " N"], part_rows: int) -> Int[np.ndarray, " N"]:
    """The part of every series: drawn by chance, so that each part is a sample of all, and of the same size but for
    long series.
    """
    order = np.random.default_rng(0).permutation(len(rows))
    middle = np.cumsum(rows[order]) - rows[order] / 2
    parts = min(-(-rows.sum() // part_rows), MOST_PARTS)
    place = np.empty(len(rows), dtype=np.int32)
    # a series longer than a part leaves numbers out
    place[order] = np.unique(np.floor(middle * parts / rows.sum()), return_inverse=True)[1]
    return place


def _deal(
    dataset: "ds.Dataset",
    columns: Columns,
    ids: pd.Index,
    place: Int[np.ndarray, " N"],
    folder: Path,
    progress: bool,
) -> None:
    """Write each row to the folder of its series' part."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    scanner = dataset.scanner(columns=columns.names, batch_size=BATCH_ROWS, batch_readahead=4, fragment_readahead=1)
    total = -(-dataset.count_rows() // BATCH_ROWS)
    schema = scanner.projected_schema.append(pa.field(PART, pa.int32()))
    known = None if columns.id is None else pa.array(ids).cast(schema.field(columns.id).type)
    parts, stopped = int(place.max()) + 1, Event()

    def dealt() -> "Iterator[pa.RecordBatch]":
        for batch in track(scanner.to_batches(), "sorting rows", total, disable=not progress):
            if stopped.is_set():
                return
            found = np.zeros(batch.num_rows, dtype=np.int32)
            if known is not None:
                found = place[pc.index_in(batch.column(columns.id), value_set=known).to_numpy()]
            yield pa.RecordBatch.from_arrays([*batch.columns, pa.array(found)], schema=schema)

    def write() -> None:
        ds.write_dataset(
            dealt(), folder, format="feather", schema=schema, partitioning=[PART], partitioning_flavor="hive",
            max_partitions=parts, max_open_files=parts + 1, min_rows_per_group=min(BUFFERED_ROWS // parts, BATCH_ROWS),
            max_rows_per_group=max(BUFFERED_ROWS // parts, BATCH_ROWS),
        )  # fmt: skip

    # in a thread of its own: Arrow would not hear Ctrl-C until all is written
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write)
        try:
            done.result()
        finally:
            stopped.set()


def _check(
    rows: Path, columns: Columns, freq: Step | str | None, file: Path, path: Path, day_first: bool | None
) -> Step:
    """Make a panel of a part's rows, in the order of the series' names, and write it in their place; its frequency."""
    import pyarrow.dataset as ds

    frame = ds.dataset(rows, format="feather").to_table().to_pandas()
    try:
        # rows are numbered as they were sorted, which says nothing to anyone
        panel = read_panel(frame, columns, freq, where=lambda *_: "", day_first=day_first)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    panel = panel.take(panel.ids.argsort())
    about, arrays = pack_panel(panel)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, {"panel": json.dumps(about)})
    shutil.rmtree(rows)
    return panel.freq
