%% What the component sends to a person. Whatever reaches no session is said to be missed.
-module(tlim_delivery).
-export([arrived/1, forget/1]). %% hooks of mod_tlim_bridge
-export([start/0, tell/0, settled/1]).
-import(mod_tlim_bridge, [pids/1, send/3, opt/2, tag/2, named/2]).
-import(tlim_session, [seq/1]).
-include("xmpp.hrl").
-define(TOLD, 2000). %% ms: a node that says nothing for so long hangs, and what is on the way to it may be lost

%% The component forwards a stored message to the address that sent it. Then the sender's other devices get a copy
%% (XEP-0280). No client can have the component's address.
arrived(#message{from = #jid{luser = User, lserver = C}, to = #jid{lserver = H} = To} = Msg) ->
    case User == <<>> andalso C == opt(H, component) andalso xmpp:get_subtag(Msg, #forwarded{}) of
        #forwarded{sub_els = [El]} ->
            mod_carboncopy:user_send_packet({xmpp:set_from(xmpp:decode(El, ?NS_CLIENT, [ignore_els]), To), #{}}),
            {stop, drop};
        _ ->
            case To#jid.lresource == <<>> andalso xmpp:has_subtag(Msg, #hint{type = 'no-store'}) andalso seq(Msg) of
                [Seq] -> deliver(late(Msg), Seq), {stop, drop};
                _ -> Msg %% a bridge that is older than this module leaves the rest to mod_offline
            end
    end;
arrived(Packet) -> Packet.
%% What a session routes again may be older than what another session of the person has. So it says when it was stored.
late(#message{to = #jid{lserver = H}} = Msg) ->
    Stored = [binary_to_integer(T) || get(tlim_again) == true, E <- named(<<"tlim">>, Msg),
                                       {<<"time">>, T} <- E#xmlel.attrs],
    lists:foldl(fun(T, M) -> misc:add_delay_info(M, jid:make(H), misc:usec_to_now(T * 1000)) end, Msg, Stored).
%% ejabberd reads its sessions twice for one message, and a message is lost if the session ends in between. So what the
%% bridge must know of is delivered here. What comes from a session that went on in another process meanwhile is missed:
%% that process may not be known on this node yet, and another session of the person, which has it, would take it again.
deliver(#message{to = #jid{luser = U, lserver = S} = To} = Msg, Seq) ->
    Ready = [{P, Pid} || get(tlim_inherited) /= true, {_, Info} <- ejabberd_sm:get_user_info(U, S),
                         {priority, P} <- Info, is_integer(P), P >= 0, {pid, Pid} <- Info],
    {Highest, _} = lists:max([{-1, self()} | Ready]),
    Missed = tag(<<"missed">>, [{<<"seq">>, integer_to_binary(Seq)}]),
    Unheard = #presence{type = unavailable, from = To, sub_els = [Missed]},
    Pass = fun(Pid, M) -> %% only one of several sessions makes carbons: the others get a marked message
        case route(Pid, M, Unheard) of true -> xmpp:put_meta(Msg, sm_copy, true); false -> M end
    end,
    lists:foldl(Pass, Msg, [Pid || {P, Pid} <- Ready, P == Highest]) == Msg andalso send(S, pids(S), Unheard).
%% It is known whether a session on this node lives. One on another node may have ended before the message gets there,
%% and ejabberd does not notice. So that node has to say that the session was alive when the message came. The session
%% itself is not asked: it may wait for a client that reads nothing, and everybody would wait for that client.
route(Pid, M, _) when node(Pid) == node() -> ejabberd_c2s:route(Pid, {route, M});
route(Pid, M, Unheard) ->
    Waiting = spawn(fun() -> await(node(Pid), Unheard) end),
    case ejabberd_c2s:route(Pid, {route, M}) andalso ejabberd_cluster:send({?MODULE, node(Pid)}, {came, Pid, Waiting}) of
        true -> is_list(get(tlim_told)) andalso put(tlim_told, [Waiting | get(tlim_told)]), true;
        false -> exit(Waiting, kill), false
    end.
await(Node, #presence{from = #jid{lserver = H}} = Unheard) ->
    monitor(process, {?MODULE, Node}),
    receive
        alive -> ok;
        _ -> send(H, pids(H), Unheard)
    after ?TOLD -> send(H, pids(H), Unheard) end.
%% On each node a process says whether a session is alive. What one process has sent to another node comes there in order,
%% also if it goes to several processes. So the session has the message before this process is asked.
start() -> whereis(?MODULE) == undefined andalso register(?MODULE, spawn(?MODULE, tell, [])), ok.
tell() ->
    receive {came, Pid, Waiting} ->
        ejabberd_cluster:send(Waiting, case is_process_alive(Pid) of true -> alive; false -> ended end)
    end,
    ?MODULE:tell().
forget({_, #message{meta = #{carbon_copy := true}} = Copy}) -> {stop, {offlined, Copy}}; %% its device has just gone
forget(Acc) -> Acc.
%% The answer to a ping says that all before it is in safe hands. So it waits until the other nodes have it: what is still
%% on the way there ends with this node. It runs in the process of the connection, from its first ping on.
settled(Pong) ->
    Untold = [Waiting || is_list(get(tlim_told)), Waiting <- get(tlim_told), is_process_alive(Waiting)],
    put(tlim_told, Untold), Component = self(),
    spawn(fun() ->
        [receive {'DOWN', Ref, _, _, _} -> ok end || Ref <- [monitor(process, Waiting) || Waiting <- Untold]],
        Component ! {route, Pong}
    end), ok.
