"""Domains, what of them is refused, and the settings that a search tries."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any, Literal

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from workflows.config import space as module
from workflows.config.space import Domain, check_space, grid_settings, random_settings
from workflows.config.strict import Strict
from workflows.errors import ConfigError


class Plain(Strict):
    """Settings of a method that does not exist."""

    k: int = Field(5, ge=1)
    rate: float = Field(0.1, gt=0, lt=1)
    distance: Literal["cosine", "euclidean"] = "cosine"


FINITE = {"k": Domain(choice=(1, 2)), "distance": Domain(choice=("cosine", "euclidean"))}
ENDLESS = {"rate": Domain(log_uniform=(1e-3, 0.5)), "k": Domain(integer=(1, 100))}


def read(text: str) -> Domain:
    return Domain.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("choice: [1, two, 3.5]", "choice", (1, "two", 3.5)),
        ("choice: [false]", "choice", (False,)),
        ("uniform: [-1, 0.5]", "uniform", (-1, 0.5)),
        ("log_uniform: [0.001, 1]", "log_uniform", (0.001, 1)),
        ("log_uniform: [1e-4, 1e-2]", "log_uniform", (1e-4, 1e-2)),  # YAML reads these two as text
        ("integer: [0, 3]", "integer", (0, 3)),
    ],
)
def test_a_domain_is_one_kind_with_its_values(text: str, kind: str, values: tuple[Any, ...]) -> None:
    assert (read(text).kind, read(text).values) == (kind, values)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{choice: [1, 2], uniform: [0, 1]}", "uniform is given with choice; keep one of choice, uniform"),
        ("{integer: [1, 2], log_uniform: [1, 2]}", "integer is given with log_uniform; keep one of"),
        ("{}", "choice is missing, and every other kind"),
        ("uniform: null", "choice is missing, and every other kind"),
        ("uniform: [2, 1]", r"uniform \[2, 1\]: the first must be below the second"),
        ("uniform: [1, 1]", r"uniform \[1, 1\]: the first must be below the second"),
        ("integer: [3, 3]", r"integer \[3, 3\]: the first must be below the second"),
        ("log_uniform: [1, 0.1]", r"log_uniform \[1, 0.1\]: the first must be below the second"),
        ("log_uniform: [0, 1]", r"log_uniform \[0, 1\]: both must be above zero"),
        ("log_uniform: [-1, 1]", r"log_uniform \[-1, 1\]: both must be above zero"),
        ("choice: [1, 2, 1]", r"choice \[1, 2, 1\]: a value is listed twice"),
        ("choice: []", "at least 1 item"),
        ("choice: 3", "valid tuple"),
        ("uniform: 3", "valid tuple"),
        ("uniform: [1]", "Field required"),
        ("uniform: [0, 1, 2]", "at most 2 items"),
        ("uniform: [low, high]", "valid number"),
        ("uniform: [0, .inf]", "finite number"),
        ("uniform: [.nan, 1]", "finite number"),
        ("integer: [1.5, 3]", "valid integer"),
        ("normal: [0, 1]", "Extra inputs are not permitted"),
    ],
)
def test_a_domain_of_a_wrong_shape_is_refused_and_says_why(text: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        read(text)


bounds = st.tuples(st.floats(1e-6, 1e3), st.floats(1.01, 1e6)).map(lambda drawn: (drawn[0], drawn[0] * drawn[1]))
domains = st.one_of(
    st.lists(
        st.one_of(st.integers(2, 99), st.text(max_size=3), st.booleans()), min_size=1, max_size=6, unique=True
    ).map(lambda values: Domain(choice=tuple(values))),
    bounds.map(lambda both: Domain(uniform=both)),
    bounds.map(lambda both: Domain(uniform=(-both[1], both[0]))),
    bounds.map(lambda both: Domain(log_uniform=both)),
    st.tuples(st.integers(-50, 50), st.integers(1, 100)).map(lambda two: Domain(integer=(two[0], sum(two)))),
)


@given(domain=domains, seed=st.integers(0, 10_000))
def test_what_is_drawn_is_held_and_json(domain: Domain, seed: int) -> None:
    generator = random.Random(seed)
    for value in [domain.sample(generator) for _ in range(5)]:
        assert domain.holds(value)
        assert json.loads(json.dumps(value)) == value
        assert not (domain.kind == "integer" and not isinstance(value, int))


@given(domain=domains)
def test_a_domain_comes_back_from_what_a_step_keeps_of_it(domain: Domain) -> None:
    kept = json.loads(json.dumps(domain.model_dump(mode="json", exclude_unset=True)))
    assert Domain.model_validate(kept) == domain


@pytest.mark.parametrize(
    ("domain", "outside"),
    [
        (Domain(choice=(1, "a")), [2, "b", None]),
        (Domain(uniform=(0, 1)), [-0.01, 1.01, "0.5", None]),
        (Domain(log_uniform=(0.1, 1)), [0.09, 1.01]),
        (Domain(integer=(1, 3)), [0, 4, "2"]),
    ],
)
def test_what_is_outside_is_not_held_and_the_bounds_are(domain: Domain, outside: list[Any]) -> None:
    assert not any(domain.holds(value) for value in outside)
    assert all(domain.holds(value) for value in domain.values)


def test_a_log_uniform_number_is_held_however_narrow_its_bounds_are() -> None:
    domain, generator = Domain(log_uniform=(0.00015439735196467024, 0.00015439735196467035)), random.Random(0)
    assert all(domain.holds(domain.sample(generator)) for _ in range(50))


def test_a_whole_numbers_domain_does_not_hold_what_lies_between() -> None:
    assert not Domain(integer=(1, 3)).holds(1.5)


def test_a_space_of_some_hundred_is_drawn_whole_too() -> None:
    assert len(random_settings({"k": Domain(integer=(1, 200))}, {}, 300, seed=0)) == 201


def test_every_choice_and_every_whole_number_is_drawn() -> None:
    generator = random.Random(0)
    assert {Domain(choice=(1, 2, 4)).sample(generator) for _ in range(60)} == {1, 2, 4}
    assert {Domain(integer=(2, 5)).sample(generator) for _ in range(60)} == {2, 3, 4, 5}


def test_a_number_is_uniform_and_a_log_uniform_one_by_its_logarithm() -> None:
    generator = random.Random(0)
    logarithmic = [Domain(log_uniform=(1e-4, 1e-2)).sample(generator) for _ in range(400)]
    plain = [Domain(uniform=(1e-4, 1e-2)).sample(generator) for _ in range(400)]
    assert 150 < sum(number < 1e-3 for number in logarithmic) < 250
    assert sum(number < 1e-3 for number in plain) < 80
    assert 150 < sum(number < 5e-3 for number in plain) < 250


def test_a_domain_reads_as_its_values_or_its_bounds() -> None:
    assert str(Domain(choice=(1, "a"))) == "1, a"
    assert str(Domain(log_uniform=(1e-4, 0.01))) == "0.0001 to 0.01, log-uniform"


@pytest.mark.parametrize(
    ("space", "fixed", "told", "place"),
    [
        (
            {},
            {},
            "method 'plain': an empty space, nothing to search; name some of k, rate, distance under `space`",
            (),
        ),
        (
            {"distanse": Domain(choice=("cosine",))},
            {},
            "has no setting 'distanse'; did you mean 'distance'",
            ("distanse",),
        ),
        ({"k": Domain(choice=(1, 2))}, {"k": 3}, "setting 'k' is both searched and fixed at 3; keep one", ("k",)),
        ({"k": Domain(uniform=(1, 9))}, {}, "'k' is a whole number: use integer or choice, not uniform", ("k",)),
        ({"k": Domain(log_uniform=(1, 9))}, {}, "whole number: use integer or choice, not log_uniform", ("k",)),
        ({"k": Domain(choice=(4, 0))}, {}, "setting 'k': choice holds 0; Input should be greater than or", ("k",)),
        ({"k": Domain(integer=(-2, 4))}, {}, "setting 'k': integer holds -2; Input should be", ("k",)),
        ({"k": Domain(choice=(1, 2.5))}, {}, "setting 'k': choice holds 2.5; Input should be a valid integer", ("k",)),
        ({"rate": Domain(uniform=(0.1, 1))}, {}, "'rate': uniform holds 1.0; Input should be less than 1", ("rate",)),
        ({"distance": Domain(choice=("cosine", "dot"))}, {}, "'distance': choice holds 'dot'; Input", ("distance",)),
        ({**FINITE, "rate": Domain(choice=(2,))}, {}, "setting 'rate': choice holds 2", ("rate",)),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_at_its_setting(
    space: dict[str, Domain], fixed: dict[str, Any], told: str, place: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        check_space("plain", Plain, space, fixed)
    assert caught.value.place == place


class Ordered(Strict):
    """Settings that exclude each other."""

    low: int = 1
    high: int = 2

    @model_validator(mode="after")
    def _in_order(self) -> Ordered:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self


def test_a_value_that_goes_with_other_values_than_the_defaults_is_accepted() -> None:
    space = {"low": Domain(choice=(1, 2, 3)), "high": Domain(choice=(2, 4))}
    assert check_space("ordered", Ordered, space, {}) == space

    def refused(settings: dict[str, Any]) -> str | None:
        return None if settings["low"] < settings["high"] else "low must be below high"

    found = [(one["low"], one["high"]) for one in grid_settings(space, {}, refused)]
    assert sorted(found) == [(1, 2), (1, 4), (2, 4), (3, 4)]
    with pytest.raises(ConfigError, match="no combination of the space is valid: low must be below high"):
        grid_settings({"low": Domain(choice=(4, 5)), "high": Domain(choice=(2, 4))}, {}, refused)


def test_a_space_for_a_method_without_settings_is_told_so() -> None:
    with pytest.raises(ConfigError, match="method 'plain' has no setting 'k'; it has no settings"):
        check_space("plain", Strict, {"k": Domain(choice=(1,))}, {})
    with pytest.raises(ConfigError, match="an empty space, nothing to search; it has no settings"):
        check_space("plain", Strict, {}, {})


@pytest.mark.parametrize(
    "space", [FINITE, ENDLESS, {"k": Domain(integer=(1, 3))}, {"rate": Domain(uniform=(0.1, 0.9))}]
)
def test_a_space_that_the_settings_take_is_accepted(space: dict[str, Domain]) -> None:
    check_space("plain", Plain, space, {})


def test_draws_follow_the_seed_and_begin_with_the_defaults() -> None:
    fixed = {"distance": "euclidean"}
    drawn = random_settings(ENDLESS, fixed, 20, seed=3)
    assert drawn == random_settings(ENDLESS, fixed, 20, seed=3)
    assert drawn != random_settings(ENDLESS, fixed, 20, seed=4)
    assert (len(drawn), drawn[0]) == (20, fixed)
    assert all(one.keys() == {"distance", "rate", "k"} for one in drawn[1:])
    assert all(domain.holds(one[name]) for one in drawn[1:] for name, domain in ENDLESS.items())


@examples(max_examples=30)
@given(
    trials=st.integers(1, 30),
    fewer=st.integers(1, 30),
    seed=st.integers(0, 100),
    space=st.sampled_from([FINITE, ENDLESS, {"k": Domain(choice=(7,))}, {}]),
)
def test_no_settings_are_drawn_twice_and_a_longer_list_starts_with_the_shorter_one(
    trials: int, fewer: int, seed: int, space: dict[str, Domain]
) -> None:
    assume(fewer <= trials)
    drawn = random_settings(space, {}, trials, seed)
    assert len({json.dumps(one, sort_keys=True) for one in drawn}) == len(drawn) <= trials
    assert drawn[:fewer] == random_settings(space, {}, fewer, seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_small_space_is_drawn_whole_and_each_of_it_once(seed: int) -> None:
    drawn = random_settings(FINITE, {"rate": 0.2}, 64, seed)
    whole = [{"rate": 0.2, "k": k, "distance": name} for k in (1, 2) for name in ("cosine", "euclidean")]

    def text(one: dict[str, Any]) -> str:
        return json.dumps(one, sort_keys=True)

    assert drawn[0] == {"rate": 0.2}
    assert sorted(drawn[1:], key=text) == sorted(whole, key=text)


def test_a_grid_is_every_combination_once_with_what_is_fixed() -> None:
    space = {"k": Domain(integer=(2, 4)), "distance": Domain(choice=("cosine", "euclidean"))}
    expected = []
    for distance in ("cosine", "euclidean"):
        for k in (2, 3, 4):
            expected.append({"rate": 0.3, "k": k, "distance": distance})
    assert grid_settings(space, {"rate": 0.3}) == expected


@examples(max_examples=30)
@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1
    )
)
def test_a_grid_of_choices_is_their_product(values: dict[str, list[int]]) -> None:
    grid = grid_settings({name: Domain(choice=tuple(listed)) for name, listed in values.items()}, {})
    names = sorted(values)
    assert [tuple(one[name] for name in names) for one in grid] == list(itertools.product(*map(values.get, names)))
    assert all(one.keys() == values.keys() for one in grid)


def turned(space: dict[str, Domain]) -> dict[str, Domain]:
    return dict(reversed(space.items()))


@pytest.mark.parametrize("space", [FINITE, ENDLESS, {**FINITE, **ENDLESS}])
def test_the_order_in_which_a_file_lists_its_settings_changes_no_draw(space: dict[str, Domain]) -> None:
    assert list(space) != list(turned(space))
    assert random_settings(space, {}, 20, seed=1) == random_settings(turned(space), {}, 20, seed=1)


def test_the_order_in_which_a_file_lists_its_settings_changes_no_grid() -> None:
    space = {**FINITE, "rate": Domain(choice=(0.1, 0.2))}
    assert grid_settings(space, {}) == grid_settings(turned(space), {})


def test_a_grid_too_large_is_refused_with_its_count_before_it_is_built() -> None:
    million = Domain(integer=(1, 1_000_000))
    with pytest.raises(ConfigError, match="2,000,000,000,000 combinations; a grid may have 100,000"):
        grid_settings({"k": million, "rate": Domain(choice=(1, 2)), "width": million}, {})


def test_a_grid_of_as_many_as_are_allowed_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_COMBINATIONS", 4)
    assert len(grid_settings(FINITE, {})) == 4
    with pytest.raises(ConfigError, match="6 combinations; a grid may have 4"):
        grid_settings({**FINITE, "k": Domain(integer=(1, 3))}, {})


@pytest.mark.parametrize("domain", [Domain(uniform=(0.1, 0.5)), Domain(log_uniform=(0.1, 0.5))])
def test_a_grid_of_numbers_without_steps_is_refused(domain: Domain) -> None:
    with pytest.raises(ConfigError, match=f"setting 'rate': a grid needs values, not {domain.kind}; write them as"):
        grid_settings({**FINITE, "rate": domain}, {})
