"""libvirt's XML as declarations: scalar types, the models' engine, and the parser in front of it."""
