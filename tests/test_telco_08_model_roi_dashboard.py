"""The ROI dashboard: its arithmetic, the lesson, the server as CML asks it, and the page."""

import contextlib
import copy
import functools
import itertools
import json
import math
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import servers
from browser import Browser
from conftest import (
    CML_STORE,
    CODE,
    LIMIT,
    ROOT,
    Kernel,
    clean_environment,
    client_of,
    in_cml,
    run_script,
    wait_until,
)
from servers import alive, ask, listening

from cmlflow import dashboard, errors, scores
from cmlflow.processes import free_port

SCRIPT = "telco/08_model_roi_dashboard.py"
PAGE = ROOT / "cml" / "roi_dashboard.py"
MONITOR = "python code/telco/07_model_monitoring.py"
DOMAIN = "ml-1234.example.cloudera.site"
OWN_NAME = f"roi.{DOMAIN}"
CELLS = ("tn", "fp", "fn", "tp")
FIRST, SECOND = "1" * 32, "2" * 32  # runs of the two versions


def truth_of(generator, messages, honest):
    """A labelled day: seeded probabilities, of which a share says how often towers fail."""
    said = generator.beta(0.6, 2.2, messages)
    failed = generator.random(messages) < honest * said + (1 - honest) * said.mean()
    counts = scores.counts(failed, said)
    return {
        "messages": messages,
        "failures": int(failed.sum()),
        "roc_auc": scores.roc_auc(failed, said),
        "reference_roc_auc": 0.845,
        "accuracy": float(((said >= 0.5) == failed).mean()),
        "baseline_accuracy": float(1 - failed.mean()),
        "log_loss": scores.log_loss(failed, said),
        "counts": {cell: counts[cell].tolist() for cell in CELLS},
    }


def board_of(seed=7, newest=9, promoted=9):
    """What 07_model_monitoring.py logs, from seeded numbers: version 2 took over on one day."""
    generator = np.random.default_rng(seed)
    days = []
    for day in range(6, newest + 1):
        drifted = day >= 8
        run_id, version = (SECOND, 2) if day >= promoted else (FIRST, 1)
        psi = {
            f"iot_signal_{n}": generator.uniform(0, 0.05, 3).round(4).tolist() for n in range(1, 5)
        }
        psi |= {"signal_score": [0.02, 0.11, None], "event_severity": [0.01, 0.02, 0.01]}
        if drifted:
            psi["iot_signal_4"] = [0.71, 0.74, 0.69]
        truth = (
            None
            if day == newest
            else truth_of(generator, 1440, 0.3 if drifted and version == 1 else 1)
        )
        days.append(
            {
                "day": day,
                "run_id": run_id,
                "version": version,
                "decision": {6: None, 8: "wait", 9: "retrain"}.get(day, "keep"),
                "predicted_share": 0.27,
                "latency_ms": 4.1,
                "psi": psi,
                "truth": truth,
            }
        )
    judged = {
        role: {"run_id": run, "version": version, "threshold": threshold}
        | {key: made[key] for key in ("roc_auc", "counts")}
        for role, run, version, threshold, made in (
            ("champion", FIRST, 1, 0.23, truth_of(np.random.default_rng(3), 288, 0.3)),
            ("challenger", SECOND, 2, 0.24, truth_of(np.random.default_rng(3), 288, 1)),
        )
    }
    return {
        "schema": 1,
        "model": "CellTwrFail-CLF",
        "day": newest,
        "served": {"run_id": SECOND, "version": 2, "threshold": 0.24},
        "thresholds": list(scores.THRESHOLDS),
        "psi_watch": 0.1,
        "psi_alarm": 0.25,
        "days": days,
        "promotions": [{"day": promoted, "run_id": SECOND, "version": 2}],
        "challenge": {
            **{"day": 9, "decision": "promote", "mode": "on", "messages": 288},
            **{"reason": "roc_auc is higher by 0.19, beyond chance.", **judged},
        },
    }


def log(work, board, experiment="telco-monitoring", status="FINISHED"):
    """Log a dashboard as the monitoring lesson does; return the id of the run."""
    client = client_of(work)
    found = client.get_experiment_by_name(experiment)
    folder = (work / "mlartifacts" / experiment).as_uri()
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, folder)
    run_id = client.create_run(experiment_id).info.run_id
    if board is not None:
        client.log_dict(run_id, board, "dashboard.json")
    client.set_terminated(run_id, status)
    return run_id


def cells_at(counts, threshold):
    """tn, fp, fn and tp at a threshold with two digits."""
    return tuple(counts[cell][round(100 * threshold)] for cell in CELLS)


def added(board, days):
    """The counts of some days together."""
    tables = [day["truth"]["counts"] for day in board["days"] if day["day"] in days]
    return {cell: [sum(one[cell][i] for one in tables) for i in range(101)] for cell in CELLS}


def net_of(cells, r1, r0, penalty):
    """The formula of the original, written once more."""
    tn, fp, fn, tp = cells
    return tp * r1 + tn * r0 - fp * penalty - fn * r1


def money(value):
    """An amount as the page writes it."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def gain(value):
    return ("+" if value > 0 else "") + money(value)


def arithmetic(counts, threshold, r1=100, r0=10, penalty=50):
    """Each number of the page as its text, from the counts that were logged."""
    cells = tn, fp, fn, tp = cells_at(counts, threshold)
    messages, failures = sum(cells), fn + tp
    nets = [net_of(cells_at(counts, step / 100), r1, r0, penalty) for step in range(101)]
    net, best = net_of(cells, r1, r0, penalty), max(nets)
    never = (messages - failures) * r0 - failures * r1
    always = failures * r1 - (messages - failures) * penalty
    pays = 2 * r1 + r0 + penalty
    return {
        "chosen": f"{threshold:.2f}",
        "breakdown": f"{money(net)} = {tp:,} x {money(r1)} + {tn:,} x {money(r0)} "
        f"- {fp:,} x {money(penalty)} - {fn:,} x {money(r1)}",
        "accuracy": f"{(tn + tp) / messages:.3f}",
        "net": money(net),
        "net-per-1000": money(round(1000 * net / messages, 2)),
        "over-never": gain(net - never),
        "over-always": gain(net - always),
        "best": f"{nets.index(best) / 100:.2f}",
        "net-best": money(best),
        "break-even": f"{(r0 + penalty) / pays:.3f}" if pays else "none",
        "net-never": money(never),
        "net-always": money(always),
    }


class TestArithmetic:
    COUNTS = added(board_of(newest=11), (9, 10))

    @pytest.mark.parametrize("threshold", [0, 0.01, 0.23, 0.29, 0.5, 0.57, 0.58, 1])
    @pytest.mark.parametrize("prices", [(100, 10, 50), (7.5, 0, 3), (0, 0, 0), (10, 1000, 0)])
    def test_figures_are_those_of_the_formula(self, threshold, prices):
        shown = dashboard.figures(self.COUNTS, threshold, scores.Prices(*prices))
        cells = cells_at(self.COUNTS, threshold)
        assert (shown.tn, shown.fp, shown.fn, shown.tp) == cells
        assert shown.net == net_of(cells, *prices)
        assert shown.accuracy == (shown.tn + shown.tp) / sum(cells)
        assert math.isclose(shown.net_per_1000 * sum(cells) / 1000, shown.net, abs_tol=1e-9)
        nets = [net_of(cells_at(self.COUNTS, step / 100), *prices) for step in range(101)]
        assert list(shown.net_by_threshold) == nets
        assert (shown.net_best, shown.best) == (max(nets), nets.index(max(nets)) / 100)
        failures = sum(cells[2:])
        assert shown.net_never == net_of((sum(cells) - failures, 0, failures, 0), *prices)
        assert shown.net_always == net_of((0, sum(cells) - failures, 0, failures), *prices)
        assert shown.net_always == nets[0]  # at 0, a truck goes to each message

    def test_a_probability_equal_to_the_threshold_sends_a_truck(self):
        table = scores.counts(np.array([1, 0]), np.array([0.5, 0.5]))
        shown = dashboard.figures({cell: table[cell].tolist() for cell in CELLS}, 0.5)
        assert (shown.tn, shown.fp, shown.fn, shown.tp) == (0, 1, 0, 1)

    def test_no_messages_have_no_accuracy(self):
        shown = dashboard.figures({cell: [0] * 101 for cell in CELLS}, 0.5)
        assert math.isnan(shown.accuracy) and math.isnan(shown.net_per_1000)

    @pytest.mark.parametrize(
        ("prices", "break_even"),
        [
            ((100, 10, 50), 60 / 260),
            ((0, 0, 0), None),  # nothing has a price
            ((100, -60, 50), None),  # a truck to everybody pays: below 0
            ((-10, 100, 0), None),  # a truck never pays: above 1
            ((-100, 10, 50), None),  # it pays below, not above
            ((-100, -10, -50), None),  # the same, though the quotient is a probability
            ((0, 10, 50), 1.0),
        ],
    )
    def test_the_break_even_is_a_probability_or_none(self, prices, break_even):
        assert dashboard.figures(self.COUNTS, 0.5, scores.Prices(*prices)).break_even == break_even

    @pytest.mark.parametrize(
        ("entered", "value", "says"),
        [
            ("100", 100, ""),
            (" 12.5 ", 12.5, ""),
            ("-10", -10, ""),
            (50, 50, ""),
            ("", 0, "is empty and counts as 0"),
            (None, 0, "is empty and counts as 0"),
            ("abc", 0, "holds 'abc', which is not a number: it counts as 0"),
            ("1e", 0, "holds '1e', which is not a number: it counts as 0"),
            ("nan", 0, "holds 'nan', which is not a number: it counts as 0"),
            ("1,000", 0, "holds '1,000', which is not a number: it counts as 0"),
            ("inf", 0, "holds 'inf', which is beyond 1,000,000,000: it counts as 0"),
            ("1e10", 0, "holds '1e10', which is beyond 1,000,000,000: it counts as 0"),
            ("x" * 99, 0, f"holds '{'x' * 20}...', which is not a number: it counts as 0"),
        ],
    )
    def test_what_a_field_holds(self, entered, value, says):
        assert dashboard.price(entered) == (value, says)


class TestChoices:
    def test_all_days_of_the_served_model_come_first_then_each_labelled_day(self):
        board = board_of(newest=11)
        first, *days = dashboard.choices(board)
        assert first.title == "All days of the served model"
        assert first.counts == added(board, (9, 10))  # 11 has no truth, the others another model
        assert [one.title for one in days] == [
            *("Day 6 (version 1)", "Day 7 (version 1)", "Day 8 (version 1)"),
            *("Day 9 (version 2)", "Day 10 (version 2)"),
        ]
        assert days[-1].counts == added(board, (10,))

    def test_a_model_that_has_no_labelled_day_yet_shows_the_one_before(self):
        board = board_of(newest=9)
        first, *_ = dashboard.choices(board)
        assert first.title == (
            "All days of version 1: the served version 2 has no labelled day yet"
        )
        assert first.counts == added(board, (6, 7, 8))

    def test_without_any_truth_there_is_nothing_to_choose(self):
        assert dashboard.choices(board_of(newest=6)) == []


class TestFile:
    def test_what_is_logged_is_read_back_as_it_was(self):
        board = board_of()
        assert dashboard.checked(json.loads(json.dumps(board))) == board

    @pytest.mark.parametrize(
        ("alter", "found"),
        [
            (lambda board: board.update(schema=2), "dashboard.json has the schema 2."),
            (lambda board: board.pop("schema"), "dashboard.json has the schema None."),
            (lambda board: board.pop("challenge"), "dashboard.json lacks challenge."),
            (lambda board: board["thresholds"].pop(), "dashboard.json has other thresholds."),
            (
                lambda board: board["days"][1]["truth"]["counts"]["fp"].pop(),
                "The counts of day 7 in dashboard.json do not fit together.",
            ),
            (
                lambda board: board["days"][0]["truth"]["counts"].pop("tn"),
                "The counts of day 6 in dashboard.json do not fit together.",
            ),
            (
                lambda board: board["challenge"]["champion"]["counts"]["tp"].reverse(),
                "The counts of champion in dashboard.json do not fit together.",
            ),
        ],
    )
    def test_another_file_is_refused_with_the_command_that_makes_one(self, alter, found):
        board = copy.deepcopy(board_of())
        alter(board)
        with pytest.raises(errors.BadInput) as caught:
            dashboard.checked(board)
        assert caught.value.found == found
        assert caught.value.cure.endswith(f"run:  {MONITOR}")

    def test_a_list_is_no_dashboard(self):
        with pytest.raises(errors.BadInput, match=r"the schema 'list'"):
            dashboard.checked([])

    @pytest.mark.parametrize("run_id", ["../other", "a/b", "", "x?y"])
    def test_what_is_no_id_of_a_run_is_not_asked_for(self, run_id):
        with pytest.raises(errors.BadInput, match="is no id of a run"):
            dashboard.load(run_id)

    def test_a_run_without_the_file_is_an_answer_of_the_store(self, work):
        run_id = log(work, None)
        with pytest.raises(errors.StoreError, match=f"did not give dashboard.json of run {run_id}"):
            dashboard.load(run_id)


class TestNewestRun:
    def test_it_is_the_newest_that_finished_and_has_the_file(self, work):
        assert dashboard.newest_run() is None
        log(work, None)
        log(work, board_of(), experiment="another")
        assert dashboard.newest_run() is None
        wanted = [log(work, board_of(newest=newest)) for newest in (7, 8)][-1]
        log(work, None)
        log(work, board_of(newest=9), status="FAILED")
        assert dashboard.newest_run().info.run_id == wanted
        assert dashboard.load(wanted)["day"] == 8


class TestLesson:
    def test_it_prints_the_money_and_ends(self, work):
        board = board_of(newest=11)
        run_id = log(work, board)
        done = run_script(SCRIPT, work, "--print-only")
        assert done.returncode == 0, done.stderr[-3000:]
        counts = added(board, (9, 10))
        expected = arithmetic(counts, 0.5)
        best, never, always = (expected[name] for name in ("net-best", "net-never", "net-always"))
        assert f"Run {run_id}: measured up to day 11" in done.stdout
        assert f"All days of the served model: {sum(cells_at(counts, 0)):,} messages" in done.stdout
        rows = re.findall(r"^threshold (\S+) .*TP (.*) TN (.*) FP (.*) FN (.*) net (.*)$",
                          done.stdout, re.MULTILINE)  # fmt: skip
        assert [float(row[0]) for row in rows] == [0.5, float(expected["best"]), 0.23]
        for threshold, tp, tn, fp, fn, net in rows:
            printed = [int(text.replace(",", "")) for text in (tn, fp, fn, tp)]
            assert tuple(printed) == cells_at(counts, float(threshold))
            assert net.strip() == money(net_of(printed, 100, 10, 50))
        assert re.search(rf"^never act +net +{never}$", done.stdout, re.MULTILINE)
        assert re.search(rf"^always act +net +{always}$", done.stdout, re.MULTILINE)
        assert "a probability of 0.231 on" in done.stdout
        *_, result, look, link = done.stdout.splitlines()
        assert result == (
            f"Done: net {best} at {expected['best']}, {expected['net']} at 0.50; "
            f"never act {never}, always act {always}"
        )
        assert look == "Look at: the page, with  python code/telco/08_model_roi_dashboard.py"
        assert link.endswith(f"/runs/{run_id}/artifacts/dashboard.json")

    def test_without_any_monitoring_it_names_the_lesson_to_run_first(self, work):
        log(work, None)
        done = run_script(SCRIPT, work, CMLFLOW_PRINT_ONLY="1")
        assert done.returncode != 0
        problem, expected, command = done.stderr.rstrip().splitlines()[-3:]
        assert "MissingStep: No finished run of the experiment 'telco-monitoring'" in problem
        assert expected.startswith("Expected: ")
        assert command == f"Run this first:  {MONITOR}"

    def test_before_the_first_truth_it_says_so(self, work):
        log(work, board_of(newest=6))
        done = run_script(SCRIPT, work, "--print-only")
        assert done.returncode == 0
        assert "The truth of no day is known yet" in done.stdout
        assert "Done:" in done.stdout

    @pytest.mark.parametrize("switches", ["", "only-set-experiment no-order no-names"])
    def test_in_cml_it_reads_the_store_of_the_platform(self, tmp_path, switches):
        (tmp_path / CML_STORE).mkdir()
        run_id = log(tmp_path, board_of(newest=11))
        done = run_script(SCRIPT, tmp_path, "--print-only", **in_cml(tmp_path, *switches.split()))
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"Run {run_id}: measured up to day 11" in done.stdout
        assert "\nDone: net " in done.stdout

    def test_a_port_in_use_is_named_with_another(self, work):
        log(work, board_of())
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = run_script(SCRIPT, work, CDSW_APP_PORT=str(port))
        problem, _, command = done.stderr.rstrip().splitlines()[-3:]
        assert f"No server can listen on port {port} of 127.0.0.1" in problem
        again = f"CDSW_APP_PORT={port + 1} python code/{SCRIPT}"
        assert command == f"To use another port, run:  {again}"

    @pytest.mark.parametrize("script", [CODE / SCRIPT, PAGE])
    def test_a_domain_that_would_let_everybody_in_is_refused(self, work, script):
        done = subprocess.run(
            [sys.executable, str(script)],
            env=clean_environment(work, CDSW_APP_PORT=str(free_port()), CDSW_DOMAIN="*"),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode != 0
        assert "BadInput: CDSW_DOMAIN is '*'." in done.stderr


@pytest.fixture(scope="module")
def served(module_work):
    """The lesson as a CML application, on a working area in which 11 days were monitored."""
    board = board_of(newest=11)
    run_id = log(module_work, board)
    names = {"CDSW_DOMAIN": DOMAIN, "CDSW_IP_ADDRESS": "100.64.1.2"}
    with servers.application(CODE / SCRIPT, module_work, free_port(), **names) as started:
        yield SimpleNamespace(**vars(started), board=board, run_id=run_id)


class TestOverHttp:
    @pytest.mark.parametrize("path", ["/", "/_dash-layout"])
    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1:{port}", "localhost", "localhost:{port}", "100.64.1.2:{port}"),
            *(OWN_NAME, f"{OWN_NAME}:443"),
        ],
    )
    def test_it_answers_to_its_own_names(self, served, host, path):
        assert ask(served.port, path, Host=host.format(port=served.port))[0] == 200

    @pytest.mark.parametrize("path", ["/", "/_dash-layout", "/_dash-dependencies"])
    @pytest.mark.parametrize(
        "host",
        ["evil.example", f"{OWN_NAME}.evil.example", f"evil{DOMAIN}", "127.0.0.1.evil.example"],
    )
    def test_it_refuses_other_names(self, served, host, path):
        assert ask(served.port, path, Host=host)[0] == 400

    def test_it_listens_on_this_machine_only(self, served):
        assert listening(served.process) == {("127.0.0.1", served.port)}

    def test_the_page_has_its_title_and_loads_nothing_from_elsewhere(self, served):
        _, text = ask(served.port)
        assert "<title>Interactive Model ROI Dashboard</title>" in text
        assert '<html lang="en">' in text
        assert re.findall(r"https?://", text) == []

    def test_the_debugger_is_off(self, served):
        _, text = ask(served.port, "/?__debugger__=yes&cmd=resource&f=debugger.js")
        assert text.startswith("<!DOCTYPE html>")
        assert '"ui":false' in text and "hot_reload" not in text

    def test_the_log_says_where_it_is(self, served):
        log = served.log.read_text()
        assert f"ROI dashboard: http://127.0.0.1:{served.port}" in log
        assert f"Look at: http://127.0.0.1:{served.port}, in CML under Applications" in log


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser that finds the workbench on this machine, and nothing else."""
    profile = tmp_path_factory.mktemp("profile")
    with contextlib.closing(Browser.of_this_machine(profile, OWN_NAME)) as opened:
        opened.tell("Network.enable")
        yield opened


def shown_in(browser):
    """The texts on the page by the id of their element."""
    pairs = "[...document.querySelectorAll('[id]')].map(e => [e.id, e.innerText])"
    return dict(browser.evaluate(pairs) or ())


def wait_for(browser, expected):
    """Wait until the page shows these texts; say which it does not show."""
    end = time.monotonic() + 60
    while True:
        texts = shown_in(browser)
        wrong = {name: texts.get(name) for name in expected if texts.get(name) != expected[name]}
        if not wrong:
            return
        assert time.monotonic() < end, f"{wrong}, but expected {expected}"


def chart_of(browser, name):
    """The data and the layout of a chart, as Plotly has drawn them."""
    found = f"document.querySelector('#{name} .js-plotly-plot')"
    wait_until(lambda: browser.evaluate(f"Boolean({found} && {found}.data.length)"), name, 60)
    drawn = f"JSON.stringify({{data: {found}.data, layout: {found}.layout}})"
    return json.loads(browser.evaluate(drawn))


@pytest.fixture
def opened(served, browser):
    """The page, opened afresh, with its first numbers."""
    browser.tell("Emulation.clearDeviceMetricsOverride")
    browser.text_of(f"http://127.0.0.1:{served.port}/", served.run_id)
    counts = added(served.board, (9, 10))
    wait_for(browser, arithmetic(counts, 0.5))
    return SimpleNamespace(browser=browser, board=served.board, counts=counts, served=served)


class TestInABrowser:
    def test_it_starts_with_the_prices_and_the_threshold_of_the_original(self, opened):
        values = [
            opened.browser.evaluate(f"document.getElementById('{name}').value")
            for name in ("failure", "quiet", "false-alarm", "threshold")
        ]
        assert values == ["100", "10", "50", "0.5"]
        keypad = "document.getElementById('failure').inputMode"
        assert opened.browser.evaluate(keypad) == "decimal"
        slider = [
            opened.browser.evaluate(f"document.getElementById('threshold').{name}")
            for name in ("type", "min", "max", "step")
        ]
        assert slider == ["range", "0", "1", "0.01"]

    def test_it_says_which_run_version_and_day_the_numbers_are_from(self, opened):
        source = shown_in(opened.browser)["source"]
        assert f"CellTwrFail-CLF, version 2 (run {SECOND}), threshold 0.24." in source
        assert f"Measured up to day 11 by the monitoring run {opened.served.run_id}." in source

    def test_the_slider_moves_by_keyboard(self, opened):
        browser = opened.browser
        browser.evaluate("document.getElementById('threshold').focus()")
        for key, times, threshold in (
            ("ArrowRight", 3, 0.53),
            ("ArrowLeft", 24, 0.29),
            ("Home", 1, 0.0),
            ("End", 1, 1.0),
        ):
            browser.press(key, times)
            wait_for(browser, arithmetic(opened.counts, threshold))
            self.charts_agree(opened, threshold)

    def charts_agree(self, opened, threshold, prices=(100, 10, 50)):
        """The confusion matrix and the line show what the texts say."""
        tn, fp, fn, tp = cells_at(opened.counts, threshold)
        (heat,) = chart_of(opened.browser, "matrix")["data"]
        assert heat["z"] == [[tn, fp], [fn, tp]]
        assert heat["text"] == [[f"TN {tn:,}", f"FP {fp:,}"], [f"FN {fn:,}", f"TP {tp:,}"]]
        texts = opened.browser.evaluate("document.getElementById('matrix').textContent")
        assert all(text in texts for row in heat["text"] for text in row)
        nets = [net_of(cells_at(opened.counts, step / 100), *prices) for step in range(101)]
        net = chart_of(opened.browser, "net-chart")
        line, best, chosen = net["data"]
        assert line["y"] == nets
        assert (best["x"], best["y"]) == ([nets.index(max(nets)) / 100], [max(nets)])
        assert (chosen["x"], chosen["y"]) == ([threshold], [nets[round(100 * threshold)]])
        assert best["marker"]["symbol"] != chosen["marker"]["symbol"]
        assert best["text"] == [f" best {best['x'][0]:.2f} "]
        assert chosen["text"] == [f" chosen {threshold:.2f} "]
        never, always, *even = net["layout"]["shapes"]
        failures = fn + tp
        assert never["y0"] == never["y1"] == net_of((tn + fp, 0, failures, 0), *prices)
        assert always["y0"] == always["y1"] == net_of((0, tn + fp, 0, failures), *prices)
        assert never["line"]["dash"] != always["line"]["dash"]
        names = [one["text"] for one in net["layout"]["annotations"]]
        assert names[:2] == ["never act", "always act"]
        r1, r0, penalty = prices
        at = (r0 + penalty) / (2 * r1 + r0 + penalty)
        assert [one["x0"] for one in even] == [at]
        assert names[2:] == [f"break-even {at:.2f}"]

    def test_a_price_is_typed_emptied_and_replaced_by_text(self, opened):
        browser, counts = opened.browser, opened.counts
        note = functools.partial(dict, **{"prices-note": ""})
        browser.type_over("#false-alarm", "105")  # no multiple of 10
        wait_for(browser, note() | arithmetic(counts, 0.5, penalty=105))
        self.charts_agree(opened, 0.5, (100, 10, 105))
        browser.type_over("#failure", "12.5")
        wait_for(browser, arithmetic(counts, 0.5, r1=12.5, penalty=105))
        browser.type_over("#failure", "100")
        browser.type_over("#false-alarm", "")
        empty = "Penalty per False Positive is empty and counts as 0."
        wait_for(browser, {"prices-note": empty} | arithmetic(counts, 0.5, penalty=0))
        browser.type_over("#quiet", "much")
        text = "Financial Revenue (Actual Target=0) holds 'much', which is not a number"
        both = {"prices-note": f"{text}: it counts as 0. {empty}"}
        wait_for(browser, both | arithmetic(counts, 0.5, r0=0, penalty=0))
        browser.type_over("#failure", "")
        wait_for(browser, arithmetic(counts, 0.5, r1=0, r0=0, penalty=0))  # no break-even

    def test_a_price_changes_by_10_with_its_buttons_and_with_the_arrow_keys(self, opened):
        browser, counts = opened.browser, opened.counts
        browser.evaluate("document.getElementById('quiet-more').click()")
        wait_for(browser, arithmetic(counts, 0.5, r0=20))
        browser.evaluate("document.getElementById('failure').focus()")
        browser.press("ArrowDown")
        wait_for(browser, arithmetic(counts, 0.5, r1=90, r0=20))
        browser.press("ArrowUp")
        wait_for(browser, arithmetic(counts, 0.5, r1=100, r0=20))
        browser.press("Tab")  # to the button, which a keyboard presses too
        browser.press("Enter")
        wait_for(browser, arithmetic(counts, 0.5, r1=90, r0=20))

    def test_a_day_is_chosen_by_keyboard(self, opened):
        browser = opened.browser
        browser.evaluate("document.getElementById('messages').focus()")
        browser.press("Enter")
        option = "document.activeElement.value"
        wait_until(lambda: browser.evaluate(option) == "0", "the list of days", 60)
        for number in "123":
            browser.press("ArrowDown")
            wait_until(lambda now=number: browser.evaluate(option) == now, f"day {number}", 60)
        browser.press("Enter")
        day8 = added(opened.board, (8,))
        title = f"Day 8 (version 1): {sum(cells_at(day8, 0)):,} messages"
        wait_for(browser, {"of-messages": title} | arithmetic(day8, 0.5))

    def test_champion_and_challenger_are_worth_what_the_prices_make_of_them(self, opened):
        judged = {role: opened.board["challenge"][role] for role in ("champion", "challenger")}
        for penalty in (50, 250):
            opened.browser.type_over("#false-alarm", str(penalty))
            wait_for(opened.browser, arithmetic(opened.counts, 0.5, penalty=penalty))
            rows = opened.browser.evaluate(
                "[...document.querySelectorAll('#challenge tbody tr')]"
                ".map(row => [...row.children].map(cell => cell.innerText))"
            )
            assert rows == [
                [
                    f"{role}, version {one['version']}",
                    f"{one['threshold']:.2f}",
                    f"{one['roc_auc']:.3f}",
                    money(net_of(cells_at(one["counts"], one["threshold"]), 100, 10, penalty)),
                ]
                for role, one in judged.items()
            ]
        reason = opened.board["challenge"]["reason"]
        said = f"Day 9, 288 test messages: promote (mode on). {reason}"
        assert shown_in(opened.browser)["verdict"] == said

    def test_each_day_has_its_scores_its_drift_and_its_decision(self, opened):
        days = opened.board["days"]
        roc_auc = chart_of(opened.browser, "auc-chart")
        measured, reference = roc_auc["data"]
        assert measured["x"] == [day["day"] for day in days]
        truths = [day["truth"] or {} for day in days]
        assert measured["y"] == [truth.get("roc_auc") for truth in truths]
        assert reference["y"] == [truth.get("reference_roc_auc") for truth in truths]
        psi = chart_of(opened.browser, "psi-chart")
        by_name = {trace["name"]: trace for trace in psi["data"]}
        assert set(by_name) == set(days[0]["psi"])
        for name, trace in by_name.items():
            assert trace["y"] == [value for day in days for value in day["psi"][name]]
            at = [day["day"] + third / 3 for day in days for third in (-1, 0, 1)]
            assert np.allclose(trace["x"], at)
        dashes = {trace["line"]["dash"] for trace in psi["data"]}
        symbols = {trace["marker"]["symbol"] for trace in psi["data"]}
        assert len(dashes) == len(symbols) == len(psi["data"])  # told apart without colours
        watch, alarm, promoted = psi["layout"]["shapes"]
        assert (watch["y0"], alarm["y0"], promoted["x0"]) == (0.1, 0.25, 8.5)
        assert [one["text"] for one in psi["layout"]["annotations"]] == [
            *("watch 0.1", "alarm 0.25", "version 2"),
        ]
        assert [shape["x0"] for shape in roc_auc["layout"]["shapes"]] == [8.5]
        rows = opened.browser.evaluate(
            "[...document.querySelectorAll('#days tbody tr')]"
            ".map(row => [...row.children].map(cell => cell.innerText))"
        )
        assert rows == [
            [
                str(day["day"]),
                str(day["version"]),
                f"{day['truth']['roc_auc']:.3f}" if day["truth"] else "not known yet",
                f"{max(filter(None, itertools.chain(*day['psi'].values()))):.2f}",
                day["decision"] or "none",
            ]
            for day in reversed(days)
        ]

    def test_it_works_under_the_name_that_a_workbench_gives_it(self, served, browser):
        browser.text_of(f"http://{OWN_NAME}:{served.port}/", served.run_id)
        wait_for(browser, arithmetic(added(served.board, (9, 10)), 0.5))

    @pytest.mark.parametrize("width", [390, 1280])
    def test_nothing_is_wider_than_the_screen(self, opened, width):
        opened.browser.tell(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == 390},
        )
        opened.browser.text_of(f"http://127.0.0.1:{opened.served.port}/", opened.served.run_id)
        chart_of(opened.browser, "net-chart")
        chart_of(opened.browser, "psi-chart")
        fits = (
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth &&"
            "[...document.querySelectorAll('main *')].every(e =>"
            "  e.closest('svg') || e.getBoundingClientRect().right <= innerWidth)"
        )
        wait_until(lambda: opened.browser.evaluate(fits), f"a page of {width} pixels", 60)

    def test_every_control_has_a_name_for_those_who_hear_the_page(self, opened):
        nodes = opened.browser.tell("Accessibility.getFullAXTree")["nodes"]
        roles = ("slider", "textbox", "button")
        names = [
            node["name"]["value"]
            for node in nodes
            if node.get("role", {}).get("value") in roles and not node["ignored"]
        ]
        labels = (
            "Financial Revenue (Actual Target=1)",
            "Financial Revenue (Actual Target=0)",
            "Penalty per False Positive",
        )
        prices = [name for label in labels for name in (label, f"{label} -10", f"{label} +10")]
        rest = ["Decision Threshold: 0.50", "Which messages All days of the served model"]
        assert sorted(name.strip() for name in names) == sorted(prices + rest)

    def test_texts_stand_out_from_what_is_behind_them(self, opened):
        """4.5 to 1, as WCAG 2 asks for; the heat map chooses black or white itself."""
        chart_of(opened.browser, "psi-chart")
        pairs = opened.browser.evaluate(
            """[...document.querySelectorAll('main *')].filter(e => !e.closest('#matrix') &&
              [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())).map(e => {
                const style = getComputedStyle(e);
                let behind = e;
                while (behind && getComputedStyle(behind).backgroundColor == 'rgba(0, 0, 0, 0)')
                  behind = behind.parentElement;
                return [e.textContent, e.closest('svg') ? style.fill : style.color,
                        getComputedStyle(behind || document.body).backgroundColor];
              })"""
        )
        assert len(pairs) > 80

        def light(colour, behind=(255, 255, 255)):
            *rgb, alpha = [*map(float, re.findall(r"[\d.]+", colour)), 1][:4]
            mixed = [alpha * own + (1 - alpha) * b for own, b in zip(rgb, behind, strict=True)]
            linear = [
                c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
                for c in (value / 255 for value in mixed)
            ]
            return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

        for text, colour, background in pairs:
            low, high = sorted((light(colour), light(background)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, colour, background)

    def test_no_request_leaves_this_machine(self, opened):
        chart_of(opened.browser, "net-chart")
        asked = [
            event["params"]["request"]["url"]
            for event in opened.browser.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        assert len(asked) > 10
        own = (
            f"http://127.0.0.1:{opened.served.port}/",
            f"http://{OWN_NAME}:{opened.served.port}/",
        )
        assert [url for url in asked if not url.startswith((*own, "data:"))] == []

    def test_a_reload_shows_what_was_monitored_meanwhile(self, browser, work):
        with servers.application(PAGE, work, free_port()) as started:
            url = f"http://127.0.0.1:{started.port}/"
            browser.text_of(url, "No day has been monitored yet", f"Run this first:  {MONITOR}")
            assert ask(started.port)[0] == 200
            assert browser.evaluate("document.getElementById('content').offsetHeight") == 0
            log(work, board_of(newest=6))
            browser.text_of(url, "The truth of no day is known yet; the newest measured day is 6")
            board = board_of(newest=9)
            board["challenge"]["challenger"]["version"] = None  # it lost, so nobody registered it
            run_id = log(work, board)
            browser.text_of(url, run_id, "the served version 2 has no labelled day yet")
            browser.text_of(url, run_id, "challenger, not registered")
            wait_for(browser, arithmetic(added(board, (6, 7, 8)), 0.5))
            newer = board_of(newest=11) | {"challenge": None, "promotions": []}
            second = log(work, newer)
            browser.text_of(url, second, "No challenger has been judged yet.")
            wait_for(browser, arithmetic(added(newer, (9, 10)), 0.5))
            log(work, newer | {"schema": 2})
            browser.text_of(url, "dashboard.json has the schema 2.", f"run:  {MONITOR}")


class TestItEnds:
    @pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
    def test_the_page_ends_with_the_lesson(self, work, sign):
        with servers.application(CODE / SCRIPT, work, free_port()) as started:
            assert len(started.members) == 2  # the lesson and the server
            started.process.send_signal(sign)
            wait_until(lambda: not alive(started.members), f"the end of both after {sign.name}")

    @pytest.mark.parametrize("script", [CODE / SCRIPT, PAGE])
    def test_ctrl_c_is_no_error(self, work, script):
        with servers.application(script, work, free_port()) as started:
            started.process.send_signal(signal.SIGINT)
            assert started.process.wait(LIMIT) == 0
            assert started.log.read_text().splitlines()[-1] == "Stopped"

    def test_in_a_kernel_it_serves_until_the_kernel_ends(self, work):
        port, run_id = free_port(), log(work, board_of(newest=11))
        *before, last = (CODE / SCRIPT).read_text(encoding="utf-8").split("\n# %%\n")
        with Kernel(work, CDSW_APP_PORT=str(port), CDSW_DOMAIN=DOMAIN) as kernel:
            printed = "".join(kernel.run_cell(cell) for cell in before)
            assert run_id in printed and "Done: net " in printed
            me = psutil.Process(kernel.manager.provisioner.pid)
            waiting = kernel.client.execute(last)
            over = kernel.client.shell_channel.msg_ready
            wait_until(lambda: ask(port)[0] == 200 or over(), "an answer")
            assert not over(), kernel.client._recv_reply(waiting, timeout=LIMIT)["content"]
            assert ask(port, Host=OWN_NAME)[0] == 200
            started = me.children(recursive=True)
            assert len(started) == 1
            kernel.manager.shutdown_kernel()
            wait_until(lambda: not alive(started), "the end of the server after the kernel")
        assert ask(port)[0] is None
