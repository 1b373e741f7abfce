%% A recall overtakes the recalled message where that waits in a session.
%%
%% The recalled message (id = msg_id, from = the recalling author) can wait in a session until the client resumes after
%% a network loss. It becomes a message without content, so that the count of stanzas (XEP-0198) stays right. Every
%% session of the user is told. The notice itself goes only to some of them: a device of higher priority may have come
%% since. Only the bridge can get a tlim message this far, because those of clients are diverted.
-module(tlim_recall).
-export([tell/1, blank/1, overtaken/2]). %% hooks of mod_tlim_bridge
-export([original/1]).
-import(mod_tlim_bridge, [named/2]).
-include("xmpp.hrl").
-define(KNOWN, 200). %% recalled messages that a session remembers, the newest

tell(#message{to = #jid{luser = U, lserver = S}} = Msg) ->
    Recalled = recalled(Msg),
    [Pid ! {tlim_recalled, Recalled} || Recalled /= [], {_, Pid} <- ejabberd_sm:get_session_sids(U, S)], Msg;
tell(Packet) -> Packet.
overtaken(State, {tlim_recalled, Recalled}) -> {stop, blank(State, Recalled)};
overtaken(State, _) -> State.
%% A copy of the message may still come: from a session that hands back what it could not write, or from another node that
%% was silent. The session drops it.
%%
%% A carbon copy comes from the session that the message went to, so it may arrive after what `tell` sends. The recall's
%% own carbon copy takes the same way and comes after it. So the recall's copy blanks it.
blank({#message{meta = Meta} = Msg, State}) ->
    case is_map_key(tlim_recalled, State) andalso lists:member(key(original(Msg)), map_get(tlim_recalled, State)) of
        true -> {stop, {drop, State}};
        false when is_map_key(carbon_copy, Meta) -> {Msg, blank(State, recalled(original(Msg)))};
        false -> {Msg, State}
    end;
blank(Acc) -> Acc.
blank(State, []) -> State;
blank(State, Recalled) ->
    emptied(State#{tlim_recalled => lists:sublist(Recalled ++ maps:get(tlim_recalled, State, []), ?KNOWN)}, Recalled).
emptied(#{mgmt_queue := Queue} = State, Recalled) ->
    Keys = maps:from_keys(Recalled, true),
    Sent = [case is_map_key(key(original(El)), Keys) of
                true -> {N, T, El#message{subject = [], body = [], thread = undefined, sub_els = []}};
                false -> {N, T, El}
            end || {N, T, El} <- p1_queue:to_list(Queue)],
    State#{mgmt_queue := p1_queue:from_list(Sent, p1_queue:type(Queue), p1_queue:get_limit(Queue))};
emptied(State, _) -> State.
recalled(#message{type = Type} = Msg) ->
    [key(Msg#message{id = fxml:get_tag_attr_s(<<"msg_id">>, El)})
     || Type /= error, named(<<"tlim">>, Msg) /= [], El <- named(<<"recalled">>, Msg)].
key(#message{from = #jid{} = From, id = Id}) -> {jid:remove_resource(jid:tolower(From)), Id};
key(_) -> none.
original(#message{sub_els = [#carbons_received{forwarded = #forwarded{sub_els = [#message{} = Msg]}}]}) -> Msg;
original(#message{sub_els = [#carbons_sent{forwarded = #forwarded{sub_els = [#message{} = Msg]}}]}) -> Msg;
original(Msg) -> Msg.
