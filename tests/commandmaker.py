"""Commands with the least that they need."""

from strep.control.commands import COMMANDS

# The least that a command needs.
NEEDED = {
    "dial": {"connection_id": "7267", "from_": "+18005550101", "to": "+18005550100"},
    "bridge": {"call_control_id": "v3:other"},
    "client_state_update": {"client_state": "state"},
    "fork_start": {"target": "udp:192.0.2.1:9000"},
    "gather_using_speak": {"language": "en-US", "payload": "hello", "voice": "male"},
}


def make(name, **parameters):
    return COMMANDS[name](**NEEDED.get(name, {}), **parameters)
