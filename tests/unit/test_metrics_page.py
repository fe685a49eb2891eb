"""The page that describes the metrics."""

from pathlib import Path

from orchestrator.manifests import metrics_page


def test_the_page_is_up_to_date() -> None:
    page = Path(metrics_page.__file__).parents[1] / "METRICS.md"
    assert page.read_text() == metrics_page.markdown(), "run `make docs`"
