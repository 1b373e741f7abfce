-- A recall overtakes the copies of the recalled message (id = msg_id, from = the recalling author) that wait in sessions.
-- They become messages without content, so that the count of stanzas stays right. Only the bridge can get a tlim message
-- to `blank`, because those of clients are diverted.
local jid = require "util.jid";
local ns = "im.itonglian.com"; -- as in tlim_protocol.stanzas

local function original(message) -- of a carbon copy (XEP-0280): no client can send with the user's own bare JID
	local copy = message.attr.from == jid.bare(message.attr.to) and message:get_child(nil, "urn:xmpp:carbons:2");
	return copy and copy:find("{urn:xmpp:forward:0}forwarded/{jabber:client}message") or message;
end
local function waiting(session) -- what the client has not confirmed (XEP-0198)
	local queue = session.outgoing_stanza_queue;
	return queue and queue:table() or session.tlim_unread or {};
end

local function copy_of(author, id) return (jid.bare(author) or "") .. " " .. (id or ""); end
local function blank(notice, address)
	local recalled = {};
	for element in notice:childtags("recalled", ns) do
		recalled[copy_of(notice.attr.from, element.attr.msg_id)] = notice:get_child("tlim", ns);
	end
	local account = next(recalled) and prosody.bare_sessions[jid.bare(address)];
	for _, session in pairs(account and account.sessions or {}) do
		for _, sent in ipairs(waiting(session)) do
			local message = original(sent);
			if sent.name == "message" and recalled[copy_of(message.attr.from, message.attr.id)] then
				sent:maptags(function() return nil; end);
			end
		end
	end
end

return { original = original, waiting = waiting, blank = blank };
