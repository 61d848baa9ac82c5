"""A Django database backend on encrypted files: ``"ENGINE": "heliosvfs.django"``.

It is Django's own backend for SQLite over `heliosvfs.dbapi2`. docs/DJANGO.md has the settings; `base.py` is where Django looks.
"""
