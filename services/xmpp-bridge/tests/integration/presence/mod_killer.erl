%% Lets a client of a test have its session killed, or resumed step by step, and lets its node lose what it knows.
-module(mod_killer).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, die/1, early/2, late/2]).
-include("xmpp.hrl").
start(H, _) ->
    ejabberd_hooks:add(c2s_copy_session, H, ?MODULE, early, 1),
    ejabberd_hooks:add(c2s_copy_session, H, ?MODULE, late, 99),
    ejabberd_hooks:add(user_send_packet, H, ?MODULE, die, 1).
stop(_) -> ok.
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.
die({#message{body = [#text{data = <<"die">>}]}, _}) -> exit(self(), kill);
die({#message{body = [#text{data = <<"lose the settings">>}]}, #{lserver := H}} = Acc) ->
    persistent_term:put(?MODULE, ets:take(ejabberd_modules, {mod_tlim_bridge, H})), Acc;
die({#message{body = [#text{data = <<"lose the routes">>}]}, #{lserver := H}} = Acc) ->
    mnesia:dirty_delete(route, <<"bridge.", H/binary>>), Acc;
die({#message{body = [#text{data = <<"lose the domain">>}]} = Msg, #{lserver := H} = State}) ->
    mnesia:dirty_delete(route, H), {stop, {drop, ejabberd_c2s:send(State, Msg)}};
die({#message{body = [#text{data = <<"does it wait">>}]} = Msg, State}) ->
    Answers = [catch mod_tlim_split:waits(undefined, yes, Nodes) || Nodes <- [[], [node()], {badrpc, timeout}]],
    Text = unicode:characters_to_binary(io_lib:format("~0p", [Answers])),
    {stop, {drop, ejabberd_c2s:send(State, Msg#message{body = xmpp:mk_text(Text)})}};
die({#message{to = #jid{luser = U}, body = [#text{data = <<"change the password">>}]}, #{lserver := H} = State}) ->
    ejabberd_auth_mnesia:set_password(U, H, <<"another">>), {stop, {drop, State}}; %% the caches are not told
die({#message{body = [#text{data = <<"look again">>}]}, State}) -> mod_tlim_login:look(), {stop, {drop, State}};
die({#message{to = #jid{luser = U}, body = [#text{data = <<"lose the database">>}]}, #{lserver := H} = State}) ->
    ejabberd_auth_mnesia:remove_user(U, H), ets_cache:clear(ejabberd_auth_mnesia_cache), {stop, {drop, State}};
die({#message{body = [#text{data = <<"find the settings">>}]}, _} = Acc) ->
    ets:insert(ejabberd_modules, persistent_term:get(?MODULE)), Acc;
die({#message{body = [#text{data = <<"is it given away">>}]}, _} = Acc) -> heir(), Acc;
die({#message{body = [#text{data = <<"take over">>}]}, _} = Acc) -> heir() ! take_over, Acc;
die({#message{body = [#text{data = <<"heir dies">>}]}, _} = Acc) -> exit(heir(), kill), Acc;
die({#message{body = [#text{data = <<"hold on">>}]}, _} = Acc) -> wait(), Acc;
die(Acc) -> Acc.
heir() -> case whereis(?MODULE) of undefined -> timer:sleep(10), heir(); Pid -> Pid end.

%% A process that takes a session over waits, before it says so or after it. In the second case the old process ends
%% before any node knows the new one. Or the old process outlives the resumption, because it hangs.
early(#{resource := <<"early">>} = State, _) -> wait(), State;
early(State, _) -> State.
late(#{resource := <<"late">>} = State, #{sid := {_, Old}}) ->
    wait(), Ref = monitor(process, Old), ejabberd_c2s:stop_async(Old),
    receive {'DOWN', Ref, _, _, _} -> State end;
late(#{resource := <<"held">>} = State, #{sid := {_, Old}}) -> sys:suspend(Old), State;
late(State, _) -> State.
wait() -> register(?MODULE, self()), receive take_over -> unregister(?MODULE) end.
