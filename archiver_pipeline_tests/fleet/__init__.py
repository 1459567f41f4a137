"""Rules of deployments in many processes and on many machines: containers, Celery, Kubernetes, PostgreSQL.

compose-spec.json is the schema of the Compose specification, Copyright 2020 The Compose Specification Authors, under
the Apache License 2.0.
"""
