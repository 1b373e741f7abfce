%% Makes ejabberd a node of a cluster, before it starts. Accounts and rosters are in PostgreSQL, and Mnesia has only what
%% lives as long as sessions do. So nothing of a node stays on a disk: each start takes over the tables of a node that
%% runs. Only the first node of all may start without another one, because two that begin alone would be two clusters.
%%
%% A node that is to end (SIGTERM) gives its sessions up one after another. Their clients come to the others: not at once.
-module(tlim_cluster).
-behaviour(gen_event).
-export([enter/0, state/0]).
-export([init/1, handle_event/2, handle_call/2]).
-include_lib("kernel/include/logger.hrl").
-define(LOOK_EVERY, 1000). %% ms
-define(ANSWER, 5000). %% ms: a node that runs has answered by then
-define(PATIENCE, 60). %% looks: so long the first node waits for one that has an address and is silent
-define(DRAIN, 20000). %% ms: so long it takes to give all sessions up

%% The nodes stand in XMPP_NODE_NAMES, the first one first.
enter() ->
    [First | _] = Nodes = [list_to_atom(Name) || Name <- string:lexemes(os:getenv("XMPP_NODE_NAMES"), " ")],
    enter(Nodes -- [node()], node() == First, ?PATIENCE),
    ok = gen_event:swap_handler(erl_signal_server, {erl_signal_handler, []}, {?MODULE, []}).
enter(Others, IsFirst, Patience) ->
    States = [{state_of(Node), Node} || Node <- Others],
    case {lists:keyfind(running, 1, States), lists:keymember(silent, 1, States) andalso Patience > 0} of
        {{running, Node}, _} -> join(Node);
        {false, false} when IsFirst -> ?LOG_NOTICE("no other node runs: ~p begins alone", [node()]);
        {false, _} -> timer:sleep(?LOOK_EVERY), enter(Others, IsFirst, Patience - 1)
    end.

%% A node waits until ejabberd has started all of its modules. One without an address is not there at all.
state() -> case lists:keymember(ejabberd, 1, application:which_applications()) of true -> running; false -> waiting end.
state_of(Node) ->
    [_, Host] = string:split(atom_to_list(Node), "@"),
    case inet:getaddr(Host, inet) of
        {ok, _} -> case rpc:call(Node, ?MODULE, state, [], ?ANSWER) of {badrpc, _} -> silent; State -> State end;
        {error, _} -> absent
    end.

%% A node that was there before is still named in the tables of the others, and gets its copies by itself. If anything
%% fails here, this node ends, and whatever runs ejabberd starts it again.
join(Node) ->
    ok = mnesia:start(),
    {ok, [_ | _]} = mnesia:change_config(extra_db_nodes, [Node]),
    mnesia:change_table_copy_type(schema, node(), disc_copies),
    Tables = mnesia:system_info(tables) -- [schema],
    [mnesia:add_table_copy(T, node(), rpc:call(Node, mnesia, table_info, [T, storage_type])) || T <- Tables],
    [] = Tables -- mnesia:system_info(local_tables),
    ok = mnesia:wait_for_tables(Tables, infinity),
    ?LOG_NOTICE("~p has the tables of ~p", [node(), Node]).

init({_, _}) -> {ok, []}.
handle_call(_, State) -> {ok, ok, State}.
handle_event(sigterm, State) -> spawn(fun end_slowly/0), {ok, State};
handle_event(Signal, State) -> erl_signal_handler:handle_event(Signal, State).
end_slowly() ->
    case mnesia:system_info(running_db_nodes) -- [node()] of
        [] -> ok; %% nobody else would take the clients
        _ ->
            Sessions = [Pid || Session <- ejabberd_sm:dirty_get_my_sessions_list(), {_, Pid} <- [element(2, Session)]],
            Pause = ?DRAIN div max(1, length(Sessions)),
            [begin give_up(Pid), timer:sleep(Pause) end || Pid <- Sessions]
    end,
    init:stop().
give_up(Pid) -> %% as ejabberd does with all of them when it stops
    ejabberd_c2s:send(Pid, xmpp:serr_reset()),
    ejabberd_c2s:stop_async(Pid).
