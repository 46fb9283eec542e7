"""A todo application in Django with BemiHQ's middleware, without and with the triggers of its migration."""

import json
import os
from contextlib import contextmanager

import django
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    SECRET_KEY="only for the test",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["bemi"],
    MIDDLEWARE=["bemi.BemiMiddleware"],
    BEMI_CONTEXT_FUNCTION=f"{__name__}.bemi_context",
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
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    LOGGING={"version": 1, "loggers": {"django.request": {"level": "CRITICAL"}}},
)
django.setup()

import psycopg  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.test import Client, override_settings  # noqa: E402


class Todo(models.Model):
    id = models.AutoField(primary_key=True)
    task = models.TextField()
    is_completed = models.BooleanField(default=False)

    class Meta:
        app_label = "todo"
        db_table = "todo"
        managed = False


def bemi_context(request):
    return {"user_id": json.loads(request.headers["X-User"]), "endpoint": request.path}


def create(request):
    Todo.objects.create(task=request.POST["task"])
    return JsonResponse({})


def create_many(request):
    Todo.objects.bulk_create(Todo(task=f"Many {n}") for n in range(3))
    return JsonResponse({})


def complete(request):
    Todo.objects.filter(task__startswith=request.POST["task"]).update(is_completed=True)
    return JsonResponse({})


@transaction.atomic
def fail(request):
    Todo.objects.create(task=request.POST["task"])
    raise ZeroDivisionError


def clear(request):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM todo")
    return JsonResponse({})


urlpatterns = [
    path("todo", create),
    path("todo/many", create_many),
    path("todo/complete", complete),
    path("todo/fail", fail),
    path("todo/clear", clear),
]

client = Client(raise_request_exception=False)


def post(url, user, status=200, **body):
    response = client.post(url, body, headers={"X-User": json.dumps(user)})
    assert response.status_code == status, (url, response.status_code, response.content)


@contextmanager
def messages(expected):
    """Counts what the log has under the prefix _bemi, as another reader sees it."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as observer:
        observer.execute("SELECT pg_create_logical_replication_slot('messages', 'test_decoding')")
        try:
            yield
            log = observer.execute("SELECT data FROM pg_logical_slot_get_changes('messages', NULL, NULL)").fetchall()
        finally:
            observer.execute("SELECT pg_drop_replication_slot('messages')")
    found = sum(line.startswith("message: transactional: 1 prefix: _bemi,") for line, in log)
    assert found == expected, (found, expected, log)


def requests():
    post("/todo", 1, task="Sleep")
    # The package URL-quotes some characters inside of the texts of the JSON, and leaves % as it is.
    post("/todo", "Bob's <bob@example.com> \"100%\" é*/", task="Eat")
    post("/todo/fail", 1, status=500, task="Taken back")
    post("/todo/many", 2)
    post("/todo/complete", 1, task="Many")
    Todo.objects.create(task="Nobody")
    post("/todo/clear", 2)


def triggers():
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'todo'::regclass ORDER BY tgname")
        return [name for name, in cursor.fetchall()]


# Two rows one by one, three at once, three updated, six deleted: by bemi one message for each statement.
with messages(5):
    requests()

call_command("migrate", verbosity=0)
assert triggers() == ["_bemi_row_trigger_todo", "bemi_context"], triggers()

# Their triggers write one for each row besides (that of the rollback is not decoded); a change is still recorded once.
with messages(5 + 1 + 1 + 3 + 3 + 6):
    requests()

# Taken back; and with this setting, no later `migrate` brings them again.
call_command("migrate", "bemi", "zero", verbosity=0)
with override_settings(MIGRATION_MODULES={"bemi": None}):
    call_command("migrate", verbosity=0)
assert triggers() == ["bemi_context"], triggers()
post("/todo", 1, task="Without them again")
