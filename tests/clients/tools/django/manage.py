from os import environ
from sys import argv

from django.conf import settings
from django.core.management import execute_from_command_line

settings.configure(
    INSTALLED_APPS=["todos"],
    USE_TZ=True,
    MIGRATION_MODULES={"todos": "generated"},
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": environ["PGHOST"],
            "PORT": environ["PGPORT"],
            "USER": environ["PGUSER"],
            "NAME": environ["PGDATABASE"],
        }
    },
)
execute_from_command_line(argv)
