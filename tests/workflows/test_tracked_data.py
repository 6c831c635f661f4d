"""What MLflow shows of a comparison's predictions."""

from tests.workflows import test_steps
from tests.workflows.test_steps import ROWS, Compared
from workflows.materials import read_column
from workflows.tracked_data import prediction_tables

compare = test_steps.compare  # the fixture


def test_of_several_training_sizes_the_table_shows_the_largest(compare: Compared) -> None:
    store, cells, _ = compare(methods=["centroid", "affinity", "knn"], train_size=[2, "full"], seeds=[0])
    ((name, table),) = prediction_tables(cells, store, print)
    assert name == f"predictions-{cells[0].model}-{cells[0].task}.json"
    assert table["columns"] == ["row", "text", "label", "centroid", "affinity", "knn"]
    assert len(table["data"]) == len(ROWS)
    shown = list(zip(*table["data"], strict=True))
    for cell in (cell for cell in cells if cell.train_size == "full"):
        predicted = [cell.labels[place] for place in read_column(store.find(cell.fits[0]), "prediction")]
        assert list(shown[table["columns"].index(cell.method)]) == predicted
    smaller = next(cell for cell in cells if cell.train_size == 2 and cell.method == "knn")
    assert [smaller.labels[place] for place in read_column(store.find(smaller.fits[0]), "prediction")] != predicted
