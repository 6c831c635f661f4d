"""`~` in a path is the home folder; a variable is refused, since a folder of its name would be made."""

from pathlib import Path

import pytest

from orchestration.host.paths import expanded
from orchestration.tracking.mlflow_client import database_file, default_uri


def test_the_home_folder_is_put_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert expanded("~/store") == "/home/someone/store"
    assert expanded("a~b/c") == "a~b/c"
    assert expanded("openai-community/gpt2@607a30d") == "openai-community/gpt2@607a30d"


@pytest.mark.parametrize("path", ["$HOME/store", "a/${USER}/b", "/scratch/$JOB_ID"])
def test_a_variable_is_refused(path):
    with pytest.raises(ValueError, match="is not replaced in a path"):
        expanded(path)


def test_an_unknown_home_is_refused():
    with pytest.raises(ValueError, match="no home folder ~nobody-of-this-name is known"):
        expanded("~nobody-of-this-name/store")


@pytest.mark.parametrize("name", ["plain", "a?b", "a%20b", "a+b #c"])
def test_the_database_lies_beside_a_store_of_any_name(name):
    store = Path("/somewhere") / name / "store"
    assert database_file(default_uri(store)) == Path("/somewhere") / name / "mlflow.db"
    from sqlalchemy import make_url

    assert make_url(default_uri(store)).database == f"/somewhere/{name}/mlflow.db"
