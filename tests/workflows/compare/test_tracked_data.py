"""What MLflow shows of a comparison's predictions, and of curves."""

from tests.workflows import test_steps
from tests.workflows.test_steps import ROWS, Compared
from workflows.compare.tracked_data import prediction_tables, thinned
from workflows.methods.inputs.states import read_column

compare = test_steps.compare  # the fixture


def test_of_several_training_sizes_the_table_shows_the_largest(compare: Compared) -> None:
    store, cells, _ = compare(methods=["centroid", "affinity", "knn"], train_size=[2, "full"], seeds=[0])
    ((name, table),) = prediction_tables(cells, store, print)
    assert name == f"test-predictions-{cells[0].model}-{cells[0].task}.json"
    assert table["columns"] == ["row", "text", "label", "centroid", "affinity", "knn"]
    assert len(table["data"]) == len(ROWS)
    shown = list(zip(*table["data"], strict=True))
    for cell in (cell for cell in cells if cell.train_size == "full"):
        predicted = [cell.labels[place] for place in read_column(store.find(cell.fits[0]), "prediction")]
        assert list(shown[table["columns"].index(cell.method)]) == predicted
    smaller = next(cell for cell in cells if cell.train_size == 2 and cell.method == "knn")
    assert [smaller.labels[place] for place in read_column(store.find(smaller.fits[0]), "prediction")] != predicted


def test_a_curve_keeps_its_last_point() -> None:
    assert thinned([], 10) == []
    assert thinned([3.0, 2.0, 1.0], 10, first=1) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    long = thinned([float(step) for step in range(2500)], 1000)
    assert (long[-1], len(long) <= 1000) == ((2499, 2499.0), True)
