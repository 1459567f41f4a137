"""What of the pages no test runs as it stands there, and why: the one place where that is said.

All of it is still checked: that the shell takes it, that settings, commands and options exist, that TOML, JSON and YAML
can be read, and that `archiver.toml` may have what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS: Mapping[str, str] = {
    "git": "the address to clone from is the reader's",
    "make demo": "test_demo runs it",
    "make dev": "it stays until it is ended: test_dev and dagster_side/test_daemon run it",
    "make sql": "it opens a shell: test_cli drives one",
    "make up": "it needs Docker: fleet/test_compose looks at what it starts",
    "make down": "as make up",
    "make lint": "it is what has to pass before",
    "make audit": "it asks for known vulnerabilities, by the network",
    "make bench": "it measures for minutes",
    "make crash": "it kills for minutes: crash/ does the same in less",
    "python -m bench": "as make bench",
    "docker": "it needs Docker",
    "kubectl": "it needs a cluster: fleet/test_kubernetes looks at the manifests",
    "helm": "as kubectl",
    "aws": "it needs Amazon S3, with versioning on",
    "cp deploy/compose/example.env": "as make up",
    "kafka-acls.sh": "one of Kafka's own tools: test_acls grants the same by the client",
    "promtool": "prometheus/test_rules runs it",
    "prometheus": "prometheus/ runs a server with this configuration",
    "curl": "it needs a search index: followers/test_search asks one",
    "celery": "fleet/test_celery runs workers",
    "dagster api grpc": "it serves until it is ended: fleet/workers runs it",
    "dagster job backfill": "it needs Dagster's daemon: dagster_side/test_backfill runs one",
    "dagster-webserver": "it serves until it is ended: fleet/workers runs it",
    "dagster-daemon": "as dagster-webserver",
    "archiver doctor": "what it finds is of the machine, too: test_doctor runs it",
    "archiver erase --where": "it asks at a terminal: test_cli_erase answers",
    "archiver metrics": "it serves until it is ended: prometheus/test_exporter asks one",
    "archiver tail": "it goes on until it is ended: test_cli looks at what it says",
}
"""Commands by their first words, of any page."""

PAGES: Mapping[str, str] = {
    "AGENTS.md": "make and the benches",
    "docs/comparison.md": "the benches of the peers",
    "docs/deployment.md": "Docker, Celery and Kubernetes; what of it can be run is, in fleet/",
    "docs/formats.md": "it needs a Schema Registry: registry/ runs one",
    "docs/object-storage.md": "it needs a bucket: objects/ has one",
    "docs/secured-kafka.md": "it needs a secured broker: test_access and test_acls have one",
    "docs/security.md": "a server before the UI, and grants of other databases",
    "docs/sql.md": "its snippets run on an archive of their own, in the tests of the SQL guide",
    "docs/speed.md": "the benches",
}
"""Pages of which no shell, Python or SQL is run, for all of it needs what the page is about."""

SQL: Mapping[tuple[str, str], str] = {
    ("docs/followers.md", "MySQL and MariaDB"): "for MariaDB: followers/test_mysql has its table",
}
"""SQL of pages that are run, by page and heading, which is not for DuckDB."""

UNCHECKED = frozenset({"text", "nginx"})
"""Languages of which nothing can be checked: drawings and what programs say, and a server's configuration, which was
tried by hand."""
