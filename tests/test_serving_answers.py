"""What an endpoint answers: three shapes, and what is wrong with an answer."""

import numpy as np
import pandas as pd
import pytest

from cmlflow.errors import ServingError
from cmlflow.serving import Answer, Check

RECORDED = {"success": True, "ReplicaID": "r", "response": [1.5, 2.0]}
WITH_METRICS = {"response": {"model_deployment_crn": "crn", "prediction": [1.5, 2.0], "uuid": "u"}}


@pytest.mark.parametrize(
    "body",
    [
        {"predictions": [1.5, 2.0]},
        {"predictions": [[1.5], [2.0]]},
        {"predictions": [{"grade": 1.5}, {"grade": 2}]},
        RECORDED,
        WITH_METRICS,
        {"response": {"predictions": [1.5, 2]}},
        {"response": {"prediction": {"predictions": [1.5, 2]}}},
        {"predictions": ["1.5", "2.0"]},
    ],
)
def test_predictions_are_read_from_every_shape(body):
    found = Answer(200, body).predictions()
    assert found.dtype == "float64"
    assert found.tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, {"error_code": "BAD", "message": "Bad.\nStack"}, "answered 400: Bad."),
        (400, {"predictions": [1.0]}, "answered 400"),
        (429, {"success": False, "errors": {"message": "model.busy"}}, "429: model.busy"),
        (200, {"success": False, "response": None, "error": "no"}, "answered 200: no"),
        (200, {"predictions": [None]}, "answered 200"),
        (200, {"predictions": [[1.0, 2.0]]}, "answered 200"),
        (200, {"predictions": ["good"]}, "answered 200"),
        (200, {"response": 1.0}, "answered 200: 1.0"),
        (502, "<html>bad gateway</html>", "answered 502: <html>bad gateway</html>"),
        (200, None, "answered 200"),
    ],
)
def test_an_answer_without_predictions_is_told(status, body, told):
    with pytest.raises(ServingError) as caught:
        Answer(status, body).predictions()
    assert told in caught.value.found
    assert "\n" not in caught.value.found


def test_of_a_long_refusal_the_reason_is_told():
    """MLflow puts the data first, and advice after the reason."""
    data = "'   alcohol\n0  1.0'"
    text = (
        f"Failed to predict data {data}. \nError: Failed to enforce {data}. Error: Missing ['pH']."
    )
    assert Answer(400, {"message": text}).message == "Missing ['pH']."
    assert Answer(400, {"message": "No wrapper. IMPORTANT: read on"}).message == "No wrapper."


class TestCheck:
    check = Check(pd.DataFrame({"a": [1.0, 2.0], "b": [0.1, 0.2]}), np.array([3.0, 4.0]))

    def test_its_request_is_mlflows_scoring_json(self):
        assert self.check.payload == {
            "dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 0.1], [2.0, 0.2]]}
        }

    @pytest.mark.parametrize(
        ("predictions", "problem"),
        [
            ([3.0, 4.0], ""),
            ([3.0, 4.0 + 9e-10], ""),
            ([3.0, 4.0 + 2e-9], "Row 2 of the check: "),
            ([3.5, 4.5], "Row 1 of the check: 3.5 instead of 3.0."),
            ([3.0], "1 predictions for 2 rows."),
            ([3.0, float("nan")], "Row 2 of the check: nan instead of 4.0."),
        ],
    )
    def test_each_prediction_must_be_the_models_own(self, predictions, problem):
        found = self.check.problem(Answer(200, {"predictions": predictions}))
        assert found == problem if problem.endswith(".") or not problem else problem in found

    def test_an_answer_without_predictions_is_a_problem(self):
        assert "answered 500: broken" in self.check.problem(Answer(500, {"message": "broken"}))
