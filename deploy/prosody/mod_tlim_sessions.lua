-- Three things that ejabberd has and Prosody lacks.
local st = require "util.stanza";
local add_filter = require "util.filters".add_filter;
local destroy_session = require "core.sessionmanager".destroy_session;
local sessions = prosody.hosts[module.host].sessions;

-- The number of sessions of one person has a bound. One more session ends the oldest, even if the oldest waits to be
-- resumed.
local max_sessions = module:get_option_number("tlim_max_user_sessions", 20);
module:hook("resource-bind", function(event)
	local count, oldest = 0, event.session;
	for _, s in pairs(sessions[oldest.username].sessions) do
		count = count + 1;
		if s.conntime < oldest.conntime then oldest = s; end
	end
	if count > max_sessions then
		oldest:close({ condition = "conflict", text = "Too many sessions" });
	end
end);

-- A browser that waits to be resumed has no connection, and mod_websocket does nothing when such a session is closed.
-- The session would stay for ever, because mod_smacks has just ended its watchdog. mod_c2s ends its sessions itself.
module:hook("pre-session-close", function(event)
	local session, reason = event.session, event.reason;
	if not session.conn then destroy_session(session, reason and (reason.text or reason.condition)); end
end, -1); -- after mod_smacks (0), so that the session is not kept once more

-- A client that lost its network is noticed. mod_smacks asks a silent client that has stream management (XEP-0198) for a
-- sign of life. This module asks the others (XEP-0199). A client that is silent until the next time-out has gone.
local function note_heard(stanza, session)
	session.tlim_is_asked = nil;
	return stanza;
end
module:hook("c2s-read-timeout", function(event)
	local session = event.session;
	if not session.full_jid then return; end
	if session.tlim_is_asked then return false; end
	session.tlim_is_asked = true;
	add_filter(session, "stanzas/in", note_heard);
	session.send(st.iq({ type = "get", id = "tlim", from = module.host, to = session.full_jid })
		:tag("ping", { xmlns = "urn:xmpp:ping" }));
	return true;
end, -0.5); -- after mod_smacks (0), before mod_websocket (-0.9) and mod_c2s (-1)
