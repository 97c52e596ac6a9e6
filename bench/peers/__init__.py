"""Other ways to receive call audio, each a program that the benchmark `peers` runs.

Each is started as `python -m bench.peers.NAME PORT STREAMS BUFFER_BYTES` and follows one protocol
(see `program`): it says when it can be sent to, and on SIGTERM what it has received.
"""
