"""Stands in for `cmlapi`, the generated client of API v2, which is not on PyPI.

Its classes and methods are made from `../workbench/surface.json` when it is imported, and behave as
those of the generated client: what it sends, what it refuses to send, what it returns. With
CMLAPI_URLLIB3_BUG=1 an error is an AttributeError, as with client 25.04.17 and urllib3 2.6.
"""

import os
from urllib.parse import urlsplit

from cmlapi import models, rest, utils
from cmlapi.api import CMLServiceApi
from cmlapi.api_client import ApiClient
from cmlapi.configuration import Configuration
from cmlapi.models import *  # noqa: F403

__all__ = [
    "ApiClient",
    "CMLServiceApi",
    "Configuration",
    "default_client",
    "models",
    "rest",
    "utils",
]
__all__ += models.__all__


def default_client(url=None, cml_api_key=None):
    """Return a client of the workbench that the environment names."""
    if url is None:
        url = os.environ.get("CDSW_API_URL")
        if not url:
            raise ValueError("CDSW_API_URL is not set: give the url of the workbench")
        parts = urlsplit(url)
        url = f"{parts.scheme}://{parts.netloc}"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the url must start with http:// or https://, not {url}")
    if cml_api_key is None:
        cml_api_key = os.environ.get("CDSW_APIV2_KEY")
        if not cml_api_key:
            raise ValueError("CDSW_APIV2_KEY is not set: give a key of API v2")
    configuration = Configuration()
    configuration.host = url.rstrip("/")
    client = ApiClient(configuration)
    client.set_default_header("authorization", f"Bearer {cml_api_key}")
    return CMLServiceApi(client)
