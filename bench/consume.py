"""The measure of all others: a bare, tuned `consume()` loop that throws every message away."""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Consumer, KafkaError, TopicPartition


def main(bootstrap_servers: str, topic: str, partitions: int) -> None:
    """Read a topic from its beginning to its end and print messages and seconds."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 65536,
            "queued.min.messages": 200_000,
        }
    )
    began = time.monotonic()
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    messages = ended = 0
    while ended < partitions:
        for message in consumer.consume(10_000, 1.0):
            error = message.error()
            if error is None:
                messages += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended += 1
            else:
                raise RuntimeError(error.str())
    print(json.dumps({"messages": messages, "seconds": time.monotonic() - began}))
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
