import json
import re
from contextlib import contextmanager
from contextvars import ContextVar

from django.db.backends.signals import connection_created

current_context = ContextVar("current_context", default=None)
WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|CALL)\b", re.IGNORECASE)


@contextmanager
def acting(**context):
    token = current_context.set(context)
    try:
        yield
    finally:
        current_context.reset(token)


def context_middleware(get_response):
    def middleware(request):
        with acting(user_id=request.user.pk, endpoint=request.path, method=request.method):
            return get_response(request)

    return middleware


def add_comment(execute, sql, params, many, context):
    acting_now = current_context.get()
    if acting_now:
        if not isinstance(sql, str):
            sql = sql.as_string(context["connection"].connection)
        if WRITES.search(sql):
            # The same JSON without * and %: nothing in it ends the comment, opens another, or passes for a parameter.
            comment = json.dumps(acting_now, default=str).replace("*", "\\u002a").replace("%", "\\u0025")
            sql = f"{sql}\n/*Bemi {comment} Bemi*/"
    return execute(sql, params, many, context)


def on_connect(connection, **kwargs):
    if connection.vendor == "postgresql" and add_comment not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, add_comment)


connection_created.connect(on_connect)
