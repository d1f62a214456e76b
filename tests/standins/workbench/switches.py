"""What the server does otherwise than usual: failures, and what nobody knows for certain.

A word `name`, or `name=operation` for the switches marked with *, which then concern that operation
of API v2 only, as in `breaks-in-mid-answer=create_model_build`.
"""

from __future__ import annotations

import threading
from collections import Counter

SWITCHES = {
    # Failures
    "unauthorized": "* 401, whatever the key",
    "forbidden": "* 403; of no operation: create_project, and each project but the session's",
    "conflict": "* the first of each create answers 409: another session was faster",
    "too-many": "* 429 three times, then all is well",
    "server-error": "* 500",
    "breaks-in-mid-answer": "* the connection ends in the middle of one answer; then all is well",
    "holds": "* what is asked for is done, but not answered until the switch is off",
    "build-fails": "new builds end as 'build failed' (or =STATUS)",
    "build-stalls": "new builds stay in 'building'",
    "deployment-fails": "new deployments end as 'failed'",
    "deployment-stalls": "new deployments stay in 'deploying'",
    "deployment-500-then-appears": "create_model_deployment: 500, and the deployment goes on",
    "registration-takes-time": "new versions are PENDING for two polls",
    "registration-fails-later": "new versions turn Failed after two polls",
    "name-taken-by-plain-model": "the name (or =NAME) belongs to a model without registered model",
    "many-models": "25 more models in each project, with names that contain the one looked for",
    "no-quota": "job runs stay in ENGINE_SCHEDULING until the job's timeout, or until it is off",
    "clock-skew": "the workbench's clock is 1 hour behind",
    "model-busy": "the model answers 429",
    "never-answers": "the newest build of each model, deployed, does not answer requests",
    "wrong-predictions": "the newest build of each model, deployed, adds 1 to each number",
    # Refusals and errors whose form nobody recorded
    "bad-key-403": "a missing or wrong key is 403, not 401",
    "odd-errors": "the body of an error is a page of HTML, as from a proxy",
    "refusals-500": "what is in use or missing, or excludes another thing: 500, not 400 or 409",
    "strict-bodies": "unknown keys in a body, and numbers as text, are refused",
    "strict-sort": "a raw + (which is a space) in `sort` is refused",
    "short-params": "a param of more than 250 characters is refused",
    "same-project-names": "a second project of the same name is made",
    "wait-for-built": "a deployment of a build that is not built yet is refused",
    "second-run-skipped": "a job that runs already: a run more is ENGINE_SKIPPED, not refused",
    "no-put": "files cannot be sent by PUT",
    # Lists
    "newest-first": "lists come newest first, not oldest first",
    "any-order": "lists come in no order, versions too",
    "no-filter": "search_filter is ignored",
    "small-pages": "a page has 10 entries at most, whatever page_size says",
    # Values and names
    "null-times": "what has not happened yet is null, not the year 1",
    "other-states": "other names for the states on the way",
    "build-succeeded": "a good build ends as 'succeeded', not 'built'",
    "dashed-run-ids": "ids of job runs look like those of jobs",
    "company-registry": "runtime images come from a company's own registry",
    "no-python-runtime": "no runtime with Python 3.10 or newer",
    "spark-4": "there is an add-on with Spark 4 too, and others say less of themselves",
    "no-spark": "no add-on with Spark",
    # The registry
    "separate-registry": "versions registered by MLflow are unknown to API v2",
    "version-tags-kept": "tags of versions are kept",
    "all-versions": "create_registered_model answers all versions, newest first, not the new one",
    "versions-oldest-first": "get_registered_model: oldest first, not newest first",
    # The deployed model
    "no-wrapper": "`response` is the prediction itself: no metrics, or an older workbench",
    "bare-envelope": "the answer has `response` only: no `success`, no `ReplicaID`",
    "errors-as-200": "what the model refuses is 200 with success false, not 400",
    "errors-list": "an answer without success has `errors`, a list, not `error`",
    "old-scoring": "`request` is {columns, data} without a wrapper, as in MLflow 1",
    "impatient": "a model that is busy is 429 at once, not after 30 seconds",
    "key-without-models": "the API key opens no deployed model",
    # Jobs
    "job-arguments": "`arguments` of a job reach its script",
}
ONCE = {"breaks-in-mid-answer": 1, "too-many": 3}


class Switches:
    """The words that are on; what happens a few times only is counted from then."""

    def __init__(self, words: list[str]) -> None:
        self.changed = threading.Condition()
        self.set(words)

    def set(self, words: list[str]) -> None:
        """Turn these on and all others off."""
        pairs = [word.partition("=")[::2] for word in words]
        unknown = [name for name, _ in pairs if name not in SWITCHES]
        if unknown:
            raise ValueError(f"no switch {unknown[0]}; there are: {' '.join(SWITCHES)}")
        with self.changed:
            self.words, self.pairs, self.used = list(words), pairs, Counter()
            self.changed.notify_all()

    def __contains__(self, name: str) -> bool:
        """Tell whether it is on, for whatever operation."""
        assert name in SWITCHES, name
        return any(name == on for on, _ in self.pairs)

    def value(self, name: str) -> str:
        """Return the word after `=`."""
        return next((value for on, value in self.pairs if on == name), "")

    def on(self, name: str, operation: str) -> bool:
        """Tell whether it is on for an operation."""
        assert name in SWITCHES, name
        return any(name == on and value in ("", operation) for on, value in self.pairs)

    def use(self, name: str, operation: str) -> bool:
        """Do what `on` does, for one that is on a few times only."""
        if not self.on(name, operation) or self.used[name] >= ONCE[name]:
            return False
        self.used[name] += 1
        return True

    def wait_while(self, name: str, operation: str = "", limit: float = 600) -> None:
        """Wait until it is off."""
        with self.changed:
            self.changed.wait_for(lambda: not self.on(name, operation), limit)
