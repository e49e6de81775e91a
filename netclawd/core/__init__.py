"""The pure part: values in, values out. No clock, no file, no thread, no socket is touched here."""
