"""The text of the lessons: what a reader, a kernel and the README rely on."""

import ast
import re
import subprocess
import sys

import mlflow
import pytest
from conftest import CODE, ROOT, run_script

import tutorial

PARTS = ("", "telco")  # folders of lessons
LESSONS = [
    path.relative_to(CODE).as_posix()
    for part in PARTS
    for path in sorted((CODE / part).glob("[0-9]*.py"))
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WALK = (CODE / "README.md").read_text(encoding="utf-8")
IN_CML, FUNCTIONS, MORE_TROUBLE = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("CML", "MLFLOW", "TROUBLESHOOTING")
)
TEXTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, CODE, ROOT / "docs", ROOT / "tests", ROOT / "benchmarks", ROOT / "img")
    for path in folder.glob("*.md")
)
FIELDS = ("You learn", "Reads", "Writes", "Needs", "Run")


def source(lesson):
    return (CODE / lesson).read_text(encoding="utf-8")


@pytest.fixture(params=LESSONS)
def lesson(request):
    return request.param


def fields(lesson):
    """The title of a lesson and the five fields of its docstring, each as one line."""
    docstring = ast.get_docstring(ast.parse(source(lesson)))
    title, _, rest = docstring.partition("\n\n")
    found = re.findall(
        rf"^({'|'.join(FIELDS)}) +(\S.*(?:\n {{11}}\S.*)*)", rest.partition("\n\n")[0], re.MULTILINE
    )
    return title, {name: re.sub(r"\s+", " ", text) for name, text in found}


def table_rows():
    """The README's tables of lessons: name, what you learn, needs, takes, leaves behind."""
    link = r"\[`(\w+\.py)`\]\(code/((?:telco/)?\1)\)"
    row = rf"^\| {link} \| (.+?) \| (?:(.+); )?(\d.*?) \| (.+?) \|$"
    return [one[1:] for one in re.findall(row, README, re.MULTILINE)]


def test_the_readme_lists_every_lesson_in_the_order_of_running():
    once = list(dict.fromkeys(line.split()[0] for line in tutorial.LESSONS))
    assert [name for name, *_ in table_rows()] == LESSONS
    assert [*once, tutorial.LOOP] == LESSONS
    assert re.findall(r"^### (`[\w/]+\.py`(?:, `\w+\.py`)*)", WALK, re.MULTILINE) == [
        "`10_train_kneighbors.py`, `11_train_random_forest.py`"
        if name.startswith("10")
        else f"`{name}`"
        for name in LESSONS
        if not name.startswith("11")
    ]


def test_needs_takes_and_leaves_behind_are_those_of_the_docstring(lesson):
    (_, _, needs, takes, leaves) = next(row for row in table_rows() if row[0] == lesson)
    _, said = fields(lesson)
    assert re.match(r"\d+", takes)[0] == re.search(r"about (\d+) seconds", said["Needs"])[1]
    assert ("Spark" in needs) == said["Needs"].startswith("Spark")
    assert re.findall(r"`(\w+)`", needs) == re.findall(r"\b(\d\d_\w+)\.py\b", said["Needs"])
    written = set(re.findall(r'"(.+?)"', said["Writes"]))
    written |= {
        name.removeprefix("spark_catalog.")
        for name in re.findall(r"[\w.]*default\.\w+", said["Writes"])
    }
    written |= set(re.findall(r"\bdata/[\w.]*\w", said["Writes"]))
    assert {name.rstrip("/") for name in re.findall(r"`(.+?)`", leaves)} == written


def test_the_docstring_has_a_title_and_the_five_fields(lesson):
    title, said = fields(lesson)
    part, number = lesson.rpartition("/")[::2]
    assert re.fullmatch(rf"{part.capitalize()} ?{number[:2]} - [A-Z].*", title.strip())
    assert list(said) == list(FIELDS)
    assert f"python code/{lesson}" in said["Run"]


def test_it_consists_of_cells_with_underlined_headings(lesson):
    cells = source(lesson).split("\n# %%\n")[1:]
    assert len(cells) >= 3
    for cell in cells:
        empty, heading, line = cell.splitlines()[:3]
        assert empty == "#"
        assert heading.startswith("# ") and line == "# " + "-" * (len(heading) - 2)


def test_nothing_in_it_ties_it_to_a_kernel_or_to_a_terminal(lesson):
    text = source(lesson)
    assert not re.search(r"^\s*[!%]", text, re.MULTILINE)
    assert "__file__" not in text
    names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert not names & {"exit", "_exit"}
    assert "SystemExit" not in text
    assert "/home/" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)  # prose may name it


def test_it_holds_no_pasted_id(lesson):
    assert not re.search(
        r"\b[0-9a-f]{32}\b|\b\d{15,19}\b|\b[a-z0-9]{4}(-[a-z0-9]{4}){3}\b", source(lesson)
    )


def test_nothing_is_a_bare_expression(lesson):
    """A kernel would show it, `python` would not."""
    body = ast.parse(source(lesson)).body[1:]
    expressions = [node.value for node in body if isinstance(node, ast.Expr)]
    assert all(isinstance(value, ast.Call) for value in expressions)


def test_both_trainings_of_part_4_have_the_same_params():
    """Else the gate would compare params, and not what the rows teach."""
    first, later = (
        ast.dump(node.value)
        for lesson in ("telco/01_train_xgboost.py", "telco/04_train_xgboost.py")
        for node in ast.parse(source(lesson)).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMS"
    )
    assert first == later


def test_no_comment_is_code_to_switch_on(lesson):
    """Comments at the margin are prose: a line that parses as a call or an assignment is not."""
    for line in re.findall(r"^# ?(.*)$", source(lesson), re.MULTILINE):
        try:
            body = ast.parse(line).body
        except SyntaxError:
            continue
        assert not any(isinstance(node, ast.Assign | ast.Import | ast.ImportFrom) for node in body)
        assert not any(
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) for node in body
        ), line


def test_a_dollar_sign_would_start_mathematics(lesson):
    assert "$" not in source(lesson)


def code_lines(text):
    """The lines of a text that are neither empty nor a comment."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_it_is_about_a_page(lesson):
    longer = {"06_Spark_Iceberg.py": 150, "14_XGBoost_Iceberg.py": 205}
    longer |= {"15_XGBoost_Distributed.py": 170}
    longer |= {"telco/05_api_redeployment.py": 165, "telco/07_model_monitoring.py": 150}
    (_, after) = source(lesson).removeprefix('"""').split('"""', 1)
    assert len(code_lines(after)) <= longer.get(lesson, 130)


def test_no_cell_is_longer_than_a_screen_and_the_first_three_show_something(lesson):
    cells = source(lesson).split("\n# %%\n")[1:]
    for cell in cells:
        assert len(code_lines(cell)) <= 28, cell
    shows = re.compile(r"\bprint\(|\bshow\(")
    assert all(shows.search(cell) for cell in cells[:3])


def test_every_mlflow_function_of_the_readme_is_used_in_the_lesson_it_names():
    rows = re.findall(
        r"^\| `(?:mlflow|MlflowClient)[\w.]*\.(\w+)` \| (.+?) \|", FUNCTIONS, re.MULTILINE
    )
    functions = dict(rows)
    for name in (
        "create_experiment", "set_experiment", "start_run", "end_run", "active_run",
        "log_param", "log_params", "log_metric", "log_metrics", "set_tag", "set_tags",
        "log_artifact", "log_artifacts", "get_artifact_uri",
    ):  # fmt: skip
        assert name in functions
    for name, cell in rows:
        named = re.findall(r"`([\w/]+\.py)`", cell)
        assert named, name
        for lesson in named:
            assert re.search(rf"\b{name}\(", source(lesson)), f"{name} in {lesson}"
    assert re.search(r"log_metric\([^)]*step=", source("01_Experiment.py"))


def test_the_operations_of_api_v2_in_the_readme_are_those_that_are_called():
    table = IN_CML.partition("| Operation of API v2 |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.+?`) \| `([\w/]+\.py)` \|", table, re.MULTILINE)
    named = {name for cell, _ in cells for name in re.findall(r"`(\w+)`", cell)}
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "cmlflow").rglob("*.py"))
    called = set(re.findall(r"\bapi\.(\w+_\w+)", code))
    assert named == called
    assert {lesson for _, lesson in cells} <= set(LESSONS)


@pytest.mark.parametrize("name", TEXTS)
def test_links_pictures_and_anchors_of_a_text_lead_somewhere(name):
    here = ROOT / name
    for target, anchor in re.findall(
        r"\]\(([^)#]*)(?:#([^)]+))?\)", here.read_text(encoding="utf-8")
    ):
        if target.startswith("http"):
            continue
        there = here.parent / target if target else here
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            }
            assert anchor in slugs, f"{target}#{anchor}"


OF_OTHERS = {"--help", "--backend-store-uri", "--host", "--workers", "--allowed-hosts"}
OF_OTHERS |= {"--driver-memory", "--only-binary", "--python-platform"}  # of Spark, pip and uv


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_option_variable_and_script_of_a_text_exists(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rooms = ("code", "cml", "cmlflow", "tests", "img", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in {*files, ROOT / "tutorial.py"})
    options = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', sources))

    targets = re.findall(r"\bmake ((?!PYTHON)[a-z][a-z-]+)\b", text)
    assert set(targets) <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) <= options | OF_OTHERS
    of_options = {f"CMLFLOW_{one[2:].upper().replace('-', '_')}" for one in options}
    variables = re.findall(r"\b(?:CMLFLOW|CDSW|MLFLOW|PYSPARK|CONNECTION)_[A-Z_0-9]*[A-Z]\b", text)
    for variable in set(variables) - of_options:
        assert re.search(rf"\b{variable}\b", sources + makefile), variable
    paths = [f"/{path.relative_to(ROOT).as_posix()}" for path in files] + ["/tutorial.py"]
    for script in re.findall(r"(?:\w+/)*\w+\.py\b", text):
        if "nn_" not in script.lower():  # a name that the reader is to choose
            assert any(path.endswith(f"/{script}") for path in paths), script


def test_the_first_screen_says_how_to_get_the_python_that_all_messages_name():
    screen = README.partition("| Command |")[0]
    assert re.search(
        r"^\$ source \.venv/bin/activate +# Windows: \.venv\\Scripts\\activate$", screen, re.M
    )
    assert "$ python code/" in screen and ".venv/bin/python" not in screen


# Headings of the troubleshooting section: the message, and what stands behind it, if anything.
TROUBLE = README.partition("## Troubleshooting")[2].partition("\n## ")[0] + MORE_TROUBLE
HEADINGS = re.findall(r"^### (`+)(.+?)\1(?: (.+))?$", TROUBLE, re.MULTILINE)
OURS = [message for _, message, where in HEADINGS if not where and "WARNING" not in message]
OTHERS = [message for _, message, _ in HEADINGS if message not in OURS]


@pytest.mark.parametrize("message", OURS)
def test_messages_under_troubleshooting_are_those_of_the_code(message):
    """The first part that is always the same: values stand in quotation marks or are dots."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("cmlflow", "code", "cml")
        for path in (ROOT / folder).rglob("*.py")
    )
    code = re.sub(r'"\n\s+f?"', "", code)  # a text that goes on in the next line
    parts = re.split(r"['…(]", message.removeprefix("mlflow.db"))
    fixed = next(part.strip() for part in parts if part.strip())
    assert len(fixed) > 10 and fixed in code


def deprecated(work):
    return run_script("02_log_model.py", work).stderr


def run_uuid(work):
    """What MLflow 3 answers to a plugin that was written for MLflow 2."""
    with pytest.raises(TypeError) as caught:
        mlflow.entities.RunInfo(run_uuid="0")
    return str(caught.value)


def without_packages(work):
    """What the Python says that the environment was made with."""
    script = str(CODE / "01_Experiment.py")
    return subprocess.run([sys._base_executable, script], capture_output=True, text=True).stderr


PROVOKED = {
    "artifact_path": deprecated,
    "cloudpickle": deprecated,
    "run_uuid": run_uuid,
    "pandas": without_packages,
}
ELSEWHERE = {"flask": "test_02_log_model.py"}


@pytest.mark.parametrize("message", OTHERS)
def test_messages_of_others_under_troubleshooting_are_what_they_say(message, work):
    (word,) = (word for word in (*PROVOKED, *ELSEWHERE) if word in message)
    if word in ELSEWHERE:
        test = (ROOT / "tests" / ELSEWHERE[word]).read_text(encoding="utf-8")
        assert f'r"^### `(.*{word}.*)` ' in test  # it reads the heading and provokes the message
    else:
        assert message.strip("… ") in PROVOKED[word](work)


def test_every_heading_under_troubleshooting_is_a_message():
    assert len(re.findall(r"^### ", TROUBLE, re.MULTILINE)) == len(HEADINGS) == len(OURS + OTHERS)
    assert len(re.findall(r"^### ", README.partition("## Troubleshooting")[2], re.MULTILINE)) == 5
