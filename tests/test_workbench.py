"""What the client of the workbench makes of single answers; whole lessons are tried elsewhere."""

import sys
from datetime import datetime, timezone
from itertools import permutations
from types import SimpleNamespace

import pytest
from conftest import STANDINS

from cmlflow import workbench
from cmlflow.errors import WorkbenchError

KERNEL = "Python {}.{}".format(*sys.version_info)
POLL = "0.01"


@pytest.fixture(autouse=True)
def session(monkeypatch):
    """No pause, and a session that says nothing of its runtime."""
    monkeypatch.setenv("CMLFLOW_POLL_SECONDS", POLL)
    for name in ("KERNEL", "EDITION", "EDITOR", "FULL_VERSION"):
        monkeypatch.delenv(f"ML_RUNTIME_{name}", raising=False)


class Refusal(Exception):
    """As cmlapi raises it."""

    def __init__(self, status, body=""):
        super().__init__(status)
        self.status, self.reason, self.body = status, "no", body


def operation(name, *answers):
    """An operation that gives these answers, one after the other, and counts them."""
    left = list(answers)

    def method(**query):
        method.asked.append(query)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    method.__name__, method.asked = name, []
    return method


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("ENGINE_SUCCEEDED", "succeeded"),
        ("APPLICATION_RUNNING", "running"),
        ("EXPERIMENT_RUN_FINISHED", "finished"),
        ("READY", "ready"),
        ("build failed", "build failed"),
        (None, "unknown"),
    ],
)
def test_a_status_has_no_prefix_and_small_letters(told, status):
    assert workbench.status(SimpleNamespace(status=told)) == status


class TestCall:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 0, None])
    def test_a_question_is_asked_again_while_the_workbench_is_busy(self, status):
        method = operation("list_models", Refusal(status), Refusal(status), "answer")
        assert workbench.call(method) == "answer"
        assert len(method.asked) == 3

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
    def test_a_refusal_is_final(self, status):
        method = operation("get_model", Refusal(status))
        with pytest.raises(WorkbenchError) as caught:
            workbench.call(method)
        assert (len(method.asked), caught.value.status) == (1, status)

    @pytest.mark.parametrize("status", [429, 500, None])
    def test_what_changes_something_is_sent_once(self, status):
        method = operation("create_model", Refusal(status))
        with pytest.raises(WorkbenchError):
            workbench.call(method)
        assert len(method.asked) == 1

    def test_what_could_not_be_sent_is_not_asked_again(self):
        method = operation("get_model", TypeError("unknown word"))
        with pytest.raises(TypeError, match="unknown word"):
            workbench.call(method)
        assert len(method.asked) == 1

    def test_the_cause_that_holds_the_headers_is_not_shown(self):
        with pytest.raises(WorkbenchError) as caught:
            workbench.call(operation("get_model", Refusal(400)))
        assert caught.value.__suppress_context__
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            ('{"code": 3, "message": "no such model"}', "400: no such model"),
            (b'{"error": "no such model"}', "400: no such model"),
            ("<html>\nBad gateway", "400: <html>"),
            ("", "400: no"),
            ('{"message": "no model for Bearer a.key"}', "400: no model for Bearer ***"),
        ],
    )
    def test_the_message_of_a_refusal_is_told_without_a_key(self, body, told):
        with pytest.raises(WorkbenchError) as caught:
            workbench.call(operation("get_model", Refusal(400, body)))
        assert caught.value.found == f"The workbench refused get_model with {told}"


class TestFindOrCreate:
    @pytest.mark.parametrize(("status", "looks"), [(409, 2), (500, 4), (None, 4)])
    def test_after_a_trouble_it_looks_until_it_is_there(self, status, looks):
        """After a refusal it looks once more, and no longer."""
        seen = iter([None] * (looks - 1) + ["it"])
        error = WorkbenchError("a", "b", "c")
        error.status = status

        def create():
            raise error

        assert workbench.find_or_create(lambda: next(seen), create) == ("it", False)

    def test_after_a_refusal_it_does_not_wait(self, monkeypatch):
        monkeypatch.setattr(workbench.time, "sleep", lambda _: pytest.fail("it waits"))
        error = WorkbenchError("a", "b", "c")
        error.status = 403

        def create():
            raise error

        with pytest.raises(WorkbenchError):
            workbench.find_or_create(lambda: None, create)


class TestWait:
    @staticmethod
    def wait(*statuses, limit_s=60):
        left = list(statuses)

        def ask():
            return SimpleNamespace(status=left.pop(0) if len(left) > 1 else left[0])

        return workbench.wait(ask, "Build", ("built",), ("failed",), limit_s, "Builds")

    def test_each_new_status_is_printed_once(self, capsys):
        self.wait("pending", "pending", "building", "building", "built")
        assert capsys.readouterr().out == "Build: pending\nBuild: building\nBuild: built\n"

    def test_where_there_is_nothing_to_wait_for_nothing_is_printed(self, capsys):
        self.wait("built")
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(("status", "told"), [("failed", "ended as"), ("pending", "is still")])
    def test_it_ends_with_a_failure_or_with_its_limit(self, status, told):
        with pytest.raises(WorkbenchError, match=f"Build {told} '{status}'"):
            self.wait(status, limit_s=0.03)


class TestRuntime:
    @staticmethod
    def chosen(*runtimes):
        """Which of these is taken: kernel, edition, editor, version, status."""
        names = ("kernel", "edition", "editor", "full_version", "status")
        given = [SimpleNamespace(**dict(zip(names, one, strict=True))) for one in runtimes]
        page = SimpleNamespace(runtimes=given, to_dict=lambda: {"runtimes": given})
        found = workbench.runtime(SimpleNamespace(list_runtimes=operation("list_runtimes", page)))
        return runtimes[given.index(found)]

    GOOD = (KERNEL, "Standard", "PBJ Workbench", "2025.09.1-b5", "ENABLED")

    @pytest.mark.parametrize(
        "other",
        [
            ("Python 3.9", *GOOD[1:]),
            (KERNEL, "Nvidia GPU", *GOOD[2:]),
            (KERNEL, "Standard", "JupyterLab", *GOOD[3:]),
            (*GOOD[:3], "2024.10.1-b12", "ENABLED"),
            (*GOOD[:3], "2025.09.1-b4", "ENABLED"),
            (*GOOD[:3], "2025.10.1-b5", "DISABLED"),
            (*GOOD[:3], "2025.10.1-b5", "DEPRECATED"),
        ],
        ids=lambda one: " ".join(one),
    )
    def test_the_newest_standard_one_is_taken(self, other):
        assert self.chosen(self.GOOD, other) == self.chosen(other, self.GOOD) == self.GOOD

    def test_versions_are_compared_as_numbers(self):
        newer = (*self.GOOD[:3], "2025.10.1-b5", "ENABLED")
        assert self.chosen(newer, (*self.GOOD[:3], "2025.9.1-b5", "ENABLED")) == newer

    def test_that_of_this_session_comes_first(self, monkeypatch):
        ours = (KERNEL, "Hardened", "JupyterLab", "2024.10.1-b12", "ENABLED")
        for name, value in zip(("EDITION", "EDITOR", "FULL_VERSION"), ours[1:], strict=False):
            monkeypatch.setenv(f"ML_RUNTIME_{name}", value)
        newer = (*ours[:3], *self.GOOD[3:])
        assert self.chosen(newer, ours, self.GOOD) == ours

    @pytest.mark.parametrize(
        "other", [("Python 2.7", *GOOD[1:]), (KERNEL, "Nvidia GPU", *GOOD[2:])]
    )
    def test_without_a_fitting_one_it_says_so(self, other):
        with pytest.raises(WorkbenchError, match=f"no runtime with {KERNEL}"):
            self.chosen(other)


def page(*names, token=""):
    """An answer of list_models: first another field, then the items."""
    fields = {"count": len(names), "models": names, "next_page_token": token}
    found = [SimpleNamespace(name=name) for name in names]
    return SimpleNamespace(count=len(names), models=found, to_dict=lambda: fields)


class TestLists:
    def test_all_pages_are_read_with_the_filter_and_the_ids(self):
        method = operation("list_models", page("a", token="2"), page("b", token="3"), page())
        found = workbench.all_of(method, items="models", search_filter="{}")
        assert [one.name for one in found] == ["a", "b"]
        assert [one.get("page_token") for one in method.asked] == [None, "2", "3"]
        assert {one["search_filter"] for one in method.asked} == {"{}"}

    def test_a_token_that_comes_again_ends_the_list(self):
        assert len(workbench.all_of(operation("list_models", page(token="2")), items="models")) == 0

    def test_only_the_whole_name_counts(self):
        longer = page("PRD-old", "PRD", "my-PRD")
        assert self.named("PRD", longer).name == "PRD"
        assert self.named("old", longer) is None

    def test_two_of_one_name_are_not_chosen_between(self):
        with pytest.raises(WorkbenchError, match="list_models gives 2 items with the name 'a'"):
            self.named("a", page("a", "a"))

    @staticmethod
    def named(name, *pages):
        return workbench.named(operation("list_models", *pages), name, items="models")

    def test_the_newest_is_that_of_the_latest_time_in_any_order(self):
        zero = datetime(1, 1, 1, tzinfo=timezone.utc)
        times = [datetime(2026, 1, 1), datetime(2026, 1, 2, tzinfo=timezone.utc), None, zero]
        for order in permutations(SimpleNamespace(created_at=one) for one in times):
            assert workbench.newest(order).created_at == times[1]
        assert workbench.newest([]) is None


def test_without_the_address_of_the_workbench_it_says_so(monkeypatch):
    monkeypatch.syspath_prepend(STANDINS)
    monkeypatch.setenv("CDSW_APIV2_KEY", "a.key")
    monkeypatch.delenv("CDSW_API_URL", raising=False)
    with pytest.raises(WorkbenchError, match="No client of the workbench could be made") as caught:
        workbench.client()
    assert "CDSW_API_URL" in caught.value.cure


def test_elsewhere_than_in_cml_there_is_no_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmlapi", None)
    with pytest.raises(WorkbenchError, match="The package cmlapi cannot be imported"):
        workbench.client()
