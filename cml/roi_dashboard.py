"""
The ROI dashboard: what the served model earns at your prices, and from which probability on

A page for people who know the prices better than the model. It loads the counts that
07_model_monitoring.py logged, and multiplies: nothing is trained, and Spark is not needed.
Run        python code/telco/08_model_roi_dashboard.py, which starts this file; or by itself,
           python cml/roi_dashboard.py; CDSW_APP_PORT chooses another port
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading

from dash import Dash, Input, Output, State, ctx, dcc, html
from dash.exceptions import PreventUpdate
from werkzeug.serving import make_server

from cmlflow import applications, dashboard, scores, store, workarea
from cmlflow.errors import LessonError, MissingStep

STEP = 10
"""What the buttons beside a price, and the arrow keys in it, add and take away."""
PRICES = {
    "failure": ("Financial Revenue (Actual Target=1)", scores.PRICES.failure),
    "quiet": ("Financial Revenue (Actual Target=0)", scores.PRICES.quiet),
    "false-alarm": ("Penalty per False Positive", scores.PRICES.false_alarm),
}
BLUE, ORANGE, GREY = "#0b5cad", "#b34700", "#5c6470"
# Colours that are told apart without seeing red and green; shapes and dashes say the same.
SERIES = ("#0072b2", "#d55e00", "#007a5e", "#8f4f7c", "#9a6a00", "#222222")
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

# %%
#
# The newest run, read while the browser loads
# --------------------------------------------
# The import of MLflow takes longer than the start of the server. So a thread begins with it at
# once, and the first page does not wait. Each reload looks for a newer run.
reading = threading.Lock()
load = functools.lru_cache(maxsize=8)(dashboard.load)


def newest() -> str:
    """Return the id of the newest monitoring run.

    Raises:
        MissingStep: there is none yet.
        StoreError: the store cannot be read.
    """
    with reading:
        store.use_store()
        run = dashboard.newest_run()
    if run is None:
        raise MissingStep(
            "No day has been monitored yet, so there is nothing to show.",
            f"a finished run of the experiment {dashboard.EXPERIMENT} with {dashboard.FILE}",
            dashboard.MAKE,
        )
    return run.info.run_id


def read_ahead() -> None:
    """Import MLflow and read what the page will ask for; the page itself tells what is wrong."""
    with contextlib.suppress(LessonError):
        load(newest())


# %%
#
# Charts, as Plotly's own JSON
# ----------------------------


def told(value: float) -> str:
    """Return an amount as text: whole if it is whole, else with two digits."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.2f}"


def signed(value: float) -> str:
    """Return a difference as text, with its sign."""
    return f"+{told(value)}" if value > 0 else told(value)


def chart(name: str, says: str, height: int) -> html.Figure:
    """Return the place of a chart, with what it shows in words below it."""
    settings = {"displayModeBar": False, "responsive": True, "showTips": False}
    hidden = {"visible": False}
    graph = dcc.Graph(
        id=name,
        figure={"data": [], "layout": axes(hidden, hidden, height)},
        config=settings,
        style={"height": f"{height}px"},
    )
    return html.Figure([graph, html.Figcaption(says)])


def axes(x: dict, y: dict, height: int, **more) -> dict:
    """Return the layout of a chart that fits a phone; a finger on it scrolls the page."""
    line = {"gridcolor": "#e3e6ea", "zerolinecolor": "#aab1bb", "automargin": True}
    return {
        "height": height,
        "autosize": True,
        "margin": {"l": 48, "r": 12, "t": 28, "b": 40},
        "font": {"size": 13, "color": "#1f2730", "family": "system-ui, sans-serif"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "dragmode": False,
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "xaxis": line | {"fixedrange": True} | x,
        "yaxis": line | {"fixedrange": True} | y,
        **more,
    }


def level(y: float, text: str, dash: str, side: str, above: bool = True) -> tuple[dict, dict]:
    """Return a horizontal line through a chart, and its text at the left or the right end."""
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y}
    name = {"xref": "paper", "x": 0.01 if side == "left" else 0.99, "y": y, "text": text}
    look = {"xanchor": side, "yanchor": "bottom" if above else "top", "showarrow": False}
    small = {"font": {"size": 12, "color": GREY}}
    return line | {"line": {"dash": dash, "width": 1.5, "color": GREY}}, name | look | small


def moment(x: float, text: str) -> tuple[dict, dict]:
    """Return a vertical line through a chart and the text that stands above it."""
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x}
    name = {"yref": "paper", "x": x, "y": 1, "text": text, "showarrow": False, "yanchor": "bottom"}
    look = {"font": {"size": 12, "color": ORANGE}}
    return line | {"line": {"dash": "dot", "width": 2, "color": ORANGE}}, name | look


def drawn(pairs: list[tuple[dict, dict]]) -> dict:
    """Return lines and their texts as the layout of a chart takes them."""
    return {"shapes": [line for line, _ in pairs], "annotations": [text for _, text in pairs]}


def confusion(shown: dashboard.Figures) -> dict:
    """Return the confusion matrix as a heat map with its counts as text."""
    cells = [[("TN", shown.tn), ("FP", shown.fp)], [("FN", shown.fn), ("TP", shown.tp)]]
    trace = {
        "type": "heatmap",
        "x": ["no truck<br>(predicted 0)", "truck<br>(predicted 1)"],
        "y": ["quiet<br>(actual 0)", "failure<br>(actual 1)"],
        "z": [[count for _, count in row] for row in cells],
        "text": [[f"{name} {count:,}" for name, count in row] for row in cells],
        "texttemplate": "%{text}",
        "textfont": {"size": 18},
        "colorscale": [[0, "#f1f5fa"], [1, BLUE]],
        "showscale": False,
        "hoverinfo": "skip",
        "xgap": 4,
        "ygap": 4,
    }
    layout = axes({"showgrid": False}, {"showgrid": False, "autorange": "reversed"}, 320)
    return {"data": [trace], "layout": layout}


def mark(x: float, y: float, name: str, symbol: str, colour: str, where: str) -> dict:
    """Return one marked point of the net revenue, with its name beside it."""
    return {
        "x": [x],
        "y": [y],
        "mode": "markers+text",
        "text": [f" {name} {x:.2f} "],
        "textposition": where,
        "textfont": {"color": colour, "size": 13},
        "marker": {"symbol": symbol, "size": 15, "color": colour},
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def net_chart(shown: dashboard.Figures) -> dict:
    """Return net revenue by threshold, with the chosen, the best and the break-even marked."""
    line = {
        "x": list(scores.THRESHOLDS),
        "y": list(shown.net_by_threshold),
        "mode": "lines",
        "line": {"color": BLUE, "width": 2.5},
        "hovertemplate": "threshold %{x:.2f}: %{y:,.0f}<extra></extra>",
    }
    side = "left" if shown.best > 0.75 or shown.best < (shown.break_even or 0) else "right"
    best = mark(shown.best, shown.net_best, "best", "star", SERIES[2], f"top {side}")
    # The line falls to both sides of the best: there is room on the outside of it.
    side = "right" if shown.threshold >= shown.best else "left"
    at_edge = {"right": shown.threshold > 0.75, "left": shown.threshold < 0.25}[side]
    where = f"top {'left' if side == 'right' else 'right'}" if at_edge else f"middle {side}"
    chosen = mark(shown.threshold, shown.net, "chosen", "diamond", ORANGE, where)
    pairs = [
        level(shown.net_never, "never act", "dash", "right", shown.net_never >= shown.net_always),
        level(
            shown.net_always, "always act", "dashdot", "right", shown.net_always > shown.net_never
        ),
    ]
    if shown.break_even is not None:
        pairs.append(moment(shown.break_even, f"break-even {shown.break_even:.2f}"))
    ends = (shown.net_never, shown.net_always, shown.net_best, min(shown.net_by_threshold))
    low, high = min(ends), max(ends)
    room = 0.12 * (high - low) or 1  # for the texts below and above
    layout = axes(
        {"title": {"text": "Decision Threshold"}, "range": [-0.02, 1.02], "dtick": 0.2},
        {
            "title": {"text": "net revenue"},
            "tickformat": "~s",
            "range": [low - room, high + room],
        },
        360,
        showlegend=False,
        **drawn(pairs),
    )
    return {"data": [line, best, chosen], "layout": layout}


def promotions(board: dict) -> list[tuple[dict, dict]]:
    """Return a vertical line for each day on which another version took over."""
    return [moment(one["day"] - 0.5, f"version {one['version']}") for one in board["promotions"]]


def day_axis(board: dict) -> dict:
    """Return the axis of the days, one tick each."""
    days = [day["day"] for day in board["days"]]
    spread = {"range": [min(days) - 0.7, max(days) + 0.7]} if days else {}
    return {"title": {"text": "day"}, "dtick": max(1, len(days) // 10), "tick0": 0} | spread


def roc_auc_chart(board: dict) -> dict:
    """Return roc_auc by day, beside what the version had when it was trained."""
    days = [day["day"] for day in board["days"]]
    truths = [day["truth"] or {} for day in board["days"]]
    measured = {
        "x": days,
        "y": [truth.get("roc_auc") for truth in truths],
        "mode": "lines+markers",
        "name": "roc_auc of the day",
        "line": {"color": BLUE},
        "marker": {"symbol": "circle", "size": 10},
    }
    reference = {
        "x": days,
        "y": [truth.get("reference_roc_auc") for truth in truths],
        "mode": "lines+markers",
        "name": "when it was trained",
        "line": {"color": GREY, "dash": "dash", "shape": "hvh"},  # of the version that answered
        "marker": {"symbol": "line-ew-open", "size": 12},
    }
    layout = axes(day_axis(board), {"tickformat": ".3f"}, 320, **drawn(promotions(board)))
    return {"data": [measured, reference], "layout": layout}


def psi_chart(board: dict) -> dict:
    """Return PSI of each feature by window, with the lines of watch and alarm."""
    traces = []
    for number, feature in enumerate(dict.fromkeys(f for day in board["days"] for f in day["psi"])):
        looks = number % len(SERIES)
        points = [
            (day["day"] - 0.5 + (window + 0.5) / len(day["psi"][feature]), psi)
            for day in board["days"]
            for window, psi in enumerate(day["psi"].get(feature, ()))
        ]
        traces.append(
            {
                "x": [x for x, _ in points],
                "y": [psi for _, psi in points],
                "mode": "lines+markers",
                "name": feature,
                "line": {"color": SERIES[looks], "dash": DASHES[looks], "width": 1.5},
                "marker": {"symbol": SYMBOLS[looks], "size": 7},
            }
        )
    watch, alarm = board["psi_watch"], board["psi_alarm"]
    pairs = [
        level(watch, f"watch {watch:g}", "dot", "left"),
        level(alarm, f"alarm {alarm:g}", "dash", "left"),
        *promotions(board),
    ]
    layout = axes(day_axis(board), {"rangemode": "tozero"}, 420, **drawn(pairs))
    return {"data": traces, "layout": layout}


# %%
#
# The page
# --------
# Prices are text fields, because a number field of a browser refuses 105 where its step is 10, and
# hides what is wrong with the rest. The slider is the browser's own: it has a keyboard already.
STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0; background: #f3f5f8; color: #1f2730; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1180px; margin: 0 auto; padding: 16px }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 8px 0 }
h2 { font-size: 1.2rem; margin: 0 0 8px }
p { margin: 6px 0 }
.source, figcaption, .hint { color: #4a525d; font-size: .9rem }
.source { overflow-wrap: anywhere }
section, .notice { background: white; border: 1px solid #d5dae1; border-radius: 8px; padding: 14px;
  margin: 14px 0 }
.notice { border-left: 6px solid #b34700; white-space: pre-wrap; overflow-wrap: anywhere }
.grid { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)) }
.grid > * { min-width: 0 }
label { display: block; font-weight: 600; margin-bottom: 2px }
.price { display: flex; gap: 6px }
.price .dash-input-container { flex: 1; min-width: 0; width: auto }
.price input { font-size: 1.1rem; min-width: 0; width: 100% }
.price button { min-width: 56px; min-height: 40px; font: inherit; background: #eef2f7;
  border: 1px solid #7b8491; border-radius: 6px; cursor: pointer }
:focus-visible { outline: 3px solid #0b5cad; outline-offset: 2px }
#threshold { width: 100%; height: 36px; accent-color: #0b5cad; margin: 0; padding: 0 }
.dash-input-container:has(#threshold) { width: 100%; border: 0; background: none }
dl { display: grid; gap: 10px; margin: 10px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 155px), 1fr)) }
dl > div { background: #f3f5f8; border-radius: 6px; padding: 8px 10px }
dt { font-size: .85rem; color: #4a525d }
dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums }
figure { margin: 0; min-width: 0 }
table { border-collapse: collapse; width: 100%; font-size: .95rem }
th, td { text-align: left; padding: 6px 8px; border-bottom: 1px solid #d5dae1; vertical-align: top;
  overflow-wrap: break-word; font-variant-numeric: tabular-nums }
caption { text-align: left; margin: 6px 0; color: #4a525d }
@media (max-width: 480px) {
  main { padding: 10px } section { padding: 10px } th, td { padding: 5px 3px; font-size: .8rem }
}
"""
ARROWS = """
document.addEventListener("keydown", event => {
  const way = {ArrowUp: "more", ArrowDown: "less"}[event.key];
  if (way && event.target.matches(".price input")) {
    event.preventDefault();
    document.getElementById(`${event.target.id}-${way}`).click();
  }
});
"""
INDEX = f"""<!DOCTYPE html>
<html lang="en">
<head>{{%metas%}}<title>{{%title%}}</title>{{%favicon%}}{{%css%}}<style>{STYLE}</style></head>
<body>{{%app_entry%}}<footer>{{%config%}}{{%scripts%}}{{%renderer%}}</footer>
<script>{ARROWS}</script></body>
</html>"""
NUMBERS = {
    "accuracy": "Accuracy",
    "net": "Net revenue",
    "net-per-1000": "Net revenue of 1000 messages",
    "over-never": "Gain over never acting",
    "over-always": "Gain over always acting",
    "best": "Best threshold",
    "net-best": "Net revenue at the best threshold",
    "break-even": "Break-even probability",
    "net-never": "Net revenue, never acting",
    "net-always": "Net revenue, always acting",
}


def price_field(name: str) -> html.Div:
    """Return the field of a price with its label and two buttons."""
    label, default = PRICES[name]
    field = dcc.Input(id=name, value=told(default), type="text", inputMode="decimal")
    buttons = [
        html.Button(f"{sign}{STEP}", id=f"{name}-{way}", **{"aria-label": f"{label} {sign}{STEP}"})
        for way, sign in (("less", "-"), ("more", "+"))
    ]
    return html.Div(
        [html.Label(label, htmlFor=name), html.Div([field, *buttons], className="price")]
    )


def controls() -> html.Section:
    """Return what the reader can change."""
    threshold = [
        html.Label(["Decision Threshold: ", html.Span(id="chosen")], htmlFor="threshold"),
        dcc.Input(id="threshold", type="range", min=0, max=1, step=0.01, value=0.5),
    ]
    # The drop-down takes its name from two ids, the first of which it leaves free.
    messages = [
        html.Label("Which messages", htmlFor="messages", id="messages-value-count"),
        dcc.Dropdown(id="messages", clearable=False, searchable=False),
    ]
    return html.Section(
        [
            html.Div([price_field(name) for name in PRICES], className="grid"),
            html.P(f"Arrow up and arrow down change a price by {STEP}.", className="hint"),
            html.P(id="prices-note", role="status"),
            html.Div([html.Div(threshold), html.Div(messages)], className="grid"),
        ]
    )


def results() -> html.Section:
    """Return what follows from prices, threshold and messages."""
    numbers = [html.Div([html.Dt(says), html.Dd(id=name)]) for name, says in NUMBERS.items()]
    matrix = chart("matrix", "Decided rightly: TN and TP. Decided wrongly: FP and FN.", 320)
    net = chart(
        "net-chart",
        "Star: the best threshold. Diamond: the chosen one. Dotted upright: break-even. "
        "Levels: dashes for never acting, dashes and dots for always acting.",
        360,
    )
    charts = [
        html.Div([html.H2("Confusion Matrix"), matrix]),
        html.Div([html.H2("Net revenue by threshold"), net]),
    ]
    return html.Section(
        [
            html.H2(id="of-messages"),
            html.P(id="breakdown", role="status"),
            html.Dl(numbers),
            html.Div(charts, className="grid"),
        ]
    )


def history() -> html.Section:
    """Return what does not depend on the prices: each day with its drift and its decision."""
    charts = [
        chart(
            "auc-chart",
            "roc_auc of each day whose truth is known. Dashes: the same version when it was "
            "trained. Dotted upright: this version took over.",
            320,
        ),
        chart(
            "psi-chart",
            "PSI of each feature, three windows a day: how far the inputs have moved since the "
            "version was trained. A gap is a window with too few messages. Dotted upright: this "
            "version took over.",
            420,
        ),
    ]
    return html.Section(
        [html.H2("Day by day"), html.Div(charts, className="grid"), html.Div(id="days")]
    )


def page() -> html.Main:
    """Return all that stands on the page; its numbers come afterwards."""
    rivals = [
        html.H2("Champion against challenger"),
        html.P(id="verdict"),
        html.Div(id="challenge"),
    ]
    return html.Main(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Store(id="run"),
            html.H1("Interactive Model ROI Dashboard"),
            html.P(
                "A truck is sent to a tower whose probability of a failure reaches the threshold. "
                "Type what an answer earns or costs, move the threshold, and see what the served "
                "model would have earned on messages whose truth is known by now."
            ),
            html.P(
                "Net revenue = TP x revenue (target 1) + TN x revenue (target 0) - FP x penalty "
                "- FN x revenue (target 1). TP: failures found. TN: quiet, and no truck. FP: a "
                "truck for nothing. FN: failures missed. A missed failure counts twice against "
                "one that was found, because it earns nothing and costs as much."
            ),
            html.P("Reading the newest run ...", id="source", className="source", role="status"),
            html.Div(id="notice", className="notice", hidden=True, role="alert"),
            html.Div([controls(), results(), html.Section(rivals), history()], id="content"),
        ]
    )


# %%
#
# What changes on it
# ------------------
# MLflow sends statistics to its makers when it is imported; a page of numbers sends nothing.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
app = Dash(
    __name__,
    title="Interactive Model ROI Dashboard",
    update_title=None,
    assets_folder="no-assets",
    meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
)
app.index_string = INDEX
app.layout = page()


def table(head: list[str], rows: list[list], name: str) -> html.Table:
    """Return a table whose first column names the row."""
    body = [
        html.Tr([html.Th(first, scope="row"), *map(html.Td, others)]) for first, *others in rows
    ]
    columns = html.Tr([html.Th(title, scope="col") for title in head])
    return html.Table([html.Caption(name), html.Thead(columns), html.Tbody(body)])


def days_table(board: dict) -> html.Table:
    """Return the days, newest first, with what was measured and decided."""
    rows = []
    for day in reversed(board["days"]):
        measured = [psi for windows in day["psi"].values() for psi in windows if psi is not None]
        truth = day["truth"] or {}
        rows.append(
            [
                day["day"],
                day["version"],
                f"{truth['roc_auc']:.3f}" if truth else "not known yet",
                f"{max(measured):.2f}" if measured else "too few",
                day["decision"] or "none",  # of several days at once, only the last has one
            ]
        )
    head = ["Day", "Version", "roc_auc", "Highest PSI", "Decision"]
    return table(head, rows, "What was measured, and what was decided")


@app.callback(
    {
        "run": Output("run", "data"),
        "source": Output("source", "children"),
        "notice": Output("notice", "children"),
        "no_notice": Output("notice", "hidden"),
        "no_content": Output("content", "hidden"),
        "options": Output("messages", "options"),
        "choice": Output("messages", "value"),
        "roc_auc": Output("auc-chart", "figure"),
        "psi": Output("psi-chart", "figure"),
        "days": Output("days", "children"),
    },
    Input("address", "href"),
)
def read_newest(address: str) -> dict:
    """Fill in what depends on the run alone; a reload of the page looks for a newer one."""
    try:
        run_id = newest()
        board = load(run_id)
        messages = dashboard.choices(board)
        if not messages:
            raise MissingStep(
                f"The truth of no day is known yet; the newest measured day is {board['day']}.",
                "a day whose failures are known, which is the case one day later",
                "python code/telco/03_newbatch.py, then  " + dashboard.MAKE,
            )
    except LessonError as error:
        nothing = dict.fromkeys(("run", "options", "choice", "days"))
        return nothing | {
            "source": "",
            "notice": f"{error}\nThen reload this page.",
            "no_notice": False,
            "no_content": True,
            "roc_auc": {},
            "psi": {},
        }
    served = board["served"]
    return {
        "run": run_id,
        "source": f"{board['model']}, version {served['version']} (run {served['run_id']}), "
        f"threshold {served['threshold']:.2f}. Measured up to day {board['day']} by the "
        f"monitoring run {run_id}.",
        "notice": "",
        "no_notice": True,
        "no_content": False,
        "options": [{"label": one.title, "value": number} for number, one in enumerate(messages)],
        "choice": 0,
        "roc_auc": roc_auc_chart(board),
        "psi": psi_chart(board),
        "days": days_table(board),
    }


def step_price(less: int, more: int, entered: str) -> str:
    """Return a price after one of its buttons was pressed."""
    way = 1 if ctx.triggered_id.endswith("-more") else -1
    return told(dashboard.price(entered)[0] + way * STEP).replace(",", "")


for name in PRICES:
    app.callback(
        Output(name, "value"),
        Input(f"{name}-less", "n_clicks"),
        Input(f"{name}-more", "n_clicks"),
        State(name, "value"),
        prevent_initial_call=True,
    )(step_price)


@app.callback(
    {
        "note": Output("prices-note", "children"),
        "chosen": Output("chosen", "children"),
        "title": Output("of-messages", "children"),
        "breakdown": Output("breakdown", "children"),
        "numbers": {name: Output(name, "children") for name in NUMBERS},
        "matrix": Output("matrix", "figure"),
        "net": Output("net-chart", "figure"),
        "verdict": Output("verdict", "children"),
        "challenge": Output("challenge", "children"),
    },
    {
        "run_id": Input("run", "data"),
        "choice": Input("messages", "value"),
        "threshold": Input("threshold", "value"),
        "entered": [Input(name, "value") for name in PRICES],
    },
)
def calculate(run_id: str | None, choice: int, threshold: float, entered: list) -> dict:
    """Fill in what depends on prices, threshold and messages. No model is asked, only counts."""
    if run_id is None:
        raise PreventUpdate
    board = load(run_id)
    read = [dashboard.price(text) for text in entered]
    notes = [
        f"{PRICES[name][0]} {note}." for name, (_, note) in zip(PRICES, read, strict=True) if note
    ]
    prices = scores.Prices(*(value for value, _ in read))
    messages = dashboard.choices(board)[choice]
    shown = dashboard.figures(messages.counts, float(threshold), prices)
    verdict, rivals = challenge(board["challenge"], prices)
    r1, r0, penalty = (told(value) for value, _ in read)
    return {
        "note": " ".join(notes),
        "chosen": f"{shown.threshold:.2f}",
        "title": f"{messages.title}: {shown.messages:,} messages",
        "breakdown": f"{told(shown.net)} = {shown.tp:,} x {r1} + {shown.tn:,} x {r0} "
        f"- {shown.fp:,} x {penalty} - {shown.fn:,} x {r1}",
        "numbers": {
            "accuracy": f"{shown.accuracy:.3f}",
            "net": told(shown.net),
            "net-per-1000": told(round(shown.net_per_1000, 2)),
            "over-never": signed(shown.net - shown.net_never),
            "over-always": signed(shown.net - shown.net_always),
            "best": f"{shown.best:.2f}",
            "net-best": told(shown.net_best),
            "break-even": "none" if shown.break_even is None else f"{shown.break_even:.3f}",
            "net-never": told(shown.net_never),
            "net-always": told(shown.net_always),
        },
        "matrix": confusion(shown),
        "net": net_chart(shown),
        "verdict": verdict,
        "challenge": rivals,
    }


def challenge(judged: dict | None, prices: scores.Prices) -> tuple[str, html.Table | None]:
    """Return the last verdict in words, and both models at these prices."""
    if not judged:
        return "No challenger has been judged yet.", None
    rows = []
    for role in ("champion", "challenger"):
        model = judged[role]
        net = dashboard.figures(model["counts"], model["threshold"], prices).net
        version = f"version {model['version']}" if model["version"] else "not registered"
        rows.append(
            [
                f"{role}, {version}",
                f"{model['threshold']:.2f}",
                f"{model['roc_auc']:.3f}",
                told(net),
            ]
        )
    said = f"Day {judged['day']}, {judged['messages']:,} test messages: {judged['decision']} "
    head = ["Model", "Its threshold", "roc_auc", "Net revenue"]
    name = "Both on the same messages, each at its own threshold, at the prices above"
    return f"{said}(mode {judged['mode']}). {judged['reason']}", table(head, rows, name)


# %%
#
# The server
# ----------
# Flask answers 400 to any Host that is not named here: else a page on the internet could have your
# browser read this one (DNS rebinding). The development server of Dash itself would return at once
# in a kernel, so we start the server beneath it.
app.server.config["TRUSTED_HOSTS"] = applications.own_names()
domain = applications.domain().partition(":")[0]
if domain:
    app.server.config["TRUSTED_HOSTS"].append(f".{domain}")  # CML serves it as a subdomain
port = applications.port("CDSW_APP_PORT={port} python cml/roi_dashboard.py")
threading.Thread(target=read_ahead, daemon=True).start()
logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it prints every request
server = make_server("127.0.0.1", port, app.server, threaded=True)
place = ", in CML under Applications" if workarea.in_cml() else ""
print(f"ROI dashboard: http://127.0.0.1:{port}{place} (stop with Ctrl+C)", flush=True)
server.serve_forever()  # until Ctrl+C
print("Stopped")
