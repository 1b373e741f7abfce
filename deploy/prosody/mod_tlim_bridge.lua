-- Diverts client messages carrying <tlim xmlns='im.itonglian.com'/> to an external XEP-0114 component. Each is wrapped
-- as XEP-0297 says. The outer from= is this host: a client cannot forge that. The inner message has the authenticated
-- full JID as from=, and its original to=. Load this module on the VirtualHost.
local hosts, st, jid, array = prosody.hosts, require "util.stanza", require "util.jid", require "util.array";
local sha1, new_id, add_filter = require "util.hashes".sha1, require "util.id".medium, require "util.filters".add_filter;
local recall = module:require "tlim_recall";
local ns = "im.itonglian.com"; -- as in tlim_protocol.stanzas, like the names of elements
local targets = array(module:get_option_array("tlim_bridge_components", { "bridge." .. module.host }));
local bridges = require "util.set".new(targets);
local longest_wait, most_waiting = 13, 10000; -- seconds: a bridge leaves within 12; messages, about 20 MB
local leaving = {}; -- bridges that leave, each with the messages that wait for its end; false if these wait no more

local function is_live(h)
	local component = h and leaving[h] == nil and hosts[h] and hosts[h].modules.component;
	return component and component.connected;
end
local function live() return array.filter(targets, is_live); end

local function refuse(origin, stanza)
	origin.send(st.error_reply(stanza, "wait", "service-unavailable", "Message service offline"));
end
local function hand_over(origin, stanza)
	local sender, via = jid.bare(stanza.attr.from), origin.tlim_via;
	if not is_live(via) then -- highest random weight: one bridge more or less moves few users
		via = live():sort(function(a, b) return sha1(sender .. a) > sha1(sender .. b); end)[1];
	end
	origin.tlim_via = via; -- a session keeps to it, so its messages stay in order
	if not via then return refuse(origin, stanza); end
	local copy = st.clone(stanza);
	copy.attr.xmlns, copy.attr.to = "jabber:client", copy.attr.to or sender; -- a client that writes to itself has no to=
	module:send(st.message({ from = module.host, to = via, type = "normal" })
		:tag("forwarded", { xmlns = "urn:xmpp:forward:0" }):add_child(copy));
end
local function intercept(event)
	local origin, stanza = event.origin, event.stanza;
	if event.is_stored or not stanza:get_child("tlim", ns) then return; end
	if stanza.attr.type == "error" then return true; end -- an error is no message, but a receiver would take it for one
	local queue = leaving[origin.tlim_via];
	if not queue then hand_over(origin, stanza);
	elseif #queue < most_waiting then table.insert(queue, { origin, stanza });
	else refuse(origin, stanza); end
	return true;
end
local function silence(event) -- a bridge takes a presence for the word of this module
	return bridges:contains(jid.host(event.stanza.attr.to)) or nil;
end
for _, kind in ipairs { "bare", "full", "host" } do
	module:hook("pre-message/" .. kind, intercept, 10); -- before mam (0) and carbons (-0.5) make a copy
	module:hook("pre-presence/" .. kind, silence, 10);
end

-- A bridge that leaves says before that it is draining. Then nothing new goes to it. What the same sessions send waits
-- for its end: by then the bridge has stored what came before.
local function release(h, queue)
	if not queue or leaving[h] ~= queue then return; end
	leaving[h] = false;
	for _, waiting in ipairs(queue) do hand_over(waiting[1], waiting[2]); end
end
module:hook("presence/host", function(event)
	local host, queue = event.origin.host, {};
	if event.origin.type == "component" and bridges:contains(host) and event.stanza:get_child("draining", ns) then
		leaving[host] = leaving[host] or queue;
		module:add_timer(longest_wait, function() release(host, queue); end);
		return true;
	end
end, 1);

-- The sender's other devices get a copy of a message (XEP-0280) when it is stored. The component tells us this: it
-- forwards the message to the address that sent it. No client can have the component's address.
local function deliver(event)
	local stanza, device = event.stanza, event.stanza.attr.to;
	local sent = bridges:contains(stanza.attr.from) and stanza:find("{urn:xmpp:forward:0}forwarded/{jabber:client}message");
	recall.blank(sent or stanza, device);
	if not sent then return; end
	local origin = prosody.full_sessions[device] or hosts[module.host];
	module:fire_event("pre-message/bare", { origin = origin, stanza = sent, is_stored = true }); -- for mod_carbons
	return true;
end
module:hook("message/bare", deliver, 100);
module:hook("message/full", deliver, 100);

-- Nothing of ours is kept here for people who are away: the bridge has a log. It is told which sessions get messages,
-- and up to which `seq` the client of a session has everything (`confirmed`).
local function tell(from, is_here, name, attr, only)
	attr.xmlns = ns;
	for _, h in ipairs(only and { only } or live()) do
		module:send(st.presence({ from = from, to = h, type = not is_here and "unavailable" or nil }):tag(name, attr));
	end
end
local queue_size = module:get_option_number("smacks_max_queue_size", 500);
local function digits(seq) return seq and ("%d"):format(seq); end
local function seq_of(stanza)
	local mark = stanza.name == "message" and recall.original(stanza):get_child("tlim", ns);
	return mark and tonumber(mark.attr.seq) or nil;
end
local function note_written(stanza, session)
	local queue, seq = session.outgoing_stanza_queue, seq_of(stanza);
	local read, unread = queue and queue:count_acked() or 0, queue and queue:count_unacked() or 0;
	session.tlim_is_early = read == 0 and (session.tlim_is_early or seq and not queue); -- written before there was a queue
	session.tlim_is_full = queue and unread >= queue_size; -- mod_smacks now drops the oldest
	if read > 0 and unread == 0 then session.tlim_acked = session.tlim_seq; end
	if seq then
		session.tlim_acked = session.tlim_acked or seq - 1;
		session.tlim_seq = math.max(seq, session.tlim_seq or seq);
	end
	return stanza;
end
local function confirmed(session)
	local seq, has_queue = session.tlim_seq, session.smacks ~= nil; -- XEP-0198
	local is_orderly = session.tlim_is_closed or not has_queue and not session.destroyed; -- the client has read everything
	if not seq or not has_queue and not is_orderly then return nil; end
	if session.tlim_is_full or session.tlim_is_early and not is_orderly then return session.tlim_acked; end
	for _, sent in ipairs(recall.waiting(session)) do
		local unread = seq_of(sent);
		if unread then seq = math.min(seq, unread - 1); end
	end
	return seq;
end
local function report(session, only)
	session.tlim_id = session.tlim_id or new_id(); -- mod_smacks resumes into the same table, but with other filters
	add_filter(session, "stanzas/out", note_written);
	local is_here, was_here = session.presence and session.priority >= 0, session.tlim_is_here;
	session.tlim_is_here = is_here;
	local attr = { id = session.tlim_id, stale = is_here and session.hibernating and "true" or nil };
	if attr.stale or not is_here then attr.confirmed = digits(confirmed(session)); end
	if is_here or was_here then tell(session.full_jid, is_here, "session", attr, only); end
end
module:wrap_event("presence/bare", function(handlers, name, event)
	local is_own = event.origin.type == "c2s" and not event.stanza.attr.to;
	local handled = handlers(name, event); -- mod_presence notes in the session what its presence is
	if is_own then report(event.origin); end
	return handled;
end);
module:hook("smacks-hibernation-start", function(event) report(event.origin); end);
module:hook("smacks-hibernation-end", function(event) report(event.resumed); end);
module:hook("pre-session-close", function(event)
	event.session.tlim_is_closed = event.reason == false; -- mod_c2s: the client ended the stream
end);

-- A message that reaches nobody is `missed`: there is no session, or the last one has ended and has not confirmed it.
local function miss(stanza)
	local seq, is_for_now = seq_of(stanza), stanza:get_child("no-store", "urn:xmpp:hints");
	if seq and is_for_now then tell(jid.bare(stanza.attr.to), false, "missed", { seq = digits(seq) }); end
	return is_for_now and true or nil; -- mod_offline would keep it (XEP-0334)
end
module:hook("message/offline/handle", function(event) return miss(event.stanza); end, 1);
module:hook("delivery/failure", function(event) -- mod_smacks: the session ends, and its queue is gone
	local stanza, session = event.stanza, event.session;
	if stanza.name ~= "message" then return; end
	session.tlim_unread = session.tlim_unread or {};
	table.insert(session.tlim_unread, stanza);
	local is_useless = #stanza.tags == 0 or recall.original(stanza) ~= stanza; -- recalled, or a copy for this session
	return is_useless or seq_of(stanza) and stanza:get_child("no-store", "urn:xmpp:hints") and true or nil;
end, 1);
module:hook("resource-unbind", function(event) -- mod_presence has said that the session is gone
	local is_last = not prosody.bare_sessions[jid.bare(event.session.full_jid)];
	for _, stanza in ipairs(is_last and event.session.tlim_unread or {}) do miss(stanza); end
end, -1);

local function greet(component) -- first that this module is here, then who is
	leaving[component] = nil;
	tell(module.host, true, "mailbox", {}, component);
	for _, session in pairs(prosody.full_sessions) do
		if session.host == module.host then report(session, component); end
	end
end
local function attend(host)
	if not bridges:contains(host) or not hosts[host] then return; end
	module:hook_object_event(hosts[host].events, "component-authenticated", function() greet(host); end);
	module:hook_object_event(hosts[host].events, "component-disconnected", function() release(host, leaving[host]); end);
	-- A bridge pings every 30 s, so a silent one has vanished. mod_component (-1) would keep it, and refuse the next one.
	module:hook_object_event(hosts[host].events, "component-read-timeout", function() return false; end);
end
module:hook_global("host-activated", attend); -- Prosody activates its hosts in any order
for _, h in ipairs(targets) do attend(h); end
for _, h in ipairs(live()) do greet(h); end

-- When a module does not load, Prosody goes on without it. Without this module it would deliver tlim messages
-- undiverted. So the program that starts Prosody waits for this line of the log.
module:log("info", "diverting tlim messages to %s", table.concat(targets, ", "));
