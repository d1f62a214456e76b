"""Where the workbench is, and how far its certificate is checked."""

import os


class Configuration:
    def __init__(self):
        self.host = ""
        self.api_key, self.api_key_prefix = {}, {}
        self.verify_ssl = True
        authorities = "/etc/ssl/certs/ca-certificates.crt"
        self.ssl_ca_cert = authorities if os.path.exists(authorities) else None
