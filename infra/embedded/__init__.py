"""Real servers from Python wheels, supervised, for a machine that has none of its own.

In reading order: ``errors`` (what can go wrong, as sentences), ``launcher`` (the door of every child), ``tied``
(children that die with us), ``process`` (one supervised child), ``server`` (what the servers share), ``postgres``,
``redis``, ``broker`` (the in-memory Kafka wire), ``topics``, ``memory_kafka`` and ``apache_kafka`` (the two Kafkas),
``servers`` (all together).
"""
