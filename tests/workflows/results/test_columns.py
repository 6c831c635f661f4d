"""A column is declared once, and every view shows it."""

from dataclasses import replace

import pytest

from tests.workflows.report import made_up
from workflows.errors import ConfigError
from workflows.report import page, plain
from workflows.report.contents import read_contents
from workflows.results import columns as declared
from workflows.results.columns import COLUMNS, ON_REQUEST, Column, asked_columns, columns, metrics
from workflows.results.document import flat_row, row
from workflows.results.table import table

ANSWER = Column("answer", "the answer", "the_answer", lambda *_: 42, str, lambda v: f"{v[0]} of {len(v)}")


def test_one_declaration_adds_a_column_to_every_view(monkeypatch, tmp_path):
    found = made_up.results()
    for place in (declared, page, plain):
        monkeypatch.setattr(place, "COLUMNS", (*COLUMNS, ANSWER))
    contents = read_contents(*made_up.record_of(tmp_path))
    assert "<th>the answer</th>" in page.page(contents)
    assert "<td>42 of 2</td>" in page.page(contents)
    assert "| the answer |" in plain.markdown(contents)
    assert "| 42 of 2 |" in plain.markdown(contents)
    assert row(found[0])["the_answer"] == 42
    assert flat_row(found[0])["the_answer"] == 42
    monkeypatch.setattr(declared, "COLUMNS", (replace(ANSWER, over=max, tracked=True),))
    assert metrics(found[:1]) == {"the_answer": 42.0}
    assert "the answer" in table(found, [ANSWER])
    assert "42 of 1" in table(found, [ANSWER])


def test_a_column_that_is_asked_for_and_there_already_is_shown_once():
    found = [(result, replace(detail, dtype="bfloat16")) for result, detail in made_up.results()]
    assert table(found, columns(["dtype", "seconds"])) == table(found)
    assert "dtype" in table(found)


def test_the_calibration_error_is_shown_where_it_is_asked_for():
    found = made_up.results()
    shown = table(found, columns(["calibration-error"]))
    assert "calibration error" in shown
    assert "0.100" in shown
    assert "calibration error" not in table(found)
    assert metrics(found[:1])["calibration_error"] == 0.1


def test_columns_are_asked_for_with_commas_between():
    assert [column.name for column in asked_columns("peak, seeds")] == ["peak", "seeds"]


def test_an_unknown_column_is_named_with_all_there_are():
    with pytest.raises(ConfigError, match=r"--columns: no column 'calibration'; known: encode, .*, calibration-error$"):
        asked_columns("seconds,calibration")


def test_the_option_lists_every_column_that_the_table_lacks():
    from workflows.cli.options import Columns

    told = Columns.__metadata__[0].help
    assert told.endswith(f": {', '.join(ON_REQUEST)}.")
    assert "calibration-error" in ON_REQUEST
    assert "seconds" not in ON_REQUEST
