%% What is said of sessions to all connections of the component: who comes and goes, and what the client has got.
-module(tlim_session).
-export([asked/3, present/1, note/1, inherit/2, ended/2, told/2, written/3, resume/2]). %% hooks of mod_tlim_bridge
-export([watch/3, seq/1]).
-import(mod_tlim_bridge, [pids/1, send/3, tag/2, named/2]).
-include("xmpp.hrl").
-define(ASKED, 8). %% connections: so many may come up at the same time
-define(HEARD, 2000). %% ms: a session that is busy for longer speaks later

%% A connection that has come up asks each session.
asked(#{lserver := H} = State, {tlim_asks, Component}, From) ->
    Watched = watched(State#{tlim_asked => lists:sublist([Component | asked(State)], ?ASKED)}),
    is_there(State) andalso send(H, [Component], here(State)),
    ejabberd_c2s:reply(From, ok), {stop, Watched};
%% It gives itself away to another process, its heir (XEP-0198), and only once: ejabberd would give a second heir an
%% empty queue. The heir may die before it has taken over.
asked(#{mgmt_state := resumed} = State, {resume_session, _}, From) ->
    ejabberd_c2s:reply(From, {error, session_not_found}), {stop, State};
asked(#{mgmt_id := Id} = State, {resume_session, Id}, {Heir, _}) -> State#{tlim_heir => monitor(process, Heir)};
asked(State, _, _) -> State.
asked(State) -> maps:get(tlim_asked, State, []).
%% The route of a connection that has just asked may not have come to this node yet.
listeners(#{lserver := H} = State) -> lists:usort(asked(State) ++ pids(H)).
say(#{lserver := H} = State, P) -> send(H, listeners(State), P).

present({#presence{type = Type} = P, State} = Acc) ->
    case Type == available andalso is_there(#{pres_last => P}) of
        true -> Watched = watched(State), say(State, here(State)), {P, Watched};
        false -> is_there(State) andalso say(State, gone(State, true)), Acc
    end.
note(State) -> Watched = watched(State), is_there(State) andalso say(State, here(State)), Watched.
%% What ejabberd, or `written`, routes again from here on comes from a session (tlim_delivery).
ended(State, _) -> put(tlim_again, true), end_of(State), State.
end_of(#{mgmt_state := resumed, tlim_inherited := true}) -> put(tlim_inherited, true); %% it goes on in another process
end_of(#{mgmt_state := resumed} = State) -> is_there(State) andalso say(State, session(State, unavailable, []));
end_of(State) ->
    is_there(State) andalso say(State, gone(State, maps:get(stop_reason, State, none) == {stream, reset})).
%% A session cannot say that it is gone if it takes too much memory and is killed (vm.args), or if its node ends or is
%% lost. So it has a watcher on each node with a connection, and that tells the connections of its own node. A watcher
%% ends with its node: if that starts again, it needs a new one. It is there before anything is said to that node. The
%% session does not wait for it, because the node may hang.
watched(#{lserver := H} = State) ->
    Watched = maps:get(tlim_watched, State, #{}), %% the watchers' nodes
    New = lists:usort([node(Pid) || Pid <- listeners(State)]) -- maps:values(Watched),
    Args = [H, self(), session(State, unavailable, [])],
    Watchers = [{spawn_request(Node, ?MODULE, watch, Args, [monitor, {reply, error_only}]), Node} || Node <- New],
    State#{tlim_watched => maps:merge(Watched, maps:from_list(Watchers))}.
watch(H, Session, Gone) ->
    monitor(process, Session),
    receive {'DOWN', _, _, _, Reason} ->
        %% A node that was lost starts anew, also if it can be reached again now (mod_tlim_split).
        (lists:member(Reason, [killed, noconnection]) orelse {started, started} /= status(node(Session)))
            andalso lost(H, Session, Gone)
    end.
%% The session may have gone on in another process by then, under the same id. That process speaks again, behind this.
lost(H, Session, #presence{from = #jid{luser = U, lserver = S, lresource = R}} = Gone) ->
    Mine = [P || P <- pids(H), node(P) == node()],
    send(H, Mine, Gone),
    [catch ejabberd_c2s:call(Heir, {tlim_asks, Component}, ?HEARD)
     || {_, Heir} <- ejabberd_sm:get_session_sids(U, S, R), node(Heir) /= node(Session), Component <- Mine].
status(Node) -> rpc:call(Node, init, get_status, []).
told(#{tlim_watched := Watched} = State, Word) when is_map_key(element(2, Word), Watched) -> %% DOWN, or spawn_reply
    {stop, State#{tlim_watched := maps:remove(element(2, Word), Watched)}};
told(#{tlim_heir := Ref} = State, {'DOWN', Ref, _, _, _}) -> ejabberd_c2s:stop_async(self()), {stop, State};
told(State, tlim_inherited) -> {stop, State#{tlim_inherited => true}};
told(State, _) -> State.
is_there(#{pres_last := #presence{priority = P}}) -> P >= 0; %% no priority is 0, and an atom is more than that
is_there(_) -> false.

here(#{mgmt_state := pending} = State) ->
    session(State, available, confirmed(State, false) ++ [{<<"stale">>, <<"true">>}]);
here(State) -> session(State, available, []).
gone(State, IsOrderly) -> session(State, unavailable, confirmed(State, IsOrderly)).
session(#{jid := Jid} = State, Type, Attrs) ->
    #presence{type = Type, from = Jid, sub_els = [tag(<<"session">>, [{<<"id">>, id(State)} | Attrs])]}.
id(#{tlim_id := Id}) -> Id;
id(#{sid := Sid}) -> str:sha(term_to_binary(Sid)).
inherit(State, #{sid := {_, Pid}} = Old) ->
    Pid ! tlim_inherited,
    watched(maps:merge(State#{tlim_id => id(Old)}, maps:with([tlim_seq, tlim_early, tlim_via, tlim_recalled], Old))).

%% If the node of the session is lost while it is asked for it, mod_stream_mgmt of 23.01 crashes, and the client would
%% wait for an answer. So it is told to open a new session.
resume(State, #sm_resume{xmlns = NS} = Resume) ->
    try mod_stream_mgmt:c2s_unbinded_packet(State, Resume)
    catch exit:{{nodedown, _}, _} -> {stop, ejabberd_c2s:send(State, #sm_failed{reason = 'item-not-found', xmlns = NS})}
    end;
resume(State, _) -> State.

%% Up to which `seq` the client has everything that was routed to its session. What stream management (XEP-0198) counts,
%% the client has confirmed. What was written before stream management began, or without it, counts as soon as the
%% client confirms anything or ends the stream in order.
confirmed(#{tlim_seq := Highest, mgmt_queue := Queue, mgmt_stanzas_out := Out} = State, IsOrderly) ->
    Unacked = lists:append([seq(Msg) || {_, _, #message{} = Msg} <- p1_queue:to_list(Queue)]),
    IsKnown = IsOrderly orelse Out > p1_queue:len(Queue) orelse not is_map_key(tlim_early, State),
    [{<<"confirmed">>, integer_to_binary(lists:min([Highest + 1 | Unacked]) - 1)} || IsKnown];
confirmed(State, IsKnown) -> [{<<"confirmed">>, integer_to_binary(S)} || IsKnown, {tlim_seq, S} <- maps:to_list(State)].
%% A message that could not be written any more is routed again. It waits in the process' mailbox, and ejabberd routes
%% that again when the session has ended.
written(State, #message{meta = Meta} = Msg, Result) ->
    IsCounted = lists:member(maps:get(mgmt_state, State, inactive), [active, pending, resumed]),
    case seq(Msg) of
        [Seq] when IsCounted; Result == ok ->
            Early = maps:from_list([{tlim_early, true} || not IsCounted]),
            maps:merge(State#{tlim_seq => max(Seq, maps:get(tlim_seq, State, 0))}, Early);
        [_] -> put(tlim_again, true), is_map_key(carbon_copy, Meta) orelse ejabberd_router:route(Msg), State;
        [] -> State
    end;
written(State, _, _) -> State.
seq(#message{type = error}) -> [];
seq(#message{sub_els = [#carbons_sent{}]}) -> []; %% the person's own
seq(M) -> [binary_to_integer(S) || E <- named(<<"tlim">>, tlim_recall:original(M)), {<<"seq">>, S} <- E#xmlel.attrs].
