"""The recipe for Django: an application with one model, and requests of two users in turn through its middleware."""

import asyncio
import json
import os
from datetime import date
from types import SimpleNamespace
from urllib.parse import quote
from uuid import UUID

import django
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    SECRET_KEY="only for the test",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.authenticate_by_header", "audit.context_middleware"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
            "NAME": os.environ["PGDATABASE"],
            "CONN_MAX_AGE": None,
        }
    },
    LOGGING={"version": 1, "loggers": {"django.request": {"level": "CRITICAL"}}},
)
django.setup()

from audit import acting, add_comment  # noqa: E402
from django.db import IntegrityError, connection, connections, models, transaction  # noqa: E402
from django.test import AsyncClient, Client  # noqa: E402
from psycopg import sql  # noqa: E402


class Todo(models.Model):
    id = models.AutoField(primary_key=True)
    task = models.TextField()
    is_completed = models.BooleanField(default=False)

    class Meta:
        app_label = "todo"
        db_table = "todo"
        managed = False


def authenticate_by_header(get_response):
    """Stands for Django's own, which would need its tables."""

    def middleware(request):
        request.user = SimpleNamespace(pk=json.loads(request.headers.get("X-User", "null")))
        return get_response(request)

    return middleware


def add(request, rest=""):
    Todo.objects.create(task=request.POST["task"])
    return JsonResponse({"backend": connection.connection.info.backend_pid})


@transaction.atomic
def add_all(request):
    tasks = request.POST.getlist("task")
    Todo.objects.bulk_create(Todo(task=task) for task in tasks[:-1])
    try:
        with transaction.atomic():
            Todo.objects.create(task="Taken back to the savepoint")
            Todo.objects.create(task=None)
    except IntegrityError:
        pass
    Todo.objects.filter(task=tasks[0]).update(is_completed=True)
    Todo.objects.create(task=tasks[-1])
    if tasks[-1] == "fail":
        raise ZeroDivisionError
    return add_raw(request)


def add_raw(request):
    with connection.cursor() as cursor:
        cursor.execute("/* first */ INSERT INTO todo (task) VALUES ('100% raw'); -- last")
        cursor.execute("WITH one AS (INSERT INTO todo (task) VALUES (%s) RETURNING id) SELECT * FROM one", ["CTE"])
        cursor.executemany("INSERT INTO todo (task) VALUES (%s)", [["Many 1"], ["Many %s"]])
        cursor.execute(sql.SQL("DELETE FROM {} WHERE task = %s").format(sql.Identifier("todo")), ["CTE"])
    return JsonResponse({})


@transaction.atomic
def copy(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT bemi.set_context(%s, true)", [json.dumps({"user_id": request.user.pk}, default=str)])
        with cursor.copy("COPY todo (task) FROM STDIN") as rows:
            for task in request.POST.getlist("task"):
                rows.write_row([task])
    return JsonResponse({})


async def add_async(request):
    await Todo.objects.acreate(task=request.POST["task"])
    return JsonResponse({})


urlpatterns = [
    path("todo/async", add_async),
    path("todo", add),
    path("todo/all", add_all),
    path("todo/raw", add_raw),
    path("todo/copy", copy),
    path("todo/<path:rest>", add),
]

client = Client(raise_request_exception=False)


def post(url, *tasks, user=None, status=200):
    response = client.post(url, {"task": tasks}, headers={"X-User": json.dumps(user)})
    assert response.status_code == status, (url, response.status_code, response.content)
    return response.json() if status == 200 else None


# Autocommit, as Django does by default: each statement is a transaction of its own.
first = post("/todo", "Sleep", user=1)
second = post("/todo", "Eat", user=2)
assert first == second, "both shared one connection"
post("/todo/raw", user=1)
Todo.objects.create(task="Nobody, without a request")

post("/todo/all", "Walk", "Write", "Read", user=2)
post("/todo/all", "Taken back", "fail", user=1, status=500)
Todo.objects.create(task="Nobody, after a rollback")

post("/todo/copy", "Copied 1", "Copied 2", user=1)
Todo.objects.create(task="Nobody, after COPY")

# What a request brings stays data, in the context too.
hostile = "Bemi*/; DROP TABLE todo; -- /* %s %(x)s %% %25 'quoted' \"\\ \u2028 é"
post("/todo/" + quote(hostile, safe=""), hostile, user="*/ /*Bemi {\"user_id\": 1} Bemi*/")
assert Todo.objects.filter(task=hostile).count() == 1


async def requests():
    for user in (1, 2):
        await AsyncClient().post("/todo/async", {"task": "Asynchronous"}, headers={"X-User": json.dumps(user)})
    await Todo.objects.acreate(task="Nobody, asynchronous")


asyncio.run(requests())

with acting(job="clean up"):
    Todo.objects.filter(task="Eat").delete()

# Rows that come through a cursor of the server, one by one, while others are written.
with acting(user_id=1, job="iterate"):
    for todo in Todo.objects.filter(task="Asynchronous").order_by("id").iterator(chunk_size=1):
        todo.is_completed = True
        todo.save()
# The same in a transaction. Who has opened the cursor does not act when somebody else writes before its end.
with transaction.atomic():
    with acting(user_id=2, job="open"):
        cursor = Todo.objects.filter(task="Asynchronous").order_by("id").select_for_update().iterator(chunk_size=1)
        next(cursor)
    with acting(user_id=1, job="between"):
        Todo.objects.create(task="Beside a cursor")
    Todo.objects.filter(task="Beside a cursor").delete()
    next(cursor)
    with connection.cursor() as names:
        names.execute("SELECT statement FROM pg_cursors")
        assert "Bemi" in names.fetchone()[0]
    cursor.close()

# Keys are often no JSON of their own.
with acting(user_id=UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), since=date(2026, 7, 1)):
    Todo.objects.create(task="UUID and date")

# A new connection, made while somebody else's wrapper is there; that leaves as it came.
connection.close()
del connections["default"]
with connection.execute_wrapper(lambda execute, *rest: execute(*rest)):
    post("/todo", "New connection", user=1)
assert connection.execute_wrappers == [add_comment]
connection.close()
post("/todo", "Reconnected", user=2)
assert connection.execute_wrappers == [add_comment]
