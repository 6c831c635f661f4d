"""A fit as a folder that others can use without this package: torch and transformers alone, or a peft adapter."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestration.execution.work import work_of
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from orchestration.store.files import json_bytes
from orchestration.tracking.projection import register
from orchestration.tracking.registry import open_tracker
from workflows.compare.tracking import key_of_fit
from workflows.errors import ConfigError
from workflows.kind import Candidate
from workflows.methods.base import Method
from workflows.methods.registry import METHODS
from workflows.prediction.choice import Classifier
from workflows.results.model import by_place, read_stored
from workflows.results.wording import score, seconds
from workflows.steps.fit import method_of
from workflows.steps.prediction import fit_of

SCRIPT = Path(__file__).with_name("classify.py")
_ON_STATES = [name for name, method in METHODS.items() if method.portable]  # the script has the formula of each
_KINDS = {"last": "causal", "mask": "masked"}


def export(classifier: Classifier, record: RunRecord, store: Store, folder: Path) -> list[str]:
    """Write a fit to a new folder; the names of its files.

    Raises ConfigError for a folder that exists, and a method that cannot be used without the package.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: exists; name a folder that does not")
    fit = classifier.candidate.fit
    method = method_of(work_of(fit, store))
    tuned = method.input_kind == "prompts"
    told, write = _tuned(classifier, method, store) if tuned else _features(classifier, method)
    staged = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir(parents=True)
        write(staged)
        common = {"labels": list(classifier.candidate.labels), "fields": list(classifier.candidate.fields)}
        (staged / "classifier.json").write_bytes(json_bytes({**told, **common, "method": method.name}))
        shutil.copyfile(SCRIPT, staged / SCRIPT.name)
        (staged / "README.md").write_text(_card(classifier, record, told), encoding="utf-8")
        staged.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return sorted(path.name for path in folder.iterdir())


def register_model(classifier: Classifier, record: RunRecord, store: Store, mlflow: str | None, name: str) -> str:
    """Name a fit's MLflow model in MLflow's registry; its address there.

    Raises ConfigError for a method that has none, TrackingError where MLflow cannot be used.
    """
    candidate = classifier.candidate
    _check_reads_texts(candidate, "MLflow's models read")
    if not candidate.has_tracked_model(store):
        raise ConfigError(
            f"method {candidate.method!r} has no MLflow model: it needs more than what was fitted to predict. "
            "`vocabsem predict` and `vocabsem serve` work with every method."
        )
    key = key_of_fit(record, candidate.fit)
    return f"models:/{name}/{register(record, open_tracker(mlflow, store.root), key, name)}"


Written = tuple[dict[str, Any], Callable[[Path], None]]


def _features(classifier: Classifier, method: Method) -> Written:
    """What was fitted on states at the head, and where the model lies that gives them."""
    _check_reads_texts(classifier.candidate, "the exported script reads")
    fit, name = classifier.candidate.fit, classifier.candidate.method
    encode, file = fit.inputs["test"], classifier.fit.path("fitted.safetensors")
    if method.name not in _ON_STATES or method.source_file is not None:
        raise ConfigError(
            f"method {name!r} cannot be exported: {', '.join(_ON_STATES)} can, and lora, ia3 and full. "
            "`vocabsem predict` and `vocabsem serve` work with every method."
        )
    if encode.setup is None or set(encode.inputs) != {"texts"}:
        raise ConfigError(f"method {name!r} cannot be exported: it reads more than the states of bare prompts")
    layer, settings = fit.identity["layer"], fit_of(classifier.fit, method)[0]
    told = {
        "form": "features",
        "model": encode.setup["folder"],
        "layers": layer if isinstance(layer, list) else [layer],
        "folds": fit.identity.get("folds", 1),
        "similarity": method.similarity(settings),
        **{part: encode.identity[part] for part in ("template", "max_tokens", "dtype", "store_dtype")},
    }
    return _of_kind(told, _KINDS.get(encode.identity["position"], "seq2seq")), lambda folder: _copy(file, folder)


def _check_reads_texts(candidate: Candidate, reads: str) -> None:
    """Raises ConfigError for a fit on a network's states."""
    encode = candidate.fit.inputs.get("test")
    if encode is not None and set(encode.inputs) == {"rows"}:
        raise ConfigError(
            f"{candidate.model}: is a network of your own, and {reads} language models alone. `vocabsem predict` and "
            "`vocabsem serve` work with it"
        )


def _copy(file: Path, folder: Path) -> None:
    shutil.copyfile(file, folder / file.name)


def _tuned(classifier: Classifier, method: Any, store: Store) -> Written:
    """An adapter as peft writes one, or the whole model."""
    fit = classifier.candidate.fit
    reading, base = fit.identity["reading"], Path(fit.local["folder"])
    tokens = store.need(fit.inputs["verbalizer"]).json("verbalizer.json")["tokens"]
    settings, weights = fit_of(classifier.fit, method)
    told = {
        "form": "model" if method.whole else "adapter",
        "model": str(base),
        "tokens": tokens,
        **{part: reading[part] for part in ("template", "max_tokens", "dtype")},
    }

    def write(folder: Path) -> None:
        from vocabsem_core.features.checkpoints import load_model, load_tokenizer
        from vocabsem_core.finetuning.adapters import save_adapted

        model = load_model(base, reading["dtype"], "cpu")
        save_adapted(model, method.adaptation(settings), weights, folder, str(base))
        if method.whole:
            load_tokenizer(base).save_pretrained(folder)

    return _of_kind(told, reading["kind"]), write


def _of_kind(told: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Raises ConfigError for a kind of model that the script does not know."""
    if kind not in _KINDS.values():
        raise ConfigError(f"a {kind} model cannot be exported; `vocabsem predict` and `vocabsem serve` work with it")
    return {**told, "kind": kind}


def _card(classifier: Classifier, record: RunRecord, told: Mapping[str, Any]) -> str:
    """README.md: what it is, how good it was, and how it is used."""
    candidate = classifier.candidate
    found = by_place(read_stored(record.read("results.json") or []))
    one = found.get((candidate.model, candidate.task, candidate.method, candidate.train_size))
    lines = [
        f"# {candidate.task}: {candidate.method} with {candidate.model}",
        "",
        f"Labels: {', '.join(candidate.labels)}. Fields of a row: {', '.join(candidate.fields)}.",
        "",
    ]
    if one is not None:
        result, detail = one
        size = result.train_size
        lines += [
            f"- {result.metric.replace('_', '-')} {score(result.mean, result.low, result.high)}, with its 95 % "
            f"interval, on {result.n_test:,} test rows, mean over {len(result.seeds)} seeds; this is the fit of seed "
            f"{candidate.seed}",
            f"- fitted on {'all training rows' if size == 'full' else f'{size} training rows per class'}; seconds with "
            f"nothing cached: {seconds(detail.costs.total)}",
        ]
    lines += [
        f"- language model: `{told['model']}`" + ("" if told["form"] == "model" else ", which is not in this folder"),
        f"- prompt: `{told['template']!r}`, at most {told['max_tokens']} tokens",
        f"- from run `{record.run_id}`, whose workflow.yaml says how it was made",
        "",
        '`python classify.py "some text"` prints a label; `Classifier` in classify.py does so in Python.',
        "",
    ]
    if told["form"] == "adapter":
        lines += ["`peft.PeftModel.from_pretrained(model, THIS_FOLDER)` loads the adapter.", ""]
    return "\n".join(lines)
