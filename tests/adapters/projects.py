"""A small Django project in a folder, and its commands."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SETTINGS = """
import os
import heliosvfs
from heliosvfs.audit import Policy

SECRET_KEY = "of no interest"
DEBUG = True
ALLOWED_HOSTS = ["testserver"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "clinic"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "heliosvfs.django.middleware.AuditSessionMiddleware",
]
ROOT_URLCONF = "clinic.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
OPTIONS = {options}
DATABASES = {{"default": {{"ENGINE": "heliosvfs.django", "NAME": {name!r}, "OPTIONS": OPTIONS, **{more}}}}}
"""
MANAGE = """
import multiprocessing, os, sys
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    if "START" in os.environ:
        multiprocessing.set_start_method(os.environ["START"])
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    execute_from_command_line(sys.argv)
"""
MODELS = """
import uuid
from django.db import models

class Patient(models.Model):
    name = models.CharField(max_length=100)
    code = models.UUIDField(default=uuid.uuid4, unique=True)
    born = models.DateField(null=True)
    seen = models.DateTimeField(null=True)
    fee = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    active = models.BooleanField(default=True)
    details = models.JSONField(default=dict)
    photo = models.BinaryField(default=b"")

class Encounter(models.Model):
    patient = models.ForeignKey(Patient, models.CASCADE)
    note = models.TextField()
"""
URLS = """
from django.http import JsonResponse
from django.urls import path
from clinic.models import Patient

urlpatterns = [path("patients/", lambda request: JsonResponse({"names": [patient.name for patient in Patient.objects.all()]}))]
"""
PREAMBLE = "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'; django.setup()\n"
KEY_VARIABLES = ("HELIOSDB_CONFIG", "HELIOSVFS_KEY_FILE", "HELIOSVFS_KEY", "DJANGO_SETTINGS_MODULE")


@dataclass
class Project:
    """A project, whose commands run in processes of their own."""

    folder: Path
    key: bytes

    @property
    def database(self) -> Path:
        return self.folder / "clinic.db"

    def settings(self, options: str | None = None, more: str = "{}", name: str | None = None) -> None:
        """Write the settings, with OPTIONS and what else a database has as Python text."""
        options = options or f"{{'key_file': {str(self.folder / 'clinic.key')!r}}}"
        text = SETTINGS.format(options=options, more=more, name=name or str(self.database))
        (self.folder / "settings.py").write_text(text)

    def run(self, *command: str, stdin: str = "", succeeds: bool = True, **environment: str) -> str:
        """Run Python with arguments; return what it printed."""
        inherited = {name: value for name, value in os.environ.items() if name not in KEY_VARIABLES}
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", *command],
            cwd=self.folder,
            env={**inherited, **environment},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode == 0) is succeeds, done.stdout[-5000:]
        return done.stdout

    def manage(self, *command: str, stdin: str = "", succeeds: bool = True, **environment: str) -> str:
        return self.run("manage.py", *command, stdin=stdin, succeeds=succeeds, **environment)

    def program(self, text: str, *, succeeds: bool = True, **environment: str) -> str:
        """Run a program that uses the project's models."""
        return self.run("-c", PREAMBLE + text, succeeds=succeeds, **environment)


def make(folder: Path) -> Project:
    """Write a project, and its migrations."""
    (folder / "clinic" / "migrations").mkdir(parents=True)
    for package in ("clinic", "clinic/migrations"):
        (folder / package / "__init__.py").touch()
    (folder / "manage.py").write_text(MANAGE)
    (folder / "clinic" / "models.py").write_text(MODELS)
    (folder / "clinic" / "urls.py").write_text(URLS)
    project = Project(folder, os.urandom(32))
    (folder / "clinic.key").write_text(project.key.hex())
    (folder / "clinic.key").chmod(0o600)
    project.settings()
    return project
