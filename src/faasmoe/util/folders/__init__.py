"""Folders of this user: private ones for what runs, and how to tell which may be removed."""
