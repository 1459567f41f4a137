"""The Kafka side: questions to a cluster, a bounded range read, and what it means when a broker refuses."""
