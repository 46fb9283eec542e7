from os import environ

from django.db import models


class Todo(models.Model):
    id = models.AutoField(primary_key=True)
    task = models.TextField()
    is_completed = models.BooleanField(db_default=False)
    # What a developer adds next.
    if environ.get("NEXT"):
        note = models.TextField(null=True)

    class Meta:
        db_table = "todo"
