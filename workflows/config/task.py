"""The YAML schema of a task: rows, prompt, label words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from vocabsem_core.names import LabelTokens, Metric, RowTokens
from workflows.config.strict import PathText, Strict
from workflows.errors import ConfigError


class Source(Strict):
    """Where a task's rows are: local files, or files of a Hugging Face data set."""

    train: PathText = Field(
        description="file of the training rows: .csv, .jsonl or .parquet; relative to this YAML file, or within `hub`. "
        "For a network also a folder with a folder of images or WAV files for each label (columns file and label), or "
        "a function of your own that gives rows: rows.py:train"
    )
    test: PathText | None = Field(None, description="file of the test rows; required unless `split` is given")
    split: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the rows of `train` used as test rows if there is no `test`: the same for each "
        "label, by hash of the row, equal rows together; 0.2 is a fifth",
    )
    split_seed: int = Field(0, ge=0, description="changes which rows `split` uses as test rows")
    hub: str | None = Field(None, description="id of the Hugging Face data set with the files; none: local files")
    revision: str = Field("main", description="commit of `hub`; pin it, since `main` may change")
    columns: dict[str, str] = Field(
        default_factory=lambda: {"text": "text"}, description="prompt field -> column of the file"
    )
    label: str = Field("label", description="column of the label")
    values: dict[str, str] | None = Field(
        None, description="value in the label column -> label name; none: the values are the names"
    )

    files: tuple[str, ...] = Field(
        (),
        description="fields whose column has paths of files (images, WAV, .npy), relative to the file of the rows; "
        "such a row is known by the file's content. A folder's column `file` is one without being listed",
    )
    skip_unreadable: bool = Field(
        False,
        description="leave out rows whose file cannot be decoded, and say how many, in place of an error; in new rows "
        "it stays an error",
    )

    @model_validator(mode="after")
    def _files_are_fields(self) -> Source:
        if unknown := [field for field in self.files if field not in self.columns]:
            raise ValueError(f"files names {unknown[0]!r}; expected fields of `columns`: {sorted(self.columns)}")
        return self

    @model_validator(mode="after")
    def _test_rows_are_named_or_split_off(self) -> Source:
        if self.test is None and self.split is None:
            raise ValueError(
                "test is missing; name the file of the test rows, or give `split: 0.2` to hold out a fifth of `train`"
            )
        if self.test is not None and self.split is not None:
            raise ValueError("`split` takes test rows from `train`, but `test` names a file of test rows; keep one")
        return self

    def file(self, split: Literal["train", "test"]) -> str:
        """The name of the file that holds a split's rows."""
        return self.test if split == "test" and self.test is not None else self.train


class TaskConfig(Strict):
    """A classification task: rows, prompt, label words."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="short name; lower case letters, digits, . _ -")
    source: Source
    template: str | None = Field(
        None,
        description="the prompt, up to the position of the label word; fields in braces; required for language models",
    )
    masked_template: str | None = Field(
        None,
        description="the prompt for masked models, with {mask} in place of the label word; none: template {mask}",
    )
    words: dict[str, str] = Field(min_length=2, description="label name -> word that represents it, in class order")
    metric: Metric = Field("accuracy", description="the score that is compared")
    label_tokens: LabelTokens = Field(
        "auto",
        description="which of a word's tokens represent it; auto: the first if all differ and none is only a space, "
        "else their mean; whole: `zero-shot` and `icl` score the whole word by its log-likelihood (causal models), and "
        "methods that read a row of the head or basis for each label do as with auto",
    )

    @field_validator("words")
    @classmethod
    def _words_without_spaces_around(cls, words: dict[str, str]) -> dict[str, str]:
        """Other tools write a word with the space that separates it from the prompt, which is put there anyway."""
        return {label: word.strip() for label, word in words.items()}

    @model_validator(mode="after")
    def _template_has_the_fields(self) -> TaskConfig:
        from string import Formatter

        try:
            named = {field for _, field, _, _ in Formatter().parse(self.template or "") if field is not None}
        except ValueError as error:
            raise ValueError(f"template {self.template!r}: {error}; write a field as {{text}}") from error
        fields = set(self.source.columns)
        masked = self.masked_template
        if masked is not None and (
            masked.count("{mask}") != 1 or not any(f"{{{field}}}" in masked for field in fields)
        ):
            raise ValueError(
                f"masked_template {masked!r}: expected {{mask}} once, in place of the label word, and one or more of "
                f"{sorted(fields)} in braces"
            )
        if self.template is not None and (not named or not named <= fields):
            raise ValueError(
                f"template {self.template!r} names the fields {sorted(named)}; expected one or more of "
                f"{sorted(fields)} in braces"
            )
        return self


def row_tokens(task: TaskConfig) -> RowTokens:
    """Which of a word's tokens are the rows that stand for it: a whole word has no row."""
    return "auto" if task.label_tokens == "whole" else task.label_tokens


def prompt_template(task: TaskConfig, kind: str) -> str:
    """The template for a kind of language model: a masked one needs a place for its mask.

    Raises ConfigError for a task without one.
    """
    if kind == "masked" and task.masked_template is not None:
        return task.masked_template
    if task.template is None:
        fields = " ".join(f"{{{field}}}" for field in task.source.columns)
        raise ConfigError(f"task {task.name!r} has no template, which a language model needs, such as: {fields!r}")
    return f"{task.template} {{mask}}" if kind == "masked" else task.template
