"""The guest agent: where its channel is, a client of it, and the calls that the guest itself answers."""
