from jangada_api.testing import app, caller, client, log_lines, sign_in

__all__ = ["app", "caller", "client", "log_lines", "sign_in"]
