"""Settings of a Celery worker for Dagster's runs; the app `dagster_celery.app` takes them from the PYTHONPATH.

PYTHONPATH=deploy/celery celery --app dagster_celery.app worker --queues archive --concurrency 2 --hostname archive@%h
"""

import os

broker_url = os.environ["CELERY_BROKER_URL"]
result_backend = os.environ["CELERY_RESULTS_URL"]
# As in the launcher's part of dagster.yaml: a test holds them together.
broker_transport_options = {"visibility_timeout": 600}
broker_connection_retry_on_startup = True
result_expires = 604_800
# A run that waits is for whoever is free first, not for one that is at work.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
# A run has a process of its own, as with Dagster's other launchers: none finds memory or a priority of another.
worker_max_tasks_per_child = 1
# What a run logs goes to standard error by itself.
worker_hijack_root_logger = False
worker_redirect_stdouts = False
worker_send_task_events = False
