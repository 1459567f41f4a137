"""The pages for people: their links, their commands and snippets, and the one that is generated."""
