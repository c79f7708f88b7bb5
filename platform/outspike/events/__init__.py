"""Event-camera recordings: columns, files, windows on the time base, and simulation from frames."""
