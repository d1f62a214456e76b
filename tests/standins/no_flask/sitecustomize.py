"""Makes Python answer as with mlflow-skinny, which does not bring flask."""

import sys


class NoFlask:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "flask":
            raise ModuleNotFoundError("No module named 'flask'", name=name)


sys.meta_path.insert(0, NoFlask)
