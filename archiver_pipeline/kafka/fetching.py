"""How messages are fetched from a broker: librdkafka's properties for speed, in bounded memory."""

from __future__ import annotations

PROPERTIES = {
    "group.id": "archiver",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
}
TUNED = {
    # An answer is unpacked as a whole: librdkafka's 50 MB of well-compressed messages would be more than a gigabyte,
    "fetch.max.bytes": "4000000",
    # and a single batch of them must not be taken for a broken one.
    "receive.message.max.bytes": "1000000000",
    "fetch.queue.backoff.ms": "5",
    "fetch.wait.max.ms": "50",
    "queued.max.messages.kbytes": "32768",
    "queued.min.messages": "200000",
}
"""Faster than librdkafka's defaults by a factor of five (the queue's back-off alone), and bounded in memory. The broker
tells the end of a partition by an empty answer, for which it waits half a second unless told otherwise."""

CAREFUL = {"fetch.message.max.bytes": "1"}
"""A broker always sends a whole batch of messages, and so one and no more. Well-compressed ones can be unpacked to ten
thousand times their size, and many of them at once are more than any memory; at about half the speed."""
