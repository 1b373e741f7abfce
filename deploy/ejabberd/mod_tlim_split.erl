%% Ends a split of the cluster. If a node hangs, or the network between the nodes is away, for longer than net_ticktime,
%% each node takes the other one for dead. When they meet again, each has sessions and routes that the other one does not
%% know, and Mnesia leaves it so. It does not even notice each time. So one of them ends, and whatever runs ejabberd starts
%% it again. It then takes over the tables of the other one. The clients of the node that ends connect again.
%%
%% The watchers of the nodes tell each other that they are here. A node that has started anew has a new watcher. If the
%% connection to a node was lost, and the same watcher speaks again, both have gone on without each other. A node that was
%% started while the other one could not be reached has never met it: then Mnesia runs on both, and not as one. If it was
%% killed before, it may not even be ready: it waits for the tables of the other one, and for ever.
-module(mod_tlim_split).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, watch/0, waits/3]).
-include("logger.hrl").
-define(AGAIN, 3000). %% ms: nobody else connects two nodes that have nothing to say to each other

start(_, _) ->
    mnesia:set_master_nodes([]), %% the tables are there now: another start does not need that node
    whereis(?MODULE) == undefined andalso register(?MODULE, spawn(?MODULE, watch, [])), ok.
stop(_) -> whereis(?MODULE) == undefined orelse exit(whereis(?MODULE), kill), ok.
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.

watch() ->
    ok = net_kernel:monitor_nodes(true),
    [say(here, Node) || Node <- nodes()],
    look(#{}, #{}).
say(What, Node) -> {?MODULE, Node} ! {What, self()}.

%% The watchers that were heard, and those whose connection was lost, by node. Erlang says that a node has come before
%% anything that it sends, and that it has gone after all of that.
look(Heard, Lost) ->
    receive
        {nodeup, Node} -> say(here, Node), look(Heard, Lost);
        {nodedown, Node} -> look(maps:remove(Node, Heard), maps:merge(Lost, maps:with([Node], Heard)));
        {here, Other} when map_get(node(Other), Heard) == Other -> look(Heard, Lost);
        {here, Other} ->
            Node = node(Other),
            case maps:get(Node, Lost, none) /= Other andalso lists:member(Node, mnesia:system_info(running_db_nodes)) of
                true ->
                    is_map_key(Node, Lost) andalso look_at_accounts(), %% it may have gone on alone before it ended
                    say(here, Node), look(Heard#{Node => Other}, maps:remove(Node, Lost));
                false ->
                    say(split, Node), %% it may not have heard yet that the connection was lost
                    heal(Node), look(Heard, Lost)
            end;
        {split, Other} -> heal(node(Other)), look(Heard, Lost)
    after ?AGAIN ->
        [catch mod_tlim_bridge:home(H) || H <- ejabberd_option:hosts(), gen_mod:is_loaded(H, mod_tlim_bridge)],
        Lacking = mnesia:system_info(db_nodes) -- mnesia:system_info(running_db_nodes),
        [net_kernel:connect_node(Node) || Node <- Lacking],
        [start_anew(Node) || Node <- Lacking, waits(Node), timer:sleep(?AGAIN) == ok, waits(Node)],
        look(Heard, Lost)
    end.
waits(Node) ->
    Ask = fun(M, F, A) -> rpc:call(Node, M, F, A, ?AGAIN) end,
    waits(Ask(erlang, whereis, [?MODULE]), Ask(mnesia, system_info, [is_running]),
          Ask(mnesia, system_info, [running_db_nodes])).
%% Mnesia runs there, it will not join ours any more, and ejabberd has not started. It may be about to join: look twice.
%% Each answer is an error instead if the node is lost now.
waits(undefined, yes, Running) when is_list(Running) -> not lists:member(node(), Running);
waits(_, _, _) -> false.
start_anew(Node) ->
    ?CRITICAL_MSG("~p waits for tables of this node since a split: it starts anew", [Node]),
    rpc:cast(Node, erlang, halt, [1]).
heal(Node) when node() < Node ->
    ?CRITICAL_MSG("the cluster was split: ejabberd starts anew with the tables of ~p", [Node]),
    mnesia:set_master_nodes([Node]),
    init:stop(1);
heal(_) -> look_at_accounts().
look_at_accounts() -> catch mod_tlim_login:look(). %% nothing ends this watcher: nobody would start it again
