"""Requests by urllib3, and the exception for what is not 200 to 299."""

import json
import os
from urllib.parse import urlencode

import urllib3


class RESTResponse:
    def __init__(self, response):
        self.urllib3_response = response
        self.status, self.reason, self.data = response.status, response.reason, response.data

    def getheaders(self):
        if os.environ.get("CMLAPI_URLLIB3_BUG") == "1":
            raise AttributeError("'HTTPResponse' object has no attribute 'getheaders'")
        return self.urllib3_response.headers


class ApiException(Exception):
    def __init__(self, status=None, reason=None, http_resp=None):
        if http_resp is not None:
            self.status, self.reason = http_resp.status, http_resp.reason
            self.body, self.headers = http_resp.data, http_resp.getheaders()
        else:
            self.status, self.reason, self.body, self.headers = status, reason, None, None

    def __str__(self):
        said = f"({self.status})\nReason: {self.reason}\n"
        if self.headers:
            said += f"HTTP response headers: {self.headers}\n"
        return said + (f"HTTP response body: {self.body}\n" if self.body else "")


class RESTClientObject:
    def __init__(self, configuration):
        options = {"cert_reqs": "CERT_REQUIRED" if configuration.verify_ssl else "CERT_NONE"}
        self.pool = urllib3.PoolManager(
            num_pools=4, maxsize=4, ca_certs=configuration.ssl_ca_cert, **options
        )

    def request(self, method, url, query, headers, body, post_params, preload, timeout):
        options = {"preload_content": preload, "timeout": timeout, "headers": headers}
        if query:
            url += "?" + urlencode(query)
        if method in ("GET", "HEAD"):
            response = self.pool.request(method, url, **options)
        elif post_params:  # urllib3 writes the type of a form, with its boundary
            del headers["Content-Type"]
            options["encode_multipart"] = True
            response = self.pool.request(method, url, fields=post_params, **options)
        else:
            text = json.dumps({} if body is None else body)
            response = self.pool.request(method, url, body=text, **options)
        if not preload:
            if not 200 <= response.status <= 299:
                raise ApiException(http_resp=RESTResponse(response))
            return response
        answer = RESTResponse(response)
        answer.data = response.data.decode("utf-8", errors="replace")
        if not 200 <= answer.status <= 299:
            raise ApiException(http_resp=answer)
        return answer
