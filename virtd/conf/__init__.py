"""libvirt's XML as typed models. Nothing here looks at the system: what must be known of it comes in as a Host."""
