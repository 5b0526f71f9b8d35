"""`socratune serve`: which models, which port, and the server until Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Callable

from socratune.errors import Fault, Shown, UserError
from socratune.webserver import address, listening, serve_until_stopped


def serve(what: str, say: Callable[[str], None], *, host: str, port: int, key_env: str | None) -> None:
    """Serve a model, or a run's base and adapter, until Ctrl-C; port 0 takes a free one.

    Args:
        what: the folder of a run, or a model: a folder, a Hub id or `demo`.
        say: hears the address when the models are loaded.
        host: the address to listen at.
        port: the port there.
        key_env: the environment variable with the key that requests have to bring; None: they need none.

    Raises:
        UserError: no such run or model, the port is taken, or there is no such variable.
        OutsideError: the Hub could not be asked about the model.
    """
    key = None if key_env is None else os.environ.get(key_env)
    if key_env is not None and not key:
        fix = f"Run: export {key_env}=…"
        raise UserError(Fault("--api-key-env", f"{key_env} in the environment", Shown("no such variable"), fix))
    from socratune.serve.app import app
    from socratune.serve.models import serving_models

    place = listening(host, port)  # before minutes of loading
    with serving_models(what) as models:
        names = " and ".join(served.name for served in models)
        say(f"{names}: {address(place)}/v1  (Ctrl-C ends it)")
        serve_until_stopped(app(models, key), place)
