"""Makes Python answer as with mlflow-skinny, which CML brings: without Flask, without a server."""

from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec


def find_all_but_flask(name, path=None, target=None):
    return None if name == "flask" else find_spec(name, path, target)


PathFinder.find_spec = find_all_but_flask
