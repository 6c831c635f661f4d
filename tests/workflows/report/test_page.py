"""The HTML page: it parses, needs no network, says what the results say, and shows nothing by colour alone."""

from __future__ import annotations

import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.workflows.report.made_up import MODELS, TASKS, averaged, found, record_of, results
from workflows.report import charts
from workflows.report.contents import Contents, read_contents
from workflows.report.page import mixed_up, page
from workflows.results.verdicts import judged

_VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects tags that do not match, every attribute, and the cells of each table by its class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in _VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("class") or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open) and self._rows and self._rows[-1]:
            self._rows[-1][-1] += data


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return read_contents(*record_of(tmp_path))


def words(cell: str) -> str:
    return " ".join(cell.split())


def test_every_tag_is_closed_and_every_picture_is_xml(contents: Contents) -> None:
    from xml.etree import ElementTree

    text = page(contents)
    parsed = Page(text)
    assert parsed.wrong == parsed.open == []
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 4 + 4 + 6 + 2  # leads, costs, learning curves with one of means a model, model sizes
    for picture in pictures:
        ElementTree.fromstring(picture)


@pytest.mark.parametrize("methods", [2, 40])
def test_points_of_many_methods_stay_near_their_training_size(methods: int, tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(methods)]
    lines = [found(method=name, size=size) for name in names for size in (4, 16, "full")]
    blocks = read_contents(*record_of(tmp_path, judged(lines))).at_sizes("small")
    picture = charts.learning(blocks, "topics", {name: number for number, name in enumerate(names)})
    scale = charts.Scale([0.0, 2.0], charts.LEFT, charts.WIDTH - charts.RIGHT)
    ticks = [scale(0.0), scale(1.0), scale(2.0)]
    intervals = r'<line x1="([\d.]+)" y1="[\d.]+" x2="\1" y2="[\d.]+" stroke="(?!#bbb)[^"]+" stroke-width="0.7"'
    places = [float(at) for at in re.findall(intervals, picture)]
    assert len(places) == 3 * methods
    assert max(min(abs(at - tick) for tick in ticks) for at in places) <= (ticks[1] - ticks[0]) / 6


def test_it_needs_no_network_and_runs_no_script(contents: Contents) -> None:
    text = page(contents)
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text  # that of the workflow file is escaped
    assert "&lt;script&gt;" in text
    assert not [pair for pair in Page(text).attributes if pair[0] in ("src", "href", "srcset", "onload")]


def test_its_numbers_are_those_of_the_results(contents: Contents) -> None:
    rows = Page(page(contents)).tables["scores"]
    for model in MODELS:
        start = list(MODELS).index(model) * 4
        head, *lines = rows[start : start + 4]
        assert [words(cell) for cell in head] == ["method", "mean", "seconds", *TASKS, "mean lead", "remarks"]
        for method, line in zip(("knn_50%", "calibration", "zero-shot"), lines, strict=True):
            assert words(line[0]) == method
            for task, cell in zip(TASKS, line[3:], strict=False):
                result, _ = found(model, task, method)
                sign = {"zero-shot": "○ ", "calibration": "", "knn_50%": "▲ "}[method]
                assert words(cell) == f"{result.mean:.3f} {sign}{result.low:.3f} to {result.high:.3f}"
            mean, low, high = averaged(model, method)
            assert words(line[1]) == f"{mean:.3f} {low:.3f} to {high:.3f}"
            assert words(line[2]) == ("14.0" if method == "zero-shot" else "22.2")
        assert words(lines[1][5]) == ""
        assert words(lines[0][5]).startswith("+0.070 ")
    assert "one class predicted throughout: topics" in words(rows[3][-1])


def test_the_headline_names_the_best_its_leads_and_the_cheapest_that_is_not_shown_to_be_worse(
    contents: Contents,
) -> None:
    small, large, answer, *others, comparisons = contents.headline()
    assert answer == (
        "topics with model small: knn_50% has the highest accuracy: 0.640 in 22.2 s. "
        "Its lead over the next, calibration (0.570 in 22.2 s), is shown: +0.070 (+0.050 to +0.090, p 0.004). "
        "Its lead over the cheapest, zero-shot (0.500 in 14.0 s), is shown: +0.140 (+0.120 to +0.160, p 0.004). "
        "Every cheaper method is shown to be worse."
    )
    assert len(others) == 3
    mean, low, high = averaged("small", "knn_50%")
    assert small == (
        "knn_50% has the highest accuracy on average over 2 tasks with model small: "
        f"{mean:.3f} (95 % interval {low:.3f} to {high:.3f})."
    )
    assert "with model large" in large
    assert comparisons.startswith(
        "Of 8 comparisons with calibration, the other method is better in 4 and worse in 0; 4"
    )


def test_every_comparison_has_its_p_and_mcnemar_of_each_seed(contents: Contents) -> None:
    head, *rows = Page(page(contents)).tables["versus"]
    assert len(rows) == 8 + 4  # the best is tested against the reference only once
    assert words(head[0]) == "model / task / method"
    row = next(row for row in rows if words(row[0]) == "small / topics / knn_50%")
    assert [words(cell) for cell in row[1:]] == [
        "calibration",
        "+0.070",
        "+0.050 to +0.090",
        "<0.001",
        "0.004",
        "better",
        "20, 6, 0.009; 21, 6, 0.009",
    ]


def test_costs_are_means_over_tasks(contents: Contents) -> None:
    head, _, second, first, *_ = Page(page(contents)).tables["costs"]
    assert [words(cell) for cell in head[1:7]] == ["encode", "basis", "search", "fit seconds", "seconds", "cached"]
    assert [words(cell) for cell in first] == [
        "zero-shot",
        *["12.0", "1.5", "0.0", "0.5", "14.0", "0.5", "0", "300.0", "2.0", "0.0", "none", "none", "3", "0.100"],
    ]
    assert [words(cell) for cell in second[1:7]] == ["12.0", "1.5", "8.2", "0.5", "22.2", "8.8"]
    assert words(second[11]) == "8"


def test_what_ran_and_what_was_cached_is_counted(contents: Contents) -> None:
    rows = [[words(cell) for cell in row] for row in Page(page(contents)).tables["steps"]]
    assert rows[1:] == [["encode", "1", "0", "1"], ["score", "1", "1", "0"]]


def test_marks_of_methods_differ_by_more_than_colour() -> None:
    from workflows.report.svg import marker

    drawn = [re.sub(r"#[0-9a-f]{3,6}", "", marker(0, 0, number)) for number in range(7)]
    assert len(set(drawn)) == 7
    both = {marker(0, 0, number) for number in range(49)}
    assert len(both) == 49  # with colour, as many as one may compare


def test_labels_on_the_right_never_cover_each_other() -> None:
    from workflows.report.svg import HEIGHT, labels

    drawn = "".join(labels([(50.0, 200.0 + 0.1 * place, f"m{place}", place) for place in range(14)]))
    heights = sorted(float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.-]+)"', drawn))
    assert all(second - first >= 12.9 for first, second in itertools.pairwise(heights))
    assert heights[0] > 0
    assert heights[-1] < HEIGHT


def test_a_single_result_without_recorded_costs_makes_a_page(tmp_path: Path) -> None:
    result, detail = found()
    alone = dataclasses.replace(detail, versus=None, costs=dataclasses.replace(detail.costs, encode=None), confusion=[])
    text = page(read_contents(*record_of(tmp_path, judged([(result, alone)]))))
    parsed = Page(text)
    assert parsed.wrong == []
    assert "not recorded" in text
    assert "versus" not in parsed.tables
    assert "Learning curves" not in text


def test_a_label_that_is_too_long_for_its_place_is_cut_and_says_so() -> None:
    from workflows.report.svg import labels

    drawn = "".join(labels([(10.0, 50.0, "knn-prompting-demos", 0), (10.0, 90.0, "a-name-of-more-letters", 1)]))
    assert ">knn-prompting-demos<" in drawn
    assert ">a-name-of-more-lett…<" in drawn
    assert drawn.index("<circle") < drawn.index("knn-prompting-demos")  # its mark in the chart


def test_where_classes_are_many_the_most_frequent_mistakes_are_listed() -> None:
    _, detail = found()
    assert mixed_up(detail) == [("no", "yes", 20), ("yes", "no", 10)]


def test_all_results_of_a_run_are_read(contents: Contents) -> None:
    assert contents.results == results()
    assert contents.size == "full"
