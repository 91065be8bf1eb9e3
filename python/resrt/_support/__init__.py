"""Small helpers without a subject of their own: arguments, environment, extras, files, logs."""
