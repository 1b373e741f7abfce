-- Diverts client messages carrying <tlim xmlns='im.itonglian.com'/> to an external XEP-0114
-- component, wrapped in XEP-0297: outer from= is this host (a client cannot forge that), inner
-- from= is the authenticated full JID, inner to= is the original to=.  Load on the VirtualHost.
local st, jid = require "util.stanza", require "util.jid";
local jid_bare = jid.bare;
local sha1, datetime = require "util.hashes".sha1, require "util.datetime".datetime;
local hosts = prosody.hosts;
local ns = "im.itonglian.com"; -- this and the names of elements: tlim_protocol.stanzas
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
	if stanza.attr.type == "error" then return true; end -- never a message, and past the bridge it would look like one
	local sender, list = jid_bare(stanza.attr.from), live();
	if #list == 0 then
		origin.send(st.error_reply(stanza, "wait", "service-unavailable", "Message service offline"));
		return true;
	end
	local target = list[tonumber(sha1(sender, true):sub(1, 6), 16) % #list + 1]; -- sticky by sender
	local copy = st.clone(stanza);
	copy.attr.xmlns = "jabber:client";
	copy.attr.to = copy.attr.to or sender; -- core strips to= when a client writes to itself
	module:send(st.message({ from = module.host, to = target, type = "normal" })
		:tag("forwarded", { xmlns = "urn:xmpp:forward:0" }):add_child(copy));
	return true;
end
for _, kind in ipairs { "bare", "full", "host" } do
	module:hook("pre-message/" .. kind, intercept, 10); -- before anybody makes a copy: mam 0, carbons -0.5
end

-- A recall overtakes what it recalls: whoever gets the notice does not get his undelivered copies (id = msg_id, from =
-- the recalling author) any more. Only the bridge can get a tlim message this far: those of clients are diverted.
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

-- From storage, when a device gets it, in mod_offline's place: to take them out when the notice is stored would write the
-- whole file again for each, and everybody would wait. Works with every store that mod_offline can use.
local undelivered, unnoticed = module:open_store("offline", "archive"), module:open_store("tlim_recalled");
module:hook("message/offline/handle", function(event) -- behind mod_offline: it has no room for the notice
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

-- From sessions whose client lost its network and may resume (mod_smacks), also copies of what went to another device.
-- Their places in the count of stanzas stay, as messages that say nothing; such a one is not stored either.
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
	if #event.stanza.tags == 0 or original(event.stanza) ~= event.stanza then return true; end
end, 1);

-- A message is copied to its sender's other devices (XEP-0280) once it is stored: the component says so by forwarding it
-- to the address that sent it. No client has the component's address.
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
module:hook("presence/bare", function(event) -- broadcast presence of local users only
	local p = event.stanza;
	if event.origin.type ~= "c2s" or p.attr.to or (p.attr.type and p.attr.type ~= "unavailable") then return; end
	for _, h in ipairs(live()) do send_presence(p, h); end
end, 150);
for _, h in ipairs(targets) do -- replay who is online when a component (re)connects
	if hosts[h] then module:hook_object_event(hosts[h].events, "component-authenticated", function()
		for _, s in pairs(prosody.full_sessions) do
			if s.host == module.host and s.presence then send_presence(s.presence, h); end
		end
	end); end
end
-- Sessions of one person are bounded, as in ejabberd: with one more, the oldest ends, also one that waits to be resumed.
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

-- Prosody skips a module that does not load and would deliver tlim messages itself: whoever starts it waits for this line.
module:log("info", "diverting tlim messages to %s", table.concat(targets, ", "));
