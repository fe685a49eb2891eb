"""What a request says of itself."""

import pytest

from orchestrator.config.data_class import DataClass
from orchestrator.gateway.errors import ApiError
from orchestrator.gateway.request import claimed_data_class

NAME = b"x-orchestrator-data-class"


@pytest.mark.parametrize(
    ("values", "claimed"),
    [
        ([], DataClass.PUBLIC),
        ([b"Internal"], DataClass.INTERNAL),
        ([b"restricted", b"public"], DataClass.RESTRICTED),
        ([b"public", b"restricted"], DataClass.RESTRICTED),
        ([b"public, confidential,internal"], DataClass.CONFIDENTIAL),
    ],
)
def test_the_highest_of_all_labels_counts(values: list[bytes], claimed: DataClass) -> None:
    headers = [(b"accept", b"restricted"), *((NAME, value) for value in values)]
    assert claimed_data_class(headers) is claimed


@pytest.mark.parametrize("values", [[b"public", b"secret"], [b"restricted,"], [b"\xff"]])
def test_one_unknown_label_spoils_the_request(values: list[bytes]) -> None:
    with pytest.raises(ApiError, match="400") as caught:
        claimed_data_class([(NAME, value) for value in values])
    assert caught.value.status == 400
