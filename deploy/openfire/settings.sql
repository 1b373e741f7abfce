
-- Runs after Openfire's own schema. docs/openfire.md says why these settings are needed.
-- The schema has an administrator whose password everybody knows.
DELETE FROM ofUser;
INSERT INTO ofExtComponentConf (subdomain, wildcard, secret, permission) VALUES ('${component}', 0, '${component_secret}', 'allowed');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.component.permission', 'whitelist');
-- Nobody knows this one. Without it Openfire refuses every component.
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.component.defaultSecret', '${default_secret}');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.component.socket.active', 'true');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.component.socket.port', '${component_port}');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.component.idle', '60000');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.parser.buffer.size', '16777216');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.offline.type', 'store');
INSERT INTO ofProperty (name, propValue) VALUES ('route.really-all-resources', 'true');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.server.socket.active', 'false');

INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.domain', '${domain}');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.fqdn', '${domain}');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.auth.anonymous', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.socket.plain.port', '${client_port}');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.client.tls.policy', 'required');
INSERT INTO ofProperty (name, propValue) VALUES ('httpbind.port.plain', '${websocket_port}');

-- Other ports and connections that nobody needs here.
INSERT INTO ofProperty (name, propValue) VALUES ('httpbind.port.secure', '0');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.socket.ssl.active', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.component.ssl.active', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.multiplex.socket.active', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.multiplex.ssl.active', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('xmpp.proxy.enabled', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('mediaproxy.enabled', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('flash.crossdomain.enabled', 'false');
INSERT INTO ofProperty (name, propValue) VALUES ('update.service-enabled', 'false');
