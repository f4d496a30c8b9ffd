"""Kafka, through aiokafka.

- `producer`: events that Kafka has accepted, or a clear refusal
- `consumer`: a consumer group's member with the settings our guarantees need
- `topics`: the topics, created where they are missing
"""
