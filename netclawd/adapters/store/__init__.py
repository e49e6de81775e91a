"""The session store on SQLite."""
