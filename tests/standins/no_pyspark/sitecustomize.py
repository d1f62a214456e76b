"""Makes Python answer as in a session without the Spark add-on: there is no pyspark."""

import sys

sys.modules["pyspark"] = None
