"""A page, by Flask; with ``check`` it is asked for once, without a server."""

import sys

from flask import Flask

app = Flask(__name__)


@app.get("/")
def page() -> str:
    return "hello from flask\n"


if sys.argv[1:] == ["check"]:
    print(app.test_client().get("/").text, end="")
else:
    app.run("0.0.0.0", 8000)
