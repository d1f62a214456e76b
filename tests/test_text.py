"""The text of the lessons: what a reader, a kernel and the README rely on."""

import ast
import re

import mlflow
import pytest
from conftest import CODE, ROOT, run_script, succeed

import tutorial

pytestmark = pytest.mark.once

LESSONS = sorted(path.name for path in CODE.glob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIELDS = ("You learn", "Reads", "Writes", "Needs", "Run")


def source(lesson):
    return (CODE / lesson).read_text(encoding="utf-8")


@pytest.fixture(params=LESSONS)
def lesson(request):
    return request.param


def test_the_runner_and_the_readme_know_every_lesson_in_the_same_order():
    once = list(dict.fromkeys(line.split()[0] for line in tutorial.LESSONS))
    assert sorted(once) == LESSONS
    rows = re.findall(r"^\| \[`(\w+\.py)`\]\(code/(\w+\.py)\)", README, re.MULTILINE)
    assert [name for name, _ in rows] == [link for _, link in rows] == once


def test_the_docstring_has_a_title_and_the_five_fields(lesson):
    docstring = ast.get_docstring(ast.parse(source(lesson)))
    title, _, rest = docstring.partition("\n\n")
    number = lesson[:2] if lesson[0].isdigit() else "AMP"
    assert re.fullmatch(rf"{number} - [A-Z].*", title)
    lines = rest.splitlines()
    found = [field for line in lines for field in FIELDS if re.match(rf"{field} +\S", line)]
    assert found == list(FIELDS)
    assert f"python code/{lesson}" in rest


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


def test_it_is_about_a_page_or_two(lesson):
    code = [line for line in source(lesson).splitlines() if line and not line.startswith("#")]
    longer = {
        "06_Spark_Iceberg.py": 165,  # three experiments, and the way back from data to models
        "14_XGBoost_Iceberg.py": 205,  # two ways of training, by hand and by autolog
        "08_Reproduce_Run.py": 225,  # five ways to name a run, and each cause of a failure
    }
    assert len(code) <= longer.get(lesson, 140)


def test_every_mlflow_function_of_the_readme_is_used_in_the_lesson_it_names():
    rows = re.findall(
        r"^\| `(?:mlflow|MlflowClient)[\w.]*\.(\w+)` \| (.+?) \|", README, re.MULTILINE
    )
    functions = dict(rows)
    for name in (
        "create_experiment", "set_experiment", "start_run", "end_run", "active_run",
        "log_param", "log_params", "log_metric", "log_metrics", "set_tag", "set_tags",
        "log_artifact", "log_artifacts", "get_artifact_uri",
    ):  # fmt: skip
        assert name in functions
    for name, cell in rows:
        named = re.findall(r"`(\w+\.py)`", cell)
        assert named, name
        for lesson in named:
            assert re.search(rf"\b{name}\(", source(lesson)), f"{name} in {lesson}"
    assert re.search(r"log_metric\([^)]*step=", source("01_Experiment.py"))


def test_links_and_images_of_the_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    for target in targets:
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_anchors_of_the_readme_exist():
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        assert anchor in slugs, anchor


def test_the_output_in_the_readme_is_what_the_lesson_prints(tmp_path):
    shown = re.search(r"\$ \S+ code/01_Experiment.py\n(.*?)```", README, re.DOTALL)[1]

    def without_ids(text):
        return re.sub(r"\b[0-9a-f]{32}\b", "<id>", text).strip()

    assert without_ids(succeed("01_Experiment.py", tmp_path)) == without_ids(shown)


def test_the_first_screen_says_how_to_get_the_python_that_all_messages_name():
    screen = README.partition("| Command |")[0]
    assert re.search(
        r"^\$ source \.venv/bin/activate +# Windows: \.venv\\Scripts\\activate$", screen, re.M
    )
    assert "$ python code/" in screen and ".venv/bin/python" not in screen


# Headings of the troubleshooting section: the message, and what stands behind it, if anything.
HEADINGS = re.findall(
    r"^### (`+)(.+?)\1(?: (.+))?$", README.partition("## Troubleshooting")[2], re.MULTILINE
)
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


PROVOKED = {"artifact_path": deprecated, "run_uuid": run_uuid}
ELSEWHERE = {"flask": "test_02_log_model.py", "Errno 98": "test_commands.py"}


@pytest.mark.parametrize("message", OTHERS)
def test_messages_of_others_under_troubleshooting_are_what_they_say(message, work):
    (word,) = (word for word in (*PROVOKED, *ELSEWHERE) if word in message)
    if word in ELSEWHERE:
        test = (ROOT / "tests" / ELSEWHERE[word]).read_text(encoding="utf-8")
        assert f'r"^### `(.*{word}.*)` ' in test  # it reads the heading and provokes the message
    else:
        assert message.strip("… ") in PROVOKED[word](work)


def test_every_heading_under_troubleshooting_is_a_message():
    section = README.partition("## Troubleshooting")[2].partition("\n## ")[0]
    assert len(re.findall(r"^### ", section, re.MULTILINE)) == len(HEADINGS) == len(OURS + OTHERS)
