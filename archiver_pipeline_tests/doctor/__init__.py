"""Rules of `archiver doctor`, and set-ups that are not well."""
