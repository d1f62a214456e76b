"""Makes Python answer as in a session without pyarrow, which mlflow-skinny does not bring."""

import sys

sys.modules["pyarrow"] = None
