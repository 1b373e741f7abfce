-- Prosody for tlim. Names in braces after a dollar sign are placeholders: the deployment fills them in (the development
-- stack, envsubst, a ConfigMap).
-- mod_tlim_bridge takes tlim messages out of the stream and hands them to the bridge. Everything else is plain XMPP.

umask = "077"
pidfile = "${data_directory}/prosody.pid"
data_path = "${data_directory}"
plugin_paths = { "${module_directory}" }
log = { { levels = { min = "info" }, to = "console" } }

modules_enabled = {
  "tlim_bridge"; "tlim_sessions";
  "roster"; "saslauth"; "tls"; "disco"; "ping"; "carbons"; "smacks"; "private"; "blocklist"; "vcard_legacy"; "pep";
  "offline"; "c2s"; "http"; "websocket";
}
-- No federation: one company uses one domain.
modules_disabled = { "s2s" }

authentication = "internal_hashed"
c2s_require_encryption = true
-- Passwords come over WebSocket as plain text (SASL PLAIN). So WebSocket needs TLS, or it is on loopback only.
consider_websocket_secure = ${websocket_plain}
certificates = "${certificate_directory}"
ssl = { certificate = "${certificate_file}"; key = "${certificate_file}" }

-- A stanza over this bound closes the whole connection. The bound is twice the 256 KiB that tlim accepts, so that the
-- bridge can answer most oversized messages with error-016 and the connection stays up.
c2s_stanza_size_limit = 524288
-- How many sessions one person may have. One more ends the oldest (conflict).
tlim_max_user_sessions = 20
-- How many stanzas wait until a client confirms them. If there are more, Prosody drops the oldest, and the client cannot
-- resume after a lost network: it logs in anew, and gets again what it missed. A whole catch-up of 10000 messages fits.
smacks_max_queue_size = 10500
-- A connection that is silent for 80 s is asked for a sign of life. If it is silent for another 80 s, it is closed. The
-- bridge counts on it that a lost client is noticed within three minutes. More questions would wake phones more often.
-- A bridge is not asked: it pings every 30 s, and after 80 s of silence its connection is closed.
network_settings = { read_timeout = 80 }
-- The bridge delivers a compressed message unpacked. Its body may have 1 MiB, and XML escaping can multiply that.
component_stanza_size_limit = 8388608

interfaces = { "${public_address}" }
c2s_ports = { ${client_port} }
http_interfaces = { "${public_address}" }
http_ports = { ${http_port} }
https_ports = { ${https_port} }
https_interfaces = { "${public_address}" }
http_paths = { websocket = "/ws" }
http_default_host = "localhost"
component_interfaces = { "${component_address}" }
component_ports = { ${component_port} }

-- Prosody has one connection for each component. So each bridge has a component of its own, with a name of its own.
local components = { ${components} }

VirtualHost "${domain}"
  http_host = "localhost"
  tlim_bridge_components = components

-- The bridge delivers in the senders' names, so `from` is not checked. Anybody that reaches the component port could
-- pretend to be any user: keep it on loopback or a private network.
for _, component in ipairs(components) do
  Component(component)
  component_secret = "${component_secret}"
  validate_from_addresses = false
end
