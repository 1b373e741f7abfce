-- Diverts client messages carrying <tlim xmlns='im.itonglian.com'/> to an external XEP-0114 component. Each is wrapped
-- as XEP-0297 says. The outer from= is this host: a client cannot forge that. The inner message has the authenticated
-- full JID as from=, and its original to=. Load this module on the VirtualHost.
local st, jid = require "util.stanza", require "util.jid";
local jid_bare = jid.bare;
local sha1, datetime = require "util.hashes".sha1, require "util.datetime".datetime;
local hosts = prosody.hosts;
local ns = "im.itonglian.com"; -- as in tlim_protocol.stanzas, like the names of elements
local targets = module:get_option_array("tlim_bridge_components", { "bridge." .. module.host });
local is_target = {};
for _, h in ipairs(targets) do is_target[h] = true; end

local function live()
	local list = {};
	for _, h in ipairs(targets) do
		local comp = hosts[h] and hosts[h].modules.component;
		if comp and comp.connected then list[#list + 1] = h; end
	end
	return list;
end

local function intercept(event)
	local origin, stanza = event.origin, event.stanza;
	if not stanza:get_child("tlim", ns) then return; end
	if stanza.attr.type == "error" then return true; end -- an error is no message, but a receiver would take it for one
	local sender, list = jid_bare(stanza.attr.from), live();
	if #list == 0 then
		origin.send(st.error_reply(stanza, "wait", "service-unavailable", "Message service offline"));
		return true;
	end
	local target = list[tonumber(sha1(sender, true):sub(1, 6), 16) % #list + 1]; -- sticky by sender
	local copy = st.clone(stanza);
	copy.attr.xmlns = "jabber:client";
	copy.attr.to = copy.attr.to or sender; -- Prosody removes to= when a client writes to itself
	module:send(st.message({ from = module.host, to = target, type = "normal" })
		:tag("forwarded", { xmlns = "urn:xmpp:forward:0" }):add_child(copy));
	return true;
end
for _, kind in ipairs { "bare", "full", "host" } do
	module:hook("pre-message/" .. kind, intercept, 10); -- before mam (0) and carbons (-0.5) make a copy
end

-- A recall overtakes the recalled message: when the receiver gets the notice of the recall, the undelivered copies are
-- left out (id = msg_id, from = the recalling author). Only the bridge can get a tlim message this far, because those
-- of clients are diverted.
local function copy_of(author, id) return jid_bare(author) .. " " .. id; end
local function note_recalled(stanza, recalled)
	if stanza.attr.type == "error" or not stanza:get_child("tlim", ns) then return; end
	for element in stanza:childtags("recalled", ns) do
		recalled[copy_of(stanza.attr.from, element.attr.msg_id or "")] = true;
	end
end
local function is_recalled(message, recalled)
	return message.attr.id and recalled[copy_of(message.attr.from, message.attr.id)];
end

-- Copies in offline storage are left out when a device gets the storage. We do this instead of mod_offline. To remove
-- each copy when the notice is stored would write the whole file again, and all users would wait. This works with every
-- store that mod_offline can use.
local undelivered, unnoticed = module:open_store("offline", "archive"), module:open_store("tlim_recalled");
module:hook("message/offline/handle", function(event) -- runs after mod_offline, if that had no room for the notice
	local user, recalled = event.username, {};
	note_recalled(event.stanza, recalled);
	if not next(recalled) then return; end
	for copy in pairs(unnoticed:get(user) or {}) do recalled[copy] = true; end
	unnoticed:set(user, recalled);
end, -2);
module:hook("message/offline/broadcast", function(event)
	local origin, messages = event.origin, {};
	local recalled = unnoticed:get(origin.username) or {};
	local found, problem = undelivered:find(origin.username);
	if not found then
		module:log("error", "the storage of %s cannot be read: %s", origin.username, problem);
		return true;
	end
	for _, message, stored_at in found do
		message:tag("delay", { xmlns = "urn:xmpp:delay", from = origin.host, stamp = datetime(stored_at) }):up(); -- XEP-0203
		messages[#messages + 1] = message;
		note_recalled(message, recalled);
	end
	for _, message in ipairs(messages) do
		if not is_recalled(message, recalled) then origin.send(message); end
	end
	undelivered:delete(origin.username);
	unnoticed:set(origin.username, nil);
	return true;
end, 1);

-- Copies can also wait in a session whose client lost its network and may resume (mod_smacks). Carbon copies wait there
-- too. The recalled ones become messages without content, so that the count of stanzas stays right. A message without
-- content is not put into offline storage.
local function original(message)
	local copy = message:get_child(nil, "urn:xmpp:carbons:2");
	return copy and copy:find("{urn:xmpp:forward:0}forwarded/{jabber:client}message") or message;
end
local function sessions_of(address)
	local account = hosts[module.host].sessions[jid.node(address)];
	return account and account.sessions or {};
end
local function blank(message, address)
	local recalled = {};
	note_recalled(message, recalled);
	for _, session in pairs(next(recalled) and sessions_of(address) or {}) do
		local queue = session.outgoing_stanza_queue;
		for _, sent in pairs(queue and queue.table and queue:table() or {}) do
			if sent.name == "message" and is_recalled(original(sent), recalled) then
				sent:maptags(function() return nil; end);
			end
		end
	end
end
module:hook("message/offline/handle", function(event)
	local stanza = event.stanza;
	if #stanza.tags == 0 or original(stanza) ~= stanza then return true; end
	return stanza:get_child("no-store", "urn:xmpp:hints") and true; -- mod_offline would keep it (XEP-0334)
end, 1);

-- The sender's other devices get a copy of a message (XEP-0280) when it is stored. The component tells us this: it
-- forwards the message to the address that sent it. No client can have the component's address.
local function copy_sent(message, device)
	local node, host, resource = jid.split(device);
	local copy = st.message({ from = jid.join(node, host), type = message.attr.type })
		:tag("sent", { xmlns = "urn:xmpp:carbons:2" })
			:tag("forwarded", { xmlns = "urn:xmpp:forward:0" }):add_child(message):reset();
	for _, session in pairs(sessions_of(device)) do
		if session.want_carbons and session.resource ~= resource then
			copy.attr.to = session.full_jid;
			session.send(copy);
		end
	end
end
local function deliver(event)
	local stanza = event.stanza;
	local sent = is_target[stanza.attr.from] and stanza:find("{urn:xmpp:forward:0}forwarded/{jabber:client}message");
	blank(sent or stanza, stanza.attr.to);
	if sent then
		copy_sent(sent, stanza.attr.to);
		return true;
	end
end
module:hook("message/bare", deliver, 100);
module:hook("message/full", deliver, 100);

local function send_presence(p, h)
	module:send(st.presence({ from = p.attr.from, to = h, type = p.attr.type }));
end
module:hook("presence/bare", function(event) -- only broadcast presence of local users
	local p = event.stanza;
	if event.origin.type ~= "c2s" or p.attr.to or (p.attr.type and p.attr.type ~= "unavailable") then return; end
	for _, h in ipairs(live()) do send_presence(p, h); end
end, 150);
for _, h in ipairs(targets) do -- a component that connects is told who is online
	if hosts[h] then module:hook_object_event(hosts[h].events, "component-authenticated", function()
		for _, s in pairs(prosody.full_sessions) do
			if s.host == module.host and s.presence then send_presence(s.presence, h); end
		end
	end); end
end
-- The number of sessions of one person has a bound, as in ejabberd. One more session ends the oldest, even if the
-- oldest waits to be resumed.
local max_sessions = module:get_option_number("tlim_max_user_sessions", 20);
local binds = 0;
local function place(session) return session.tlim_place or 0; end
module:hook("resource-bind", function(event)
	local count, oldest = 0, event.session;
	binds = binds + 1;
	oldest.tlim_place = binds;
	for _, s in pairs(sessions_of(oldest.full_jid)) do
		count = count + 1;
		if place(s) < place(oldest) then oldest = s; end
	end
	if count > max_sessions then
		oldest:close({ condition = "conflict", text = "Too many sessions" });
	end
end);

-- When a module does not load, Prosody goes on without it. Without this module it would deliver tlim messages
-- undiverted. So the program that starts Prosody waits for this line of the log.
module:log("info", "diverting tlim messages to %s", table.concat(targets, ", "));
