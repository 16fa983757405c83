"""Variants from every format, and the check of their reference alleles."""

import csv
import gzip
import os
from pathlib import Path

import pytest

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.variants import Variant, read_variants

#          1234567890    1234567
RECORDS = {"1": "ACGTTGCAac", "2": "gRNTUCC"}


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "some.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in RECORDS.items()))
    return Genome(path)


@pytest.fixture
def read(tmp_path, genome):
    """Read what is written: fields of a row are given with blanks between."""

    def reader(text, name="some.csv", newline="\n"):
        mark = "," if ".csv" in name else "\t"
        content = newline.join([mark.join(line.split(" ")) for line in text.split("\n")] + [""]).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        return read_variants(path, genome)

    return reader


VCF = """##fileformat=VCFv4.2
#CHROM POS ID REF ALT QUAL FILTER INFO
1 1 rs1 A C . . .
1 4 . tt T,ttG,<DEL>,* 3 PASS x

2 1 rs2;rs3 G T
2 5 . T G[1:3[,A,.
2 2 . N <INS>"""


@pytest.mark.parametrize("name", ["some.vcf", "some.vcf.gz", "some.vcf.bgz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_vcf(read, name, newline):
    variants = read(VCF, name, newline)
    assert variants.rows == (
        Variant("1", 0, "A", "C", "rs1", 3),
        Variant("1", 3, "TT", "T", "", 4),
        Variant("1", 3, "TT", "TTG", "", 4),
        Variant("2", 0, "G", "T", "rs2;rs3", 6),
        Variant("2", 4, "T", "A", "", 7),
    )
    assert variants.skipped == 5


@pytest.mark.parametrize("name", ["some.csv", "some.tsv", "some.csv.gz", "some.tsv.gz"])
@pytest.mark.parametrize(
    ("header", "shift"),
    [("Chrom Pos REF alt ID", 0), ("#record position ref alt id", 0), ("chrom position0 ref alt id", -1)],
)
def test_tables(read, name, header, shift):
    rows = [("1", 10, "c", "CA", "end"), ("2", 6, "C", "g", "")]
    text = "\n".join([header, *(f"{r} {p + shift} {ref} {alt} {i}" for r, p, ref, alt, i in rows)])
    assert read(text, name).rows == (Variant("1", 9, "C", "CA", "end", 2), Variant("2", 5, "C", "G", "", 3))


def test_columns_may_stand_anywhere_and_others_are_left_out(read):
    variants = read("alt score pos ref chrom\nG 0.5 3 g 1\nC 0.5 3 G 1".replace("G 0.5 3 g", "A 0.5 3 g"))
    assert [(v.position, v.ref, v.alt, v.id, v.row) for v in variants.rows] == [
        (2, "G", "A", "", 2),
        (2, "G", "C", "", 3),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1 1 A C", "no record chr1 .*did you mean 1?"),
        ("1 0 A C", "position '0' must be a whole number of at least 1"),
        ("1 1.0 A C", "position '1.0' must be a whole number"),
        ("1 -3 A C", "position '-3' must be a whole number"),
        ("1 11 A C", "A at position 11 .from 1. ends past record 1 .*, which has 10 bases"),
        ("1 10 CA C", "CA at position 10 .from 1. ends past record 1"),
        ("1 1 N C", "the reference allele is 'N'; it must be one or more of A, C, G, T"),
        ("2 2 R C", "the reference allele is 'R'"),
        ("1 1 A N", "the alternative allele is 'N'"),
        ("1 1 A -", "the alternative allele is '-'.*with the base before"),
        ("1 1  C", "the reference allele is ''"),
        ("1 1 a A", "A is both the reference and the alternative allele"),
        ("2 3 T C", "the reference allele is T, but .*some.fa has N at 2, position 3"),
        ("2 2 G C", "the reference allele is G, but .*some.fa has R at 2, position 2"),
    ],
)
@pytest.mark.parametrize("name", ["some.csv", "some.vcf"])
def test_what_is_wrong_with_a_line(read, name, line, message):
    text = f"chrom pos ref alt\n1 2 C A\n{line}"
    if name == "some.vcf":
        record, position, ref, alt = line.split(" ")
        text = f"#\n1 2 . C A\n{record} {position} . {ref} {alt}"
    with pytest.raises(DataError, match=f"{name}: line 3: .*{message}") as error:
        read(text, name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "some.csv", "no column record or chrom; the header is empty"),
        ("chrom ref alt", "some.csv", "no column position or pos or position0; the header is chrom, ref, alt"),
        ("chrom pos alt", "some.csv", "no column ref"),
        ("chrom pos position0 ref alt", "some.csv", "columns pos and position0 say the same"),
        ("chrom pos ref alt\n1 1 A", "some.csv", "line 2 has 3 fields, the header 4"),
        ("1 1 . A", "some.vcf", "line 1 has 4 fields; VCF has at least 5"),
        ("chrom pos ref alt", "some.csv", "holds no variants"),
        ("#CHROM", "some.vcf", "holds no variants"),
        ("1 1 . A *,<DEL>", "some.vcf", "holds no variants but 2 alleles that spell no bases"),
        ("", "some.txt", "must be one of .vcf, .csv, .tsv"),
    ],
)
def test_what_is_wrong_with_a_file(read, text, name, message):
    with pytest.raises(DataError, match=message):
        read(text, name)


def table(record, positions, letters):
    return "\n".join(
        ["chrom pos ref alt", *(f"{record} {p} {ref} {ref}A" for p, ref in zip(positions, letters, strict=True))]
    )


def test_a_shift_by_one_is_told_from_another_assembly(read):
    text = RECORDS["1"].upper()
    assert len(read(table("1", range(1, 11), text)).rows) == 10
    with pytest.raises(
        DataError, match="line 2: the reference allele is C.*one base later 9 of 9 would match.*position0 from 0"
    ):
        read(table("1", range(1, 10), text[1:]))
    with pytest.raises(DataError, match="line 2: .*one base earlier 9 of 9 would match"):
        read(table("1", range(2, 11), text[:-1]))
    # one slip among many, though a neighbour has that base
    with pytest.raises(
        DataError, match="line 3: the reference allele is G.* has C at 1, position 2 .*; 9 of 10 match: is the"
    ):
        read(table("1", range(1, 11), text[0] + "G" + text[2:]))
    with pytest.raises(
        DataError, match=r"2 of 10 match: is the FASTA of another assembly, or the alleles of the other strand"
    ):
        read(table("1", range(1, 11), "AAAAAAAAAA".replace("A", "T")))


BRCA1 = Path(os.environ.get("TITANS_SEQ_DATA", "none")) / "dna" / "brca1_vep"


@pytest.mark.data
@pytest.mark.skipif(not BRCA1.is_dir(), reason="no dna/brca1_vep in $TITANS_SEQ_DATA")
def test_all_reference_alleles_of_brca1_match(tmp_path):
    path = tmp_path / "brca1.fa"
    path.write_bytes(gzip.decompress((BRCA1 / "NG_005905.2.fa.gz").read_bytes()))
    genome = Genome(path)
    with gzip.open(BRCA1 / "findlay2018_sge.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))

    def write(name, column):
        lines = [f"{genome.names[0]},{row['ng_index']},{row['ng_ref']},{row['ng_alt']}" for row in rows]
        (tmp_path / name).write_text("\n".join([f"record,{column},ref,alt", *lines]))
        return tmp_path / name

    variants = read_variants(write("right.csv", "position0"), genome)
    assert (len(variants.rows), variants.skipped) == (3893, 0)
    with pytest.raises(DataError, match="one base later 3893 of 3893 would match"):
        read_variants(write("wrong.csv", "position"), genome)
