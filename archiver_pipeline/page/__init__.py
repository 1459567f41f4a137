"""The status page: what it shows, and how that is drawn as one document that asks for nothing more."""
