-- Prosody for tlim. Names in braces after a dollar sign are filled in by whoever deploys this file (the development
-- stack, envsubst, a ConfigMap).
-- Our module takes tlim messages out of the stream and hands them to the bridge; all else is plain XMPP.

umask = "077"
run_as_root = ${run_as_root}
pidfile = "${data_directory}/prosody.pid"
data_path = "${data_directory}"
plugin_paths = { "${module_directory}" }
log = { { levels = { min = "info" }, to = "console" } }

modules_enabled = {
  "tlim_bridge";
  "roster"; "saslauth"; "tls"; "disco"; "ping"; "carbons"; "smacks"; "private"; "blocklist"; "vcard_legacy"; "pep";
  "offline"; "c2s"; "http"; "websocket";
}
-- One company, one domain: nobody outside is spoken to.
modules_disabled = { "s2s" }

authentication = "internal_hashed"
c2s_require_encryption = true
-- Passwords come over WebSocket (SASL PLAIN), so it is TLS, or plain on loopback alone.
consider_websocket_secure = ${websocket_plain}
certificates = "${certificate_directory}"
ssl = { certificate = "${certificate_file}"; key = "${certificate_file}" }

-- Twice the 256 KiB that tlim accepts: the bridge answers an oversized message with error-016 itself.
c2s_stanza_size_limit = 524288
-- Sessions of one person; with one more, the oldest ends (conflict).
tlim_max_user_sessions = 20
-- Messages kept for a client that lost its network and may resume. The default of 500 drops what is older and refuses to
-- resume; this is as many as are kept for somebody who is away.
smacks_max_queue_size = 10000
-- What came compressed is delivered unpacked: 1 MiB of body, and XML escaping can multiply that.
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

VirtualHost "${domain}"
  http_host = "localhost"

-- The bridge delivers in the senders' names, so `from` is not checked: keep its port on loopback or a private network.
Component "${component}"
  component_secret = "${component_secret}"
  validate_from_addresses = false
